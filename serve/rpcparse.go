package serve

import (
	"errors"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

var errWire = badRequest("the message is not a ModelInferRequest: its encoding is broken")

// The numbers of ModelInferRequest's fields.
const (
	fieldModel, fieldVersion, fieldID, fieldParameters = 1, 2, 3, 4
	fieldInputs, fieldOutputs, fieldRaw                = 5, 6, 7
)

// rpcReader reads a ModelInferRequest as it comes, without building it: a message of a few bytes an input would
// become a hundred times its size. Raw tensors go straight into aligned memory of their own. A field that may be
// there once may be there once.
type rpcReader struct {
	requestParts
	src io.Reader
	// find says what a model takes, as soon as its name and version are known: before the tensors, in the order that
	// encoders write.
	find           func(model, version string) (*ModelInfo, error)
	model, version string
	seen           uint
	typed          int      // inputs that carry contents
	params         []string // keys of the request's own
	raw            [][]byte
	scratch        []byte
}

// read reads the whole message and checks it.
func (r *rpcReader) read() error {
	r.req.binaryAll = true // of answers
	for {
		tag, err := r.varint()
		if errors.Is(err, io.EOF) {
			return r.complete()
		}
		if err != nil {
			return err
		}
		num, typ := protowire.DecodeTag(tag)
		if num < protowire.MinValidNumber {
			return errWire
		}
		if err := r.field(num, typ); err != nil {
			return err
		}
	}
}

func (r *rpcReader) field(num protowire.Number, typ protowire.Type) error {
	if num > fieldRaw {
		return r.skip(typ)
	}
	if typ != protowire.BytesType {
		return errWire
	}
	size, err := r.varint()
	if err != nil {
		return notEOF(err)
	}
	if size > math.MaxInt32 {
		return errWire
	}
	if num >= fieldParameters {
		if err := r.resolve(); err != nil {
			return err
		}
	}
	if num == fieldRaw {
		return r.rawInput(int(size))
	}
	b, err := r.bytes(int(size))
	if err != nil {
		return err
	}
	switch num {
	case fieldModel:
		return r.text("model_name", num, b, &r.model)
	case fieldVersion:
		return r.text("model_version", num, b, &r.version)
	case fieldID:
		if err := r.text("id", num, b, &r.req.id); err != nil || len(b) <= maxID {
			return err
		}
		return badRequest("id has more than %d bytes", maxID)
	case fieldParameters:
		return r.parameter(b)
	case fieldInputs:
		return r.input(b)
	default:
		return r.output(b)
	}
}

// resolve finds the model once.
func (r *rpcReader) resolve() (err error) {
	if r.info == nil {
		r.info, err = r.find(r.model, r.version)
	}
	return err
}

func (r *rpcReader) text(name string, num protowire.Number, b []byte, to *string) error {
	switch {
	case r.seen&(1<<num) != 0:
		return badRequest("%s appears twice", name)
	case r.info != nil && num < fieldID:
		return badRequest("%s comes after what it is to explain", name)
	case !utf8.Valid(b):
		return badRequest("%s is not UTF-8", name)
	}
	r.seen |= 1 << num
	*to = string(b)
	return nil
}

// rawInput reads the bytes of a tensor.
func (r *rpcReader) rawInput(size int) (err error) {
	if len(r.raw) == len(r.info.Inputs) {
		return badRequest("raw_input_contents has more entries than the model has inputs, %d", len(r.info.Inputs))
	}
	data := []byte{}
	if size > 0 {
		data, err = r.mem.readFull(r.src, size)
	}
	r.raw = append(r.raw, data)
	return notEOF(err)
}

// complete checks what can only be said at the end.
func (r *rpcReader) complete() error {
	if err := r.resolve(); err != nil {
		return err
	}
	switch {
	case len(r.raw) > 0 && r.typed > 0:
		return badRequest("raw_input_contents is used, but an input has contents: use one of them for all inputs")
	case len(r.raw) > 0 && len(r.raw) != len(r.in):
		return badRequest("raw_input_contents has %d entries for %d inputs: give all of them or none", len(r.raw), len(r.in))
	}
	for i := range r.in {
		if len(r.raw) > 0 {
			r.in[i].Data = r.raw[i]
		} else if !r.in[i].have {
			return badRequest("input %q has no contents, and there is no raw_input_contents", short(r.in[i].Name))
		}
	}
	if err := r.bind(); err != nil {
		return err
	}
	for i := range r.req.inputs {
		in := &r.req.inputs[i]
		n, _ := elements(in.Shape)
		if want := n * int64(in.Type.Size()); in.Type != Bytes && int64(len(in.Data)) != want {
			return badRequest("input %q: raw_input_contents has %d bytes, its shape and datatype take %d", short(in.Name), len(in.Data), want)
		}
	}
	return r.checkData()
}

// parameter takes a parameter of the request.
func (r *rpcReader) parameter(b []byte) error {
	p, err := r.one(b, &r.params)
	if err != nil {
		return err
	}
	n, whole := p.whole()
	switch {
	case p.key == "timeout" && !whole:
		return badRequest("timeout is not a whole, non-negative number of microseconds")
	case p.key == "timeout":
		r.req.timeout = microseconds(n)
	case p.key == "priority" && !whole: // there is one level
		return badRequest("priority is not a whole, non-negative number")
	case isSequence(p.key) && p.some:
		return errSequences
	case isReserved(p.key):
		return badRequest("the parameter %q is reserved", short(p.key))
	}
	return nil // the caller's own
}

// output takes an output that is asked for.
func (r *rpcReader) output(b []byte) error {
	o := askedOutput{binary: -1}
	var seen []string
	err := eachField(b, func(num protowire.Number, f wireField) (err error) {
		switch num {
		case 1:
			o.name, err = f.string()
		case 2:
			var p wireParam
			p, err = r.paramOf(f, &seen)
			switch {
			case err != nil:
			case strings.HasPrefix(p.key, "shared_memory_"):
				err = errShared
			case p.key == "classification":
				o.top = -1
				if n, ok := p.whole(); ok {
					o.top = int(min(n, maxClasses+1))
				}
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return r.want(o)
}

// bytes reads a field into memory that is good until the next.
func (r *rpcReader) bytes(size int) (_ []byte, err error) {
	if size > cap(r.scratch) {
		r.scratch, err = r.mem.readFull(r.src, size)
		return r.scratch, notEOF(err)
	}
	b := r.scratch[:size]
	_, err = io.ReadFull(r.src, b)
	return b, notEOF(err)
}

// varint reads a variable-length number. It returns io.EOF where the message ends before it.
func (r *rpcReader) varint() (n uint64, err error) {
	var b [1]byte
	for shift := 0; shift < 70; shift += 7 {
		if _, err := io.ReadFull(r.src, b[:]); err != nil {
			if shift > 0 {
				err = notEOF(err)
			}
			return 0, err
		}
		n |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			return n, nil
		}
	}
	return 0, errWire
}

// skip passes over a field of a later version of the protocol.
func (r *rpcReader) skip(typ protowire.Type) error {
	size := uint64(0)
	var err error
	switch typ {
	case protowire.VarintType:
		_, err = r.varint()
	case protowire.Fixed32Type:
		size = 4
	case protowire.Fixed64Type:
		size = 8
	case protowire.BytesType:
		size, err = r.varint()
	default:
		return errWire
	}
	if err == nil && size > 0 {
		if size > math.MaxInt32 {
			return errWire
		}
		_, err = io.CopyN(io.Discard, r.src, int64(size))
	}
	return notEOF(err)
}

// notEOF is for the inside of a message.
func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
