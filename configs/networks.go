package configs

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"spos/internal/arch"
	"spos/internal/archfile"
)

// Networks names the published networks that ship, sorted.
func Networks() []string { return names("arch") }

// ErrUnknownNetwork is wrapped by the error about a name that is neither a
// shipped network nor a file.
var ErrUnknownNetwork = errors.New("no such network")

// Network returns a published network by its name, or one of the user's own
// by the path of its YAML file, such as a search's best.yaml.
func Network(name string) (archfile.File, error) {
	if IsPath(name) {
		return archfile.Read(name)
	}
	text, err := files.ReadFile(path.Join("arch", name+".yaml"))
	if err != nil {
		return archfile.File{}, fmt.Errorf("%q: %w; shipped are %s; a file of your own is given by its path", name, ErrUnknownNetwork, strings.Join(Networks(), ", "))
	}
	return archfile.Parse(text, name)
}

// SpaceOf is the space that a network is of, for the images and classes that
// its file names, and the network as a point of it.
func SpaceOf(f archfile.File) (*arch.Space, arch.Arch, error) {
	s, err := Space(f.Space)
	if err != nil {
		return nil, "", err
	}
	in, classes := s.In, s.Classes
	if len(f.Input) == 3 {
		in = arch.Shape{C: f.Input[0], H: f.Input[1], W: f.Input[2]}
	}
	if f.Classes > 0 {
		classes = f.Classes
	}
	if s, err = s.With(in, classes); err != nil {
		return nil, "", err
	}
	a, err := f.In(s)
	return s, a, err
}

// Arch reads an architecture of s from what a user gives for one: digits, the
// name of a shipped network, or the path of a file in any format that
// [archfile.Detect] knows.
func Arch(s *arch.Space, text string) (arch.Arch, error) {
	switch {
	case slices.Contains(Networks(), text):
		f, err := Network(text)
		if err != nil {
			return "", err
		}
		a, err := f.In(s)
		if err != nil {
			return "", fmt.Errorf("%s: %w", text, err)
		}
		return a, nil
	case IsPath(text):
		content, err := archfile.ReadText(text)
		if err != nil {
			return "", err
		}
		return archfile.Decode(s, content, "", text)
	default:
		return s.Parse(text)
	}
}
