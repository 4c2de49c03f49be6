package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"spos/internal/imaging"
)

// A model that came with its preprocessing also takes encoded pictures: through …/classify, and in place of its input
// as a BYTES tensor of the same name, of shape [N] or [N,1]. Both pass the same door, in this order: the bytes are
// counted, the first of them name the format, the header is read and held against the limits, a place in the queue is
// taken and cores are waited for, and only then pixels are decoded, where a panic of the decoder is an error.

// encodedPicture reports an input that holds pictures where the model takes numbers.
func (info *ModelInfo) encodedPicture(t *Tensor) bool {
	return info.Recipe != nil && t.Type == Bytes && t.Name == info.Inputs[0].Name
}

// fitsPictures is fits for an input of pictures.
func fitsPictures(t *Tensor) error {
	if n := len(t.Shape); n < 1 || n > 2 || t.Shape[0] < 1 || n == 2 && t.Shape[1] != 1 {
		return badRequest("input %q: pictures have the shape [N] or [N,1], not %v", short(t.Name), t.Shape)
	}
	return nil
}

// split is the pictures of a BYTES tensor that has been checked.
func split(data []byte, encoded bool, mem *arena) (pictures [][]byte, err error) {
	for len(data) > 0 {
		n := 4 + binary.LittleEndian.Uint32(data)
		p := data[4:n:n]
		if encoded {
			if p, err = decodeBase64(p, mem); err != nil {
				return nil, err
			}
		}
		pictures, data = append(pictures, p), data[n:]
	}
	return pictures, nil
}

// decodeBase64 decodes a picture, or a data URL of one. No other address is followed.
func decodeBase64(text []byte, mem *arena) ([]byte, error) {
	if bytes.HasPrefix(text, []byte("data:")) {
		_, text, _ = bytes.Cut(text, []byte(";base64,"))
	}
	buf, err := mem.alloc(base64.StdEncoding.DecodedLen(len(text)))
	if err != nil {
		return nil, err
	}
	n, err := base64.StdEncoding.Strict().Decode(buf, text)
	if err != nil || bytes.ContainsAny(text, "\r\n") {
		return nil, badRequest("a picture is not base64; a picture's address is not followed")
	}
	return buf[:n], nil
}

// probe reads the headers of a request's pictures.
func (s *Server) probe(v *version, req *inferRequest) error {
	n := int64(len(req.pictures))
	if d := v.info.Inputs[0].Shape[0]; d >= 0 && d != n {
		return badRequest("the model takes %d pictures at a time, not %d", d, n)
	}
	if most := s.maxBatch(&v.info); most > 0 && n > most {
		return badRequest("%d pictures are more than the %d that a request may hold", n, most)
	}
	limits := imaging.Limits{Bytes: s.opt.MaxImage, Pixels: s.opt.MaxPixels}
	req.probed = make([]imaging.Encoded, n)
	for i, data := range req.pictures {
		if len(data) == 0 {
			return badRequest("there is no picture in the request")
		}
		e, err := imaging.Probe(data, limits)
		if err != nil {
			return req.blame(i, err)
		}
		if e.Memory > s.memory.limit {
			return req.blame(i, fmt.Errorf("%w: %d×%d pixels need more memory than the server has", imaging.ErrTooLarge, e.W, e.H))
		}
		req.probed[i] = e
	}
	return nil
}

// blame names the picture that an error is about, where there are several.
func (r *inferRequest) blame(i int, err error) error {
	if len(r.pictures) < 2 || !errors.Is(err, imaging.ErrImage) {
		return err
	}
	return fmt.Errorf("picture %d: %w", i, err)
}

// develop is the model's inputs, made of pictures whose headers have passed where the request has some.
func (v *version) develop(ctx context.Context, req *inferRequest, mem *arena) ([]Tensor, error) {
	if req.pictures == nil {
		return req.inputs, nil
	}
	t, err := v.developAll(ctx, req, mem)
	return []Tensor{t}, err
}

func (v *version) developAll(ctx context.Context, req *inferRequest, mem *arena) (Tensor, error) {
	start := time.Now()
	shape := v.info.Recipe.Shape()
	if shape.H == 0 {
		shape.H, shape.W = req.probed[0].H, req.probed[0].W
	}
	t := Tensor{
		Name: v.info.Inputs[0].Name, Type: FP32,
		Shape: []int64{int64(len(req.probed)), int64(shape.C), int64(shape.H), int64(shape.W)},
	}
	if err := fits(&t, v.info.Inputs[0]); err != nil {
		return Tensor{}, err
	}
	n, _ := elements(t.Shape)
	var err error
	if t.Data, err = mem.alloc(4 * int(n)); err != nil {
		return Tensor{}, err
	}
	values := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(t.Data))), n)
	for i, p := range req.probed {
		if ctx.Err() != nil {
			return Tensor{}, v.gate.lost(ctx, errRun)
		}
		if v.info.Recipe.Height == 0 && (p.H != shape.H || p.W != shape.W) {
			return Tensor{}, badRequest("the model takes pictures of any size, but of one size in a request")
		}
		one := values[i*shape.Numel():][:shape.Numel()]
		if err := v.developOne(p, one, mem); err != nil {
			return Tensor{}, req.blame(i, err)
		}
	}
	v.met.decode.Observe(time.Since(start).Seconds())
	if ctx.Err() != nil {
		return Tensor{}, v.gate.lost(ctx, errRun)
	}
	return t, nil
}

func (v *version) developOne(p imaging.Encoded, dst []float32, mem *arena) error {
	if err := mem.reserve(p.Memory); err != nil {
		return err
	}
	defer mem.unreserve(p.Memory)
	img, err := p.Decode()
	if err != nil {
		return err
	}
	return v.info.Recipe.Apply(img, dst)
}
