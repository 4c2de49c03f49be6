package imaging

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
)

const (
	// maxScans and maxWork bound the passes over a JPEG's pixels: each scan of
	// a few bytes may visit all of them, so that 16 MB could keep a core busy
	// for an hour. Encoders write 1 to about 15; maxWork allows a photograph
	// of 40 million pixels 15 of them.
	maxScans = 100
	maxWork  = 600_000_000
)

// checkJPEG bounds what decoding costs, and says how much memory it takes.
func checkJPEG(data []byte, c image.Config) (perPixel int64, err error) {
	scans, progressive := countScans(data)
	if scans > maxScans || int64(scans)*int64(c.Width)*int64(c.Height) > maxWork {
		return 0, fmt.Errorf("%w: jpeg of %d×%d pixels in %d scans", ErrImage, c.Width, c.Height, scans)
	}
	channels := int64(3)
	switch c.ColorModel {
	case color.GrayModel:
		channels, perPixel = 1, 1
	case color.CMYKModel:
		channels, perPixel = 4, 4+4 // converted after decoding
	case color.RGBAModel:
		perPixel = 3 + 4 // likewise
	default:
		perPixel = 3
	}
	if progressive {
		perPixel += 4 * channels // coefficients
	}
	return perPixel, nil
}

// countScans walks a JPEG's markers as image/jpeg does.
func countScans(data []byte) (scans int, progressive bool) {
	for i := 2; i < len(data); {
		next := bytes.IndexByte(data[i:], 0xff)
		if next < 0 {
			break
		}
		for i += next; i < len(data) && data[i] == 0xff; i++ {
		}
		if i+2 >= len(data) {
			break
		}
		marker := data[i]
		i++
		switch {
		case marker == 0 || 0xd0 <= marker && marker <= 0xd7: // a 255 among the samples, a restart
			continue
		case marker == 0xd9:
			return scans, progressive
		case marker == 0xda:
			scans++
		case marker == 0xc2:
			progressive = true
		}
		i += int(data[i])<<8 | int(data[i+1])
	}
	return scans, progressive
}

// checkPNG says how much memory decoding takes.
func checkPNG(data []byte, c image.Config) (perPixel int64, err error) {
	switch c.ColorModel {
	case color.GrayModel:
		perPixel = 1
	case color.Gray16Model:
		perPixel = 2
	case color.RGBA64Model, color.NRGBA64Model:
		perPixel = 8
	case color.RGBAModel, color.NRGBAModel:
		perPixel = 4
	default: // a palette
		perPixel = 1
	}
	const interlace = 8 + 8 + 12 // signature, chunk header, the fields before it
	if len(data) > interlace && data[interlace] != 0 {
		perPixel *= 2 // each pass is an image of its own
	}
	return perPixel, nil
}
