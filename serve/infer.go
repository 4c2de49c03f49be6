package serve

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// headerLength is where a body's JSON ends and its tensors begin.
const headerLength = "Inference-Header-Content-Length"

// infer answers POST …/infer.
func (s *Server) infer(w http.ResponseWriter, r *http.Request, c *call) (err error) {
	v, err := s.find(w, r, c)
	if err != nil {
		return err
	}
	t := &c.spans
	defer func() { v.stats.request(t, err) }()
	if err := v.gate.refuse(); err != nil {
		return err
	}
	mem := &arena{m: &s.memory}
	defer mem.free()
	req, err := s.readInfer(w, r, &v.info, mem)
	if err != nil {
		return err
	}
	out, err := s.compute(r.Context(), v, req, mem, t)
	if err != nil {
		return err
	}
	return s.writeInfer(w, v, req, out, mem, t)
}

// compute is what every protocol does with a checked request: it waits for its turn, no longer than the request has
// time, and runs the model. The outputs are good until mem is freed.
func (s *Server) compute(ctx context.Context, v *version, req *inferRequest, mem *arena, t *spans) ([]Tensor, error) {
	t.start = time.Now()
	if req.pictures != nil {
		if err := s.probe(v, req); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.deadline(v, req.timeout))
	defer cancel()
	return v.compute(ctx, req, mem, t)
}

// deadline is the time that a request to v has from its last byte to its answer; asked is 0 where it does not say.
func (s *Server) deadline(v *version, asked time.Duration) time.Duration {
	return min(cmp.Or(asked, v.info.Options.Timeout, s.opt.Timeout), s.opt.Timeout)
}

