package serve

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"spos/internal/imaging"
)

const (
	defaultTop = 5
	maxTop     = 1000
	maxParts   = 16
	// pixelBytes is what decoding may hold for one pixel: 16 bits of four channels.
	pixelBytes = 8
)

// prediction is one class of an answer.
type prediction struct {
	Label       string  `json:"label,omitempty"`
	Index       int     `json:"index"`
	Probability float64 `json:"probability"`
}

// classify answers POST …/classify: a JPEG or PNG as the body, as the one file of a form, or in base64 as the member
// "image" of a JSON object. The picture goes through the model's own recipe, and the softmax of its first output is
// answered, largest first, equal ones by index.
func (s *Server) classify(w http.ResponseWriter, r *http.Request, c *call) (err error) {
	v, err := s.find(r, c)
	if err != nil {
		return err
	}
	t := &c.spans
	defer func() { v.stats.request(t, err) }()
	if v.info.Recipe == nil {
		return badRequest("model %q came without preprocessing: send tensors to …/infer", v.info.Name)
	}
	top, err := topOf(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if err := v.gate.refuse(); err != nil {
		return err
	}
	mem := &arena{m: &s.memory}
	defer mem.free()
	data, err := s.readImage(w, r, mem)
	if err != nil {
		return err
	}
	t.start = time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), s.deadline(v, 0))
	defer cancel()
	logits, err := s.look(ctx, v, data, mem, t)
	if err != nil {
		return err
	}
	ranking := time.Now()
	best, err := rank(logits, v.info.Labels, top)
	if err != nil {
		return err
	}
	t.end = time.Now()
	t.output = t.end.Sub(ranking)
	return s.writeJSON(w, struct {
		Model       string       `json:"model_name"`
		Version     string       `json:"model_version"`
		Predictions []prediction `json:"predictions"`
	}{v.info.Name, v.info.Version, best})
}

// look decodes a picture and runs the model on it. The header is checked outside the gate, where it costs
// microseconds; decoding costs as much as a small model and takes place inside.
func (s *Server) look(ctx context.Context, v *version, data []byte, mem *arena, t *spans) ([]float32, error) {
	limits := imaging.Limits{Bytes: s.opt.MaxImage, Pixels: s.opt.MaxPixels}
	if len(data) == 0 {
		return nil, badRequest("there is no picture in the request")
	}
	width, height, err := imaging.DecodeConfig(data, limits)
	if err != nil {
		return nil, err
	}
	came := time.Now()
	leave, err := v.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	start := time.Now()
	t.queue = start.Sub(came)
	in, err := v.prepare(data, limits, width, height, mem)
	if err != nil {
		return nil, err
	}
	t.input = time.Since(start)
	v.met.decode.Observe(t.input.Seconds())
	if ctx.Err() != nil {
		return nil, v.gate.lost(ctx, errRun)
	}
	want := v.info.Outputs[0]
	out := []Tensor{{Name: want.Name, Type: want.Type}}
	if err := v.run(ctx, []Tensor{in}, out, t); err != nil {
		return nil, err
	}
	t.items = 1
	v.stats.execution(1, start, t.input, t.infer, 0)
	v.met.inferences.Inc()
	if err := checkOutput(out[0], wantedOutput{TensorInfo: want}); err != nil {
		return nil, err
	}
	logits := make([]float32, len(out[0].Data)/4)
	for i := range logits {
		logits[i] = math.Float32frombits(binary.LittleEndian.Uint32(out[0].Data[4*i:]))
	}
	return logits, nil
}

// prepare makes the model's input of a picture whose header has passed.
func (v *version) prepare(data []byte, limits imaging.Limits, width, height int, mem *arena) (Tensor, error) {
	if err := mem.reserve(int64(width) * int64(height) * pixelBytes); err != nil {
		return Tensor{}, err
	}
	img, err := imaging.Decode(data, limits)
	if err != nil {
		return Tensor{}, err
	}
	shape := v.info.Recipe.Shape()
	if shape.H == 0 {
		shape.H, shape.W = img.H, img.W
	}
	t := Tensor{Name: v.info.Inputs[0].Name, Type: FP32, Shape: []int64{1, int64(shape.C), int64(shape.H), int64(shape.W)}}
	if err := fits(&t, v.info.Inputs[0]); err != nil {
		return Tensor{}, err
	}
	n, _ := elements(t.Shape)
	if t.Data, err = mem.alloc(4 * int(n)); err != nil {
		return Tensor{}, err
	}
	return t, v.info.Recipe.Apply(img, unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(t.Data))), n))
}

