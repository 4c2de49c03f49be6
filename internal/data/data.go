// Package data turns stored images into batches of plain slices. It reads
// data sets, splits them, and loads them in parallel in an order that depends
// on nothing but a seed and a position. It knows no tensor and no training.
package data

import (
	"errors"
	"fmt"

	"spos/internal/arch"
	"spos/internal/imaging"
)

// Errors that callers branch on.
var (
	// ErrData is wrapped by errors about what a data set holds: a broken
	// file, an empty class, a layout that is not understood.
	ErrData = errors.New("bad data set")
	// ErrNotFound is wrapped by errors about data that is not there.
	ErrNotFound = errors.New("data set not found")
)

// Batch is a number of images and their labels.
type Batch struct {
	Images []float32  // N·Shape.Numel() values, (N, C, H, W) row-major
	Labels []int64    // N class indices
	N      int        // number of images
	Shape  arch.Shape // of one image
}

// Dataset is a fixed, ordered collection of labelled images. Its methods may
// be called by several goroutines at a time.
type Dataset interface {
	// Len is the number of images.
	Len() int
	// Classes are the class names, indexed by label. Not to be changed.
	Classes() []string
	// Label is the class of image i. It costs nothing.
	Label(i int) int
	// Image reads image i. Its pixels may be shared and are not to be
	// changed. An error names the image's file.
	Image(i int) (imaging.Image, error)
}

// Named is a [Dataset] whose images have names: where each was stored.
type Named interface{ Name(i int) string }

// Name is what to call image i of d in a message.
func Name(d Dataset, i int) string {
	if n, ok := d.(Named); ok {
		return n.Name(i)
	}
	return fmt.Sprintf("image %d", i)
}
