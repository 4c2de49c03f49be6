package serve

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
)

var (
	errShared    = failf(http.StatusNotImplemented, "shared memory is not supported: data comes in the request and goes in the response")
	errSequences = failf(http.StatusNotImplemented, "sequences are not supported")
)

// isSequence reports a parameter whose value, unless it is empty, asks for what this server does not do.
func isSequence(key string) bool {
	return key == "sequence_id" || key == "sequence_start" || key == "sequence_end"
}

// isReserved reports a parameter that the protocol keeps for itself. One of its own is sent by clients that ask how a
// stream of answers ends, whether there is a stream or not; each request here has one answer, which is its last.
func isReserved(key string) bool {
	return key == "headers" || strings.HasPrefix(key, "triton_") && key != "triton_enable_empty_final_response"
}

// microseconds is a timeout. What is longer than the server's own is as good as none.
func microseconds(n uint64) time.Duration {
	if n > uint64(math.MaxInt64/time.Microsecond) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// room reports an input too many, before it is read.
func (r *requestParts) room() error {
	if len(r.in) == len(r.info.Inputs) {
		return badRequest("more inputs than the model's %d: %s", len(r.info.Inputs), tensorNames(r.info.Inputs))
	}
	return nil
}

// want notes an output that is asked for.
func (r *requestParts) want(o askedOutput) error {
	if slices.ContainsFunc(r.asked, func(a askedOutput) bool { return a.name == o.name }) {
		return badRequest("the output %q is asked for twice", short(o.name))
	}
	at := slices.IndexFunc(r.info.Outputs, func(t TensorInfo) bool { return t.Name == o.name })
	switch {
	case at < 0:
		return badRequest("the model has no output %q, it has %s", short(o.name), tensorNames(r.info.Outputs))
	case o.top < 0 || o.top > maxClasses:
		return badRequest("output %q: classification is no number from 0 to %d", o.name, maxClasses)
	case o.top > 0 && !hasClasses(r.info.Outputs[at].Type):
		return badRequest("output %q: %s has no classes, ask for the tensor", o.name, r.info.Outputs[at].Type)
	}
	r.asked = append(r.asked, o)
	return nil
}

// bind matches the inputs that were read with those that the model has, and checks what does not need their bytes.
func (r *requestParts) bind() error {
	var missing []TensorInfo
	r.req.inputs = make([]Tensor, len(r.info.Inputs))
	for i, want := range r.info.Inputs {
		at := slices.IndexFunc(r.in, func(in wireInput) bool { return in.Name == want.Name })
		if at < 0 {
			missing = append(missing, want)
			continue
		}
		in := &r.in[at]
		if r.info.encodedPicture(&in.Tensor) {
			if err := fitsPictures(&in.Tensor); err != nil {
				return err
			}
		} else if err := fits(&in.Tensor, want); err != nil {
			return err
		}
		n, _ := elements(in.Shape)
		if want := n * int64(in.Type.Size()); in.size >= 0 && in.Type != Bytes && in.size != want {
			return badRequest("input %q: binary_data_size is %d, its shape and datatype take %d", short(in.Name), in.size, want)
		}
		r.req.inputs[i] = in.Tensor
	}
	for i, in := range r.in {
		if !slices.ContainsFunc(r.info.Inputs, func(t TensorInfo) bool { return t.Name == in.Name }) {
			return badRequest("the model has no input %q, it has %s", short(in.Name), tensorNames(r.info.Inputs))
		}
		if slices.ContainsFunc(r.in[:i], func(t wireInput) bool { return t.Name == in.Name }) {
			return badRequest("the input %q appears twice", short(in.Name))
		}
	}
	if len(missing) > 0 {
		return badRequest("missing inputs: %s", tensorNames(missing))
	}
	r.req.outputs = r.wanted()
	for _, o := range r.req.outputs {
		if (o.Type == FP16 || o.Type == BF16) && !o.binary {
			return badRequest("output %q is %s, which has no JSON form: ask for it with binary_data", o.Name, o.Type)
		}
	}
	return nil
}

// wanted lists the outputs asked for, all of them where none was named.
func (r *requestParts) wanted() []wantedOutput {
	var wanted []wantedOutput
	for _, o := range r.asked {
		at := slices.IndexFunc(r.info.Outputs, func(t TensorInfo) bool { return t.Name == o.name })
		wanted = append(wanted, wantedOutput{r.info.Outputs[at], o.binary == 1 || o.binary < 0 && r.req.binaryAll, o.top})
	}
	if wanted == nil {
		for _, o := range r.info.Outputs {
			wanted = append(wanted, wantedOutput{o, r.req.binaryAll, 0})
		}
	}
	return wanted
}

// checkData checks what needs the inputs' bytes.
func (r *requestParts) checkData() (err error) {
	for i, in := range r.req.inputs {
		if n, _ := elements(in.Shape); in.Type == Bytes {
			if err := checkStrings(in.Data, n); err != nil {
				return badRequest("input %q: %v", short(in.Name), err)
			}
		} else if in.Type == Bool && !isBools(in.Data) {
			return badRequest("input %q: a BOOL is neither 0 nor 1", short(in.Name))
		}
		if r.info.encodedPicture(&r.req.inputs[i]) {
			if r.req.pictures, err = split(in.Data, r.in[0].base64, r.mem); err != nil {
				return err
			}
		}
	}
	return nil
}

// isBools reports that every byte is 0 or 1: other values are undefined in the languages that kernels are written in.
func isBools(data []byte) bool {
	return !slices.ContainsFunc(data, func(c byte) bool { return c > 1 })
}

// fits checks datatype and shape of an input. A dimension of 0 is refused: runtimes fail inside on it.
func fits(t *Tensor, want TensorInfo) error {
	name := short(t.Name)
	if t.Type != want.Type {
		return badRequest("input %q: datatype is %s, the model takes %s", name, t.Type, want.Type)
	}
	if want.Shape != nil && len(t.Shape) != len(want.Shape) {
		return badRequest("input %q: shape has %d dimensions, the model takes %v", name, len(t.Shape), want.Shape)
	}
	for i, d := range t.Shape {
		switch {
		case d < 1:
			return badRequest("input %q: a dimension of shape is %d", name, d)
		case want.Shape != nil && want.Shape[i] >= 0 && want.Shape[i] != d:
			return badRequest("input %q: shape is %v, the model takes %v", name, t.Shape, want.Shape)
		}
	}
	if n, ok := elements(t.Shape); !ok || n > math.MaxInt32 {
		return badRequest("input %q: shape %v has too many elements", name, t.Shape)
	}
	return nil
}