// rank returns the top classes.
func rank(logits []float32, labels []string, top int) ([]prediction, error) {
	if labels != nil && len(labels) != len(logits) {
		return nil, fmt.Errorf("the model answered %d values for %d labels", len(logits), len(labels))
	}
	peak := float32(math.Inf(-1))
	for i, x := range logits {
		if x != x || math.IsInf(float64(x), 1) {
			return nil, fmt.Errorf("the model's output %d is %v", i, x)
		}
		peak = max(peak, x)
	}
	sum := 0.
	for _, x := range logits {
		sum += math.Exp(float64(x) - float64(peak))
	}
	best := make([]prediction, 0, min(top, len(logits)))
	for _, i := range largest(logits, top) {
		p := prediction{Index: i, Probability: math.Exp(float64(logits[i])-float64(peak)) / sum}
		if labels != nil {
			p.Label = labels[i]
		}
		best = append(best, p)
	}
	return best, nil
}

// topOf reads ?k=.
func topOf(query string) (int, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return 0, badRequest("the query string is malformed")
	}
	switch ks := q["k"]; {
	case len(ks) == 0:
		return defaultTop, nil
	default:
		k, err := strconv.Atoi(ks[0])
		if len(ks) > 1 || err != nil || k < 1 || k > maxTop {
			return 0, badRequest("k is not one number from 1 to %d", maxTop)
		}
		return k, nil
	}
}

// readImage reads the encoded picture in any of the three forms.
func (s *Server) readImage(w http.ResponseWriter, r *http.Request, mem *arena) ([]byte, error) {
	const wrapping = 64 << 10
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = "" // the bytes say what they are
	}
	limit := s.opt.MaxImage
	switch kind {
	case "multipart/form-data":
		limit += wrapping
	case "application/json":
		limit = limit/3*4 + wrapping
	}
	b, err := s.openBody(w, r, limit)
	if err != nil {
		return nil, err
	}
	defer b.clear()
	switch kind {
	case "multipart/form-data":
		data, err := readPart(multipart.NewReader(b, params["boundary"]), mem)
		if err == nil {
			_, err = io.Copy(io.Discard, b) // what follows the last boundary
		}
		return data, err
	case "application/json":
		text, err := mem.readAll(b, b.size)
		if err != nil {
			return nil, err
		}
		return imageOfJSON(text, mem)
	}
	return mem.readAll(b, b.size)
}

// readPart finds the one part of a form that is a file, or is called image.
func readPart(form *multipart.Reader, mem *arena) (data []byte, err error) {
	for n := 0; ; n++ {
		part, err := form.NextRawPart()
		switch {
		case err == io.EOF && data != nil: //nolint:errorlint // a form that is cut wraps io.EOF
			return data, nil
		case err == io.EOF: //nolint:errorlint // likewise
			return nil, badRequest("the form has no file and no field image")
		case n >= maxParts:
			return nil, badRequest("the form has more than %d parts", maxParts)
		case err != nil:
			if _, ok := errors.AsType[*httpError](err); ok || isNetwork(err) {
				return nil, err
			}
			return nil, badRequest("the form is malformed")
		}
		if part.FileName() == "" && part.FormName() != "image" {
			continue
		}
		if data != nil {
			return nil, badRequest("the form has more than one picture")
		}
		if data, err = mem.readAll(part, -1); err != nil {
			return nil, err
		}
	}
}

// imageOfJSON decodes {"image": base64}. A data URL is base64 behind a prefix. Nothing is ever fetched.
func imageOfJSON(text []byte, mem *arena) ([]byte, error) {
	r := jsonReader{b: text}
	keys := once{known: []string{"image"}}
	var encoded string
	err := r.object("the request", func(key string) (err error) {
		if err := keys.see(&r, key); err != nil {
			return err
		}
		if key != "image" {
			return r.skip()
		}
		encoded, err = r.string("image")
		return err
	})
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(encoded, "data:") {
		_, encoded, _ = strings.Cut(encoded, ";base64,")
	}
	if encoded == "" {
		return nil, badRequest("image is missing: a string of base64")
	}
	buf, err := mem.alloc(base64.StdEncoding.DecodedLen(len(encoded)))
	if err != nil {
		return nil, err
	}
	n, err := base64.StdEncoding.Strict().Decode(buf, []byte(encoded))
	if err != nil || strings.ContainsAny(encoded, "\r\n") {
		return nil, badRequest("image is not base64; a picture's address is not followed")
	}
	return buf[:n], nil
}
