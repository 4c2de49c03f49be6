package data

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"spos/internal/arch"
)

// Sets is an opened data set. Train, Val and Test share no image: Val is held
// out of the training images for choosing between networks, Test is for the
// last number only.
type Sets struct {
	Name    string // of the folder or archive
	Kind    Kind
	Classes []string
	// Shape is the one shape of the images. Height and width are zero where
	// they differ or are not known without reading them all.
	Shape            arch.Shape
	Train, Val, Test Dataset
	// Fingerprint tells data sets apart, for lineage: a hash of all pixels and
	// labels where they are in memory, of all names and sizes otherwise.
	Fingerprint string
	// Skipped are the broken images that were left out.
	Skipped []BadImage

	source source
}

// Close closes the files behind the sets, which are not to be used any more.
func (s *Sets) Close() error {
	if s.source == nil {
		return nil
	}
	return s.source.Close()
}

// Memory budgets of packing: one for what nobody asked for, one for what
// somebody did.
const (
	autoBudget = 1 << 30
	packBudget = 64 << 30
	autoSide   = 64 // larger images are not packed unasked
)

// Open opens the data set that spec describes, with ctx bounding the decoding
// that packing or skipping needs. Errors about its content wrap [ErrData] and
// name the file; a missing path wraps [ErrNotFound].
func Open(ctx context.Context, spec Spec) (*Sets, error) {
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	kind, err := spec.kind()
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	s := &Sets{Name: filepath.Base(filepath.Clean(spec.Path)), Kind: kind}
	switch kind {
	case IDX, FashionMNIST:
		err = s.openIDX(spec)
	default:
		err = s.openFiles(ctx, spec)
	}
	if err == nil {
		err = s.hold(spec)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open data set %s: %w", spec.Path, err), s.Close())
	}
	return s, nil
}

// kind is the spec's, or what the path looks like.
func (s Spec) kind() (Kind, error) {
	if s.Path == "" {
		return "", fmt.Errorf("path: no folder or archive is given: %w", ErrNotFound)
	}
	info, err := os.Stat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("path: %w: %w", ErrNotFound, err)
	case err != nil:
		return "", fmt.Errorf("path: %w", err)
	case s.Kind != "":
		if info.IsDir() == (s.Kind == Tar) {
			return "", fmt.Errorf("path: %s is not what kind %s needs: %w", s.Path, s.Kind, ErrData)
		}
		return s.Kind, nil
	case info.IsDir() && hasIDX(s.Path):
		return IDX, nil
	case info.IsDir():
		return Folder, nil
	}
	for _, ext := range []string{".tar", ".tar.gz", ".tgz"} {
		if strings.HasSuffix(s.Path, ext) {
			return Tar, nil
		}
	}
	return "", fmt.Errorf("path: %s is neither a folder nor a .tar, .tar.gz or .tgz: %w", s.Path, ErrData)
}

func (s *Sets) openIDX(spec Spec) error {
	var classes []string
	if s.Kind == FashionMNIST {
		classes = FashionClasses
		s.Name = "fashion-mnist"
	}
	train, err := openIDX(spec.Path, "train", classes)
	if err != nil {
		return err
	}
	test, err := openIDX(spec.Path, "t10k", train.classes)
	if err != nil {
		return err
	}
	s.Train, s.Test = train, test
	s.Classes, s.Shape, s.Fingerprint = train.classes, train.Shape(), fingerprint(train, test)
	if test.Shape() != s.Shape {
		return fmt.Errorf("training images are %v and test images %v: %w", s.Shape, test.Shape(), ErrData)
	}
	return nil
}

// parts are the folder names of training, validation and test images; empty
// where there is none.
func (s Spec) parts(top []string) (train, val, test string, err error) {
	pick := func(field, given, usual string) string {
		name := cmp.Or(given, usual)
		if slices.Contains(top, name) {
			return name
		}
		if given != "" && err == nil {
			err = fmt.Errorf("%s: no folder %q at the top, which holds %q: %w", field, given, top, ErrData)
		}
		return ""
	}
	train = pick("train", s.Train, "train")
	if train == "" && err == nil {
		return "", "", "", nil // the classes themselves are at the top
	}
	val, test = pick("val", s.Val, "val"), pick("test", s.Test, "test")
	switch {
	case test == "" && s.Val == "":
		val, test = "", val
	case test == val:
		val = ""
	}
	return train, val, test, err
}