// compute waits for its turn and runs the model, with other requests where the model's options have it so.
func (v *version) compute(ctx context.Context, req *inferRequest, mem *arena, t *spans) (out []Tensor, err error) {
	items, most := v.batch(req.inputs), int64(v.info.Options.Batch)
	if most > 0 && items > most {
		return nil, badRequest("a batch of %d is more than the model's %d", items, most)
	}
	if err := v.gate.admit(); err != nil {
		return nil, err
	}
	defer v.gate.leave()
	if v.batcher != nil {
		out, err = v.batcher.compute(ctx, req, mem, t)
	} else {
		out, err = v.alone(ctx, req, mem, t)
	}
	if err != nil {
		return nil, err
	}
	t.items = items
	v.met.inferences.Add(float64(items))
	for i, want := range req.outputs {
		if err := checkOutput(out[i], want); err != nil {
			return nil, err
		}
		if want.top > 0 {
			if out[i], err = v.classes(out[i], want.top, mem); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// alone waits at the gate and runs the model on one request.
func (v *version) alone(ctx context.Context, req *inferRequest, mem *arena, t *spans) (out []Tensor, err error) {
	waited, err := v.gate.enter(ctx)
	t.queue += waited
	if err != nil {
		return nil, err
	}
	defer v.gate.exit()
	entered := time.Now()
	in, err := v.develop(ctx, req, mem)
	if err != nil {
		return nil, err
	}
	if out, err = v.outputs(in, req.outputs, mem); err != nil {
		return nil, err
	}
	t.input += time.Since(entered)
	if t.infer, err = v.run(ctx, in, out); err != nil {
		if ctx.Err() != nil {
			err = v.gate.lost(ctx, errRun)
		}
		return nil, err
	}
	v.stats.execution(v.batch(in), entered, t.input, t.infer)
	return out, nil
}

// outputs are places for what is wanted, with memory where the size can be told.
func (v *version) outputs(in []Tensor, wants []wantedOutput, mem *arena) ([]Tensor, error) {
	out := make([]Tensor, len(wants))
	for i, o := range wants {
		out[i] = Tensor{Name: o.Name, Type: o.Type}
		if size := outputSize(o.TensorInfo, in); size > 0 {
			buf, err := mem.alloc(size)
			if err != nil {
				return nil, err
			}
			out[i].Data = buf[:0]
		}
	}
	return out, nil
}

// run is one Run inside the gate, and its time.
func (v *version) run(ctx context.Context, in, out []Tensor) (time.Duration, error) {
	start := time.Now()
	err := v.gate.on.do(func() error {
		return v.gate.apart.do(func() error { return v.model.Run(ctx, in, out) })
	})
	took := time.Since(start)
	v.met.compute.Observe(took.Seconds())
	if err == nil {
		v.gate.pace.add(took)
	}
	return took, err
}

// outputSize guesses the bytes of an output, taking a variable first dimension for the batch; 0 is no guess.
func outputSize(o TensorInfo, in []Tensor) int {
	if len(o.Shape) == 0 || len(in) == 0 || len(in[0].Shape) == 0 {
		return 0
	}
	shape := slices.Clone(o.Shape)
	if shape[0] < 0 {
		shape[0] = in[0].Shape[0]
	}
	const most = 16 << 20
	n, ok := elements(shape)
	if !ok || n > most {
		return 0
	}
	return int(n) * o.Type.Size()
}

// batch is the number of items in a request: the first dimension of the first input, where the model leaves it open.
func (v *version) batch(in []Tensor) int64 {
	if len(in) == 0 || len(v.info.Inputs[0].Shape) == 0 || v.info.Inputs[0].Shape[0] >= 0 {
		return 1
	}
	return in[0].Shape[0]
}

// readInfer reads a request in any of its three forms: JSON, JSON followed by tensors, one bare tensor.
func (s *Server) readInfer(w http.ResponseWriter, r *http.Request, info *ModelInfo, mem *arena) (*inferRequest, error) {
	length, err := jsonLength(r.Header)
	if err != nil {
		return nil, err
	}
	b, err := s.openBody(w, r, s.opt.MaxBody)
	if err != nil {
		return nil, err
	}
	defer b.clear()
	switch {
	case length == 0:
		return readRaw(b, info, mem)
	case length > s.opt.MaxBody || b.size >= 0 && length > b.size:
		return nil, badRequest("%s is larger than the body", headerLength)
	}
	rd := &requestReader{requestParts: requestParts{info: info, mem: mem}}
	if length < 0 {
		rd.b, err = mem.readAll(b, b.size)
	} else {
		rd.b, err = mem.readFull(b, int(length))
	}
	if err != nil {
		return nil, err
	}
	if err := rd.read(); err != nil {
		return nil, err
	}
	if err := rd.bind(); err != nil {
		return nil, err
	}
	return &rd.req, rd.readTails(b, length >= 0)
}

// jsonLength is the value of the length header, or -1 without it.
func jsonLength(h http.Header) (int64, error) {
	vs := h.Values(headerLength)
	if len(vs) == 0 {
		return -1, nil
	}
	n, err := strconv.ParseUint(vs[0], 10, 62)
	if len(vs) > 1 || err != nil {
		return 0, badRequest("%s is not one non-negative number", headerLength)
	}
	return int64(n), nil
}

// readTails reads the tensors that follow the JSON, each straight into its own memory.
func (r *requestReader) readTails(b *body, binary bool) error {
	for _, in := range r.in {
		if in.size < 0 {
			continue
		}
		if !binary {
			return badRequest("input %q has binary_data_size, but the header %s is missing", short(in.Name), headerLength)
		}
		if in.size > math.MaxInt32 {
			return errLarge
		}
		data, err := r.mem.readFull(b, int(in.size))
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return badRequest("the body ends inside input %q", short(in.Name))
		}
		if err != nil {
			return err
		}
		at := slices.IndexFunc(r.req.inputs, func(t Tensor) bool { return t.Name == in.Name })
		r.req.inputs[at].Data = data
	}
	if err := r.checkData(); err != nil {
		return err
	}
	return b.finish()
}

// readRaw reads a body that is nothing but the bytes of the model's only input. Its shape follows from its size.
func readRaw(b *body, info *ModelInfo, mem *arena) (*inferRequest, error) {
	if len(info.Inputs) != 1 {
		return nil, badRequest("a raw request needs a model of one input, this one has %d", len(info.Inputs))
	}
	in := info.Inputs[0]
	data, err := mem.readAll(b, b.size)
	if err != nil {
		return nil, err
	}
	t := Tensor{Name: in.Name, Type: in.Type, Data: data}
	if in.Type == Bytes {
		if t.Data, err = mem.alloc(4 + len(data)); err != nil {
			return nil, err
		}
		t.Data = append(append(t.Data[:0], byte(len(data)), byte(len(data)>>8), byte(len(data)>>16), byte(len(data)>>24)), data...)
	}
	if t.Shape, err = rawShape(in, len(data)); err != nil {
		return nil, err
	}
	if t.Type == Bool && !isBools(data) {
		return nil, badRequest("input %q: a BOOL is neither 0 nor 1", in.Name)
	}
	req := &inferRequest{inputs: []Tensor{t}}
	for _, o := range info.Outputs {
		req.outputs = append(req.outputs, wantedOutput{o, true, 0})
	}
	return req, nil
}

// rawShape solves for the one variable dimension. Where there are more, the first is a batch of 1.
func rawShape(in TensorInfo, size int) ([]int64, error) {
	shape, open := slices.Clone(in.Shape), -1
	for i := len(shape) - 1; i >= 0; i-- {
		switch {
		case shape[i] >= 0:
		case open < 0:
			shape[i], open = 1, i
		case i == 0:
			shape[i] = 1
		default:
			return nil, badRequest("a raw request cannot tell the variable dimensions of %q %v apart", in.Name, in.Shape)
		}
	}
	n, ok := elements(shape)
	unit := n * int64(in.Type.Size())
	if in.Type == Bytes {
		if n != 1 {
			return nil, badRequest("a raw request holds one element, input %q takes %d", in.Name, n)
		}
		return shape, nil
	}
	switch {
	case in.Shape == nil || !ok || n == 0 || n > math.MaxInt32:
		return nil, badRequest("input %q has no shape that a raw request could have", in.Name)
	case size == 0 || open < 0 && int64(size) != unit || open >= 0 && int64(size)%unit != 0:
		return nil, badRequest("input %q: %d bytes do not fit its shape %v of %s", in.Name, size, in.Shape, in.Type)
	}
	if open >= 0 {
		shape[open] = int64(size) / unit
	}
	return shape, nil
}

// writeInfer writes the answer once all of it is known, so that a 200 is never broken off by an error.
func (s *Server) writeInfer(w http.ResponseWriter, v *version, req *inferRequest, out []Tensor, mem *arena, t *spans) error {
	begun := time.Now()
	head := s.heads.Get().(*[]byte)
	defer s.heads.Put(head)
	b, values := (*head)[:0], textSize(req, out)
	if values > aroundValues {
		long, err := mem.alloc(values + aroundValues)
		if err != nil {
			return err
		}
		b = long[:0]
	}
	b, err := appendResponse(b, v, req, out)
	if err != nil {
		return err
	}
	if values <= aroundValues {
		*head = b // keeps what has grown
	}
	total, binary := len(b), false
	for i := range out {
		if req.outputs[i].binary {
			total += len(out[i].Data)
			binary = true
		}
	}
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	if binary {
		h["Content-Type"] = []string{"application/octet-stream"}
		h[headerLength] = []string{strconv.Itoa(len(b))}
	}
	h["Content-Length"] = []string{strconv.Itoa(total)}
	t.end = time.Now()
	t.output = t.end.Sub(begun)
	w.WriteHeader(http.StatusOK)
	if err := writePaced(w, b, s.opt.WriteIdleTimeout); err != nil {
		return errGone
	}
	for i := range out {
		if req.outputs[i].binary {
			if err := writePaced(w, out[i].Data, s.opt.WriteIdleTimeout); err != nil {
				return errGone
			}
		}
	}
	return nil
}
