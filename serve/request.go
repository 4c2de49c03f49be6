package serve

import (
	"slices"
	"strings"
	"time"

	"spos/internal/imaging"
)

const (
	maxID         = 256
	maxRank       = 64
	maxParameters = 64
)

// inferRequest is an inference request after every check that needs no computing.
type inferRequest struct {
	id        string
	timeout   time.Duration // 0: none asked for
	binaryAll bool
	inputs    []Tensor // in the model's order
	outputs   []wantedOutput
	pictures  [][]byte          // what the BYTES in the place of the only input hold; nil: it is a tensor
	probed    []imaging.Encoded // the same, after their headers were read
}

type wantedOutput struct {
	TensorInfo
	binary bool
	top    int // how many classes instead of the tensor; 0: the tensor
}

// askedOutput is an output that a request names, as it names it.
type askedOutput struct {
	name   string
	binary int8 // binary_data: 1, 0, or -1 where it was not said
	top    int  // classification
}

// wireInput is an input as the JSON has it. Absent values are -1.
type wireInput struct {
	Tensor
	size   int64 // binary_data_size
	dataAt int   // where data starts, until it is read
	have   bool  // Data is there
	base64 bool  // its pictures are, as they are in JSON
}

// requestParts are what a request for one model says, in whatever form it came, until bind has checked it.
type requestParts struct {
	info  *ModelInfo
	mem   *arena
	req   inferRequest
	in    []wireInput
	asked []askedOutput
}

// requestReader reads the JSON of a request.
type requestReader struct {
	jsonReader
	requestParts
}

// once reports the second sight of a key, and of a key that differs from a known one only in case: some readers would
// take it for the same, and then two programs disagree about what a request says.
type once struct {
	known []string
	seen  uint64
}

func (o *once) see(r *jsonReader, key string) error {
	for i, k := range o.known {
		switch {
		case k == key && o.seen&(1<<i) != 0:
			return r.errorf("the key %q appears twice", key)
		case k == key:
			o.seen |= 1 << i
			return nil
		case len(k) == len(key) && strings.EqualFold(k, key):
			return r.errorf("unknown key %q: write %q", key, k)
		}
	}
	return nil
}