func (s *Sets) openFiles(ctx context.Context, spec Spec) error {
	list := func() (listing, source, error) { return listDir(spec.Path, spec.FollowLinks) }
	if s.Kind == Tar {
		list = func() (listing, source, error) { return listTar(spec.Path) }
	}
	l, src, err := list()
	if err != nil {
		return err
	}
	s.source = src
	if s.Kind == Tar {
		l.unwrap([]string{cmp.Or(spec.Train, "train")})
	}
	train, val, test, err := spec.parts(l.tops())
	if err != nil {
		return err
	}
	buffers := &sync.Pool{New: func() any { return new(bytes.Buffer) }}
	var sets [3]*encoded
	for i, name := range []string{train, val, test} {
		if i > 0 && name == "" {
			continue
		}
		if sets[i], err = l.part(name, s.Classes, src, buffers); err != nil {
			return err
		}
		s.Classes = sets[0].classes
	}
	return s.adopt(ctx, spec, sets)
}

// adopt packs, checks or takes the sets as they are.
func (s *Sets) adopt(ctx context.Context, spec Spec, sets [3]*encoded) error {
	first, err := sets[0].Image(0)
	for i := 1; i < sets[0].Len() && err != nil && spec.Broken == SkipBroken; i++ {
		first, err = sets[0].Image(i)
	}
	if err != nil {
		return err
	}
	budget := int64(0)
	switch {
	case spec.Pack == PackOn:
		budget = packBudget
	case spec.Pack != PackOff && max(first.W, first.H) <= autoSide:
		budget = autoBudget
	}
	s.Shape = arch.Shape{C: 3}
	err = s.decode(ctx, spec, sets, budget)
	if errors.Is(err, errBudget) && spec.Pack != PackOn {
		err = s.decode(ctx, spec, sets, 0)
	}
	if errors.Is(err, errBudget) {
		err = fmt.Errorf("pack: the decoded images take more than %d bytes", int64(packBudget))
	}
	return err
}

func (s *Sets) decode(ctx context.Context, spec Spec, sets [3]*encoded, budget int64) error {
	var packed []*Memory
	var all encoded
	s.Skipped = nil
	for i, target := range []*Dataset{&s.Train, &s.Val, &s.Test} {
		d := sets[i]
		if d == nil {
			continue
		}
		*target = d
		all.items = append(all.items, d.items...)
		if budget == 0 && spec.Broken != SkipBroken {
			continue
		}
		m, bad, err := decodeAll(ctx, d, budget)
		if err != nil {
			return err
		}
		if len(bad) > 0 && spec.Broken != SkipBroken {
			return fmt.Errorf("%w (%d of %d images are broken; broken: skip leaves them out)", bad[0].Err, len(bad), d.Len())
		}
		s.Skipped = append(s.Skipped, bad...)
		if budget > 0 {
			m.drop(bad)
			packed = append(packed, m)
			*target = m
			continue
		}
		d.drop(bad)
	}
	if packed == nil {
		s.Fingerprint = all.fingerprint()
		return nil
	}
	s.Fingerprint, s.Shape = fingerprint(packed...), packed[0].Shape()
	for _, m := range packed[1:] {
		if m.Shape() != s.Shape {
			s.Shape = arch.Shape{C: 3}
		}
	}
	err := s.source.Close() // all is in memory now
	s.source = nil
	return err
}

// hold cuts the missing parts out of the training set.
func (s *Sets) hold(spec Spec) (err error) {
	const usual = 0.1
	if s.Train.Len() == 0 {
		return fmt.Errorf("no training images are left: %w", ErrData)
	}
	// The two cuts draw different images from one seed.
	if s.Test == nil {
		if s.Train, s.Test, err = Split(s.Train, cmp.Or(spec.TestFraction, usual), spec.SplitSeed); err != nil {
			return err
		}
	}
	if s.Val == nil {
		s.Train, s.Val, err = Split(s.Train, cmp.Or(spec.ValFraction, usual), spec.SplitSeed+1)
	}
	return err
}
