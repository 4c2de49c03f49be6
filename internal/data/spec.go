package data

import "fmt"

// Kind is the form in which a data set is stored.
type Kind string

// The kinds.
const (
	FashionMNIST Kind = "fashion_mnist" // IDX files, with Fashion-MNIST's class names
	IDX          Kind = "idx"           // a folder of IDX files, plain or gzipped: the MNIST family
	Folder       Kind = "folder"        // one folder of images a class
	Tar          Kind = "tar"           // the same inside a .tar, .tar.gz or .tgz
)

// Spec says where a data set is and how it is divided. Only Path is needed.
type Spec struct {
	// Kind is the form. Empty: found out from Path.
	Kind Kind `yaml:"kind,omitempty" json:"kind,omitempty"`
	// Path is the folder or archive.
	Path string `yaml:"path" json:"path"`
	// Train, Val and Test name the sub-folders of a folder or archive. Empty:
	// train, val and test where they exist. A lone val folder beside train is
	// the test set (as the literature uses ImageNet's), and validation is held
	// out of train. Without any, classes lie at the top and all is divided.
	Train string `yaml:"train,omitempty" json:"train,omitempty"`
	Val   string `yaml:"val,omitempty" json:"val,omitempty"`
	Test  string `yaml:"test,omitempty" json:"test,omitempty"`
	// ValFraction is the part of the training images that is held out, class
	// by class, where there is no validation folder. Zero: 0.1.
	ValFraction float64 `yaml:"val_fraction,omitempty" json:"val_fraction,omitempty"`
	// TestFraction is the part held out first where the data has no test
	// part. Zero: 0.1.
	TestFraction float64 `yaml:"test_fraction,omitempty" json:"test_fraction,omitempty"`
	// SplitSeed draws the held-out images. Runs to be compared share it.
	SplitSeed uint64 `yaml:"split_seed,omitempty" json:"split_seed,omitempty"`
	// Pack decodes everything once and keeps the pixels in memory: on, off, or
	// auto (small images in a set that fits). Empty: auto.
	Pack Pack `yaml:"pack,omitempty" json:"pack,omitempty"`
	// Broken says what to do about images that do not decode: fail, with an
	// error that names the first one used, or skip, which decodes all of them
	// once at opening and leaves the broken ones out. Empty: fail.
	Broken Broken `yaml:"broken,omitempty" json:"broken,omitempty"`
	// FollowLinks accepts symbolic links that lead out of Path. Otherwise
	// they are an error.
	FollowLinks bool `yaml:"follow_links,omitempty" json:"follow_links,omitempty"`
}

// Pack is a choice of [Spec.Pack].
type Pack string

// The choices.
const (
	PackAuto Pack = "auto"
	PackOn   Pack = "on"
	PackOff  Pack = "off"
)

// Broken is a choice of [Spec.Broken].
type Broken string

// The choices.
const (
	FailBroken Broken = "fail"
	SkipBroken Broken = "skip"
)

// Validate reports the first field that makes no sense. It does not look at
// the disk.
func (s Spec) Validate() error {
	switch s.Kind {
	case "", FashionMNIST, IDX, Folder, Tar:
	default:
		return fmt.Errorf("kind: %q is none of fashion_mnist, idx, folder, tar", s.Kind)
	}
	switch s.Pack {
	case "", PackAuto, PackOn, PackOff:
	default:
		return fmt.Errorf("pack: %q is none of auto, on, off", s.Pack)
	}
	switch s.Broken {
	case "", FailBroken, SkipBroken:
	default:
		return fmt.Errorf("broken: %q is none of fail, skip", s.Broken)
	}
	if !(s.ValFraction >= 0 && s.ValFraction < 1) {
		return fmt.Errorf("val_fraction: %v is outside 0..1", s.ValFraction)
	}
	if !(s.TestFraction >= 0 && s.TestFraction < 1) {
		return fmt.Errorf("test_fraction: %v is outside 0..1", s.TestFraction)
	}
	return nil
}
