package serve

import "encoding/binary"

// tensor reads the data of an input: scalars in row-major order, nested in any way. Its memory is only taken when the
// text that is left can hold that many scalars.
func (r *requestReader) tensor(in *wireInput) ([]byte, error) {
	want, ok := elements(in.Shape)
	left := len(r.b) - r.i
	switch {
	case in.Type == FP16 || in.Type == BF16:
		return nil, r.errorf("input %q: %s has no JSON form, send it as binary data", short(in.Name), in.Type)
	case !ok || want > int64(left): // every scalar takes a digit and a comma or bracket
		return nil, r.errorf("input %q: fewer values than its shape asks for", short(in.Name))
	}
	size := int(want) * in.Type.Size()
	if in.Type == Bytes {
		size = 4*int(want) + left
	}
	buf, err := r.mem.alloc(size)
	if err != nil {
		return nil, err
	}
	if in.Type == Bytes {
		buf = buf[:0]
	}
	n, err := r.scalars(in.Type, want, &buf)
	if err != nil {
		return nil, err
	}
	if n != want {
		return nil, r.errorf("input %q: %d values, its shape asks for %d", short(in.Name), n, want)
	}
	return buf, nil
}

// scalars reads nested arrays into buf and returns how many scalars there were.
func (r *requestReader) scalars(t Datatype, want int64, buf *[]byte) (n int64, err error) {
	if r.peek() != '[' {
		return 0, r.unexpected("data, an array,")
	}
	outer := r.depth
	for {
		if r.peek() == '[' {
			if err := r.enter(); err != nil {
				return n, err
			}
			if r.peek() != ']' {
				continue
			}
		} else {
			if n == want {
				return n, r.errorf("more values than the shape asks for, %d", want)
			}
			if err := r.scalar(t, n, buf); err != nil {
				return n, err
			}
			n++
		}
		for r.peek() == ']' {
			r.i++
			if r.depth--; r.depth == outer {
				return n, nil
			}
		}
		if r.peek() != ',' {
			return n, r.unexpected("a comma or ]")
		}
		r.i++
	}
}

func (r *requestReader) scalar(t Datatype, n int64, buf *[]byte) error {
	switch t {
	case FP32:
		return r.float(t, (*buf)[4*n:4*n+4])
	case FP64:
		return r.float(t, (*buf)[8*n:8*n+8])
	case Bool:
		b, err := r.bool("an element")
		(*buf)[n] = 0
		if b {
			(*buf)[n] = 1
		}
		return err
	case Bytes:
		return r.element(buf)
	}
	size := int64(t.Size())
	return r.integer(t, (*buf)[size*n:size*(n+1)])
}

// element appends a string of a Bytes tensor with its length.
func (r *requestReader) element(buf *[]byte) error {
	if r.peek() != '"' {
		return r.unexpected("an element, a string,")
	}
	raw, escaped, err := r.quoted()
	if err != nil {
		return err
	}
	at := len(*buf)
	*buf = append(*buf, 0, 0, 0, 0)
	if !escaped {
		*buf = append(*buf, raw...)
	} else if *buf, err = r.unescape(*buf, raw); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32((*buf)[at:], uint32(len(*buf)-at-4))
	return nil
}
