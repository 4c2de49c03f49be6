package imaging

import (
	"errors"
	"image"
	"testing"
)

// A decoder of somebody else's bytes that panics is a bad image, not the end of the process.
func TestDecoderThatPanics(t *testing.T) {
	f := format{name: "x", decode: func([]byte) (image.Image, error) { panic("makeslice: len out of range") }}
	if m, err := (Encoded{format: &f}).Decode(); m != nil || !errors.Is(err, ErrImage) {
		t.Errorf("%v, %v", m, err)
	}
}