// read reads the whole document. Tensors that follow in binary are left without Data.
func (r *requestReader) read() error {
	keys := once{known: []string{"id", "parameters", "inputs", "outputs"}}
	err := r.object("the request", func(key string) (err error) {
		if err := keys.see(&r.jsonReader, key); err != nil {
			return err
		}
		switch key {
		case "id":
			if r.req.id, err = r.string("id"); err == nil && len(r.req.id) > maxID {
				err = r.errorf("id has more than %d bytes", maxID)
			}
		case "parameters":
			err = r.parameters(r.requestParameter)
		case "inputs":
			err = r.array("inputs", r.input)
		case "outputs":
			err = r.array("outputs", r.output)
		default:
			err = r.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	return r.end()
}

// parameters reads a flat map of strings, numbers and booleans. take consumes the value.
func (r *requestReader) parameters(take func(key string) error) error {
	var seen []string
	return r.object("parameters", func(key string) error {
		if slices.Contains(seen, key) {
			return r.errorf("the parameter %q appears twice", short(key))
		}
		if seen = append(seen, key); len(seen) > maxParameters {
			return r.errorf("more than %d parameters", maxParameters)
		}
		if c := r.peek(); c == '{' || c == '[' || c == 'n' {
			return r.errorf("the parameter %q is neither string, number nor boolean", short(key))
		}
		return take(key)
	})
}

func (r *requestReader) requestParameter(key string) (err error) {
	switch {
	case key == "binary_data_output":
		r.req.binaryAll, err = r.bool(key)
		return err
	case key == "timeout":
		r.req.timeout, err = r.microseconds()
		return err
	case key == "priority": // there is one level
		_, err = r.size(key)
		return err
	case isSequence(key):
		return r.sequence(key)
	case isReserved(key):
		return r.errorf("the parameter %q is reserved", short(key))
	}
	return r.skip() // the caller's own
}

// sequence lets the values pass that say that there is none.
func (r *requestReader) sequence(key string) error {
	var some bool
	var err error
	switch r.peek() {
	case '"':
		var id string
		id, err = r.text()
		some = id != ""
	case 't', 'f':
		some, err = r.bool(key)
	default:
		var n int64
		n, err = r.size(key)
		some = n != 0
	}
	if err == nil && some {
		return errSequences
	}
	return err
}

// microseconds reads a timeout.
func (r *requestReader) microseconds() (time.Duration, error) {
	if c := r.peek(); c != '-' && (c < '0' || c > '9') {
		return 0, r.unexpected("timeout, a number of microseconds,")
	}
	n, err := r.number()
	if err != nil {
		return 0, err
	}
	if !n.whole || n.neg && n.mant > 0 {
		return 0, r.errorf("timeout is not a whole, non-negative number of microseconds")
	}
	if v, ok := n.uint64(); ok {
		return microseconds(v), nil
	}
	return 0, nil
}

// size reads a non-negative whole number, such as an extent or a byte count.
func (r *requestReader) size(what string) (int64, error) {
	if c := r.peek(); c != '-' && (c < '0' || c > '9') {
		return 0, r.unexpected(what + ", a number,")
	}
	n, err := r.number()
	if err != nil {
		return 0, err
	}
	v, ok := n.int64()
	if !ok || !n.whole || v < 0 {
		return 0, r.errorf("%s: %s is not a whole number in range", what, short(string(n.text)))
	}
	return v, nil
}

func (r *requestReader) input() error {
	if err := r.room(); err != nil {
		return err
	}
	in := wireInput{size: -1, dataAt: -1}
	keys := once{known: []string{"name", "shape", "datatype", "parameters", "data"}}
	err := r.object("an input", func(key string) (err error) {
		if err := keys.see(&r.jsonReader, key); err != nil {
			return err
		}
		switch key {
		case "name":
			in.Name, err = r.string("name")
		case "shape":
			in.Shape, err = r.shape()
		case "datatype":
			in.Type, err = r.datatype()
		case "parameters":
			err = r.parameters(func(key string) error { return r.inputParameter(&in, key) })
		case "data":
			err = r.inputData(&in)
		default:
			err = r.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	switch {
	case in.Name == "":
		return r.errorf("an input without name")
	case in.Shape == nil || in.Type == 0:
		return r.errorf("input %q needs shape and datatype", short(in.Name))
	case in.size >= 0 && (in.have || in.dataAt >= 0):
		return r.errorf("input %q has data and binary_data_size: use one", short(in.Name))
	case in.size < 0 && !in.have && in.dataAt < 0:
		return r.errorf("input %q has neither data nor binary_data_size", short(in.Name))
	}
	if in.dataAt >= 0 { // it came before shape or datatype
		after := r.i
		r.i = in.dataAt
		if in.Data, err = r.tensor(&in); err != nil {
			return err
		}
		r.i = after
	}
	in.base64 = in.base64 || in.size < 0
	r.in = append(r.in, in)
	return nil
}

// inputData reads data at once when it is known what it means, and else notes where it is.
func (r *requestReader) inputData(in *wireInput) (err error) {
	if in.Type == 0 || in.Shape == nil {
		r.peek()
		in.dataAt = r.i
		return r.skip()
	}
	in.Data, err = r.tensor(in)
	in.have = true
	return err
}

func (r *requestReader) inputParameter(in *wireInput, key string) (err error) {
	switch {
	case key == "binary_data_size":
		in.size, err = r.size(key)
		return err
	case key == "content_type" && r.peek() == '"':
		kind, err := r.text()
		in.base64 = kind == "base64"
		return err
	case strings.HasPrefix(key, "shared_memory_"):
		return errShared
	}
	return r.skip()
}

func (r *requestReader) shape() ([]int64, error) {
	shape := []int64{}
	err := r.array("shape", func() error {
		d, err := r.size("an extent of shape")
		if err != nil {
			return err
		}
		if shape = append(shape, d); len(shape) > maxRank {
			return r.errorf("a shape of more than %d dimensions", maxRank)
		}
		return nil
	})
	return shape, err
}

func (r *requestReader) datatype() (Datatype, error) {
	name, err := r.string("datatype")
	if err != nil {
		return 0, err
	}
	t, ok := ParseDatatype(name)
	if !ok {
		return 0, r.errorf("unknown datatype %q", short(name))
	}
	return t, nil
}

func (r *requestReader) output() error {
	o := askedOutput{binary: -1}
	keys := once{known: []string{"name", "parameters"}}
	err := r.object("an output", func(key string) (err error) {
		if err := keys.see(&r.jsonReader, key); err != nil {
			return err
		}
		switch key {
		case "name":
			o.name, err = r.string("name")
		case "parameters":
			err = r.parameters(func(key string) error { return r.outputParameter(&o, key) })
		default:
			err = r.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	return r.want(o)
}

func (r *requestReader) outputParameter(o *askedOutput, key string) error {
	switch {
	case key == "binary_data":
		b, err := r.bool(key)
		o.binary = 0
		if b {
			o.binary = 1
		}
		return err
	case key == "classification":
		n, err := r.size(key)
		o.top = int(min(n, maxClasses+1))
		return err
	case strings.HasPrefix(key, "shared_memory_"):
		return errShared
	}
	return r.skip()
}

func tensorNames(ts []TensorInfo) string {
	names := make([]string, len(ts))
	for i := range ts {
		names[i] = ts[i].Name
	}
	return strings.Join(names, ", ")
}

// short is a client's text for an error message or a log line.
func short(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
