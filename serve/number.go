package serve

import (
	"encoding/binary"
	"math"
	"strconv"
)

// maxNumber bounds the characters of one number. float64 needs at most 767 to be told from its neighbours.
const maxNumber = 1024

// number is a JSON number as read: mant × 10^exp, where whole says that it was written without fraction and exponent,
// and long that mant lacks digits and the text has to be read again.
type number struct {
	mant        uint64
	exp         int
	neg         bool
	whole, long bool
	text        []byte
}

var powersOfTen = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// number reads the number that starts here. It checks JSON's grammar.
func (r *jsonReader) number() (n number, err error) {
	b, start, i := r.b, r.i, r.i
	n.whole = true
	if i < len(b) && b[i] == '-' {
		n.neg = true
		i++
	}
	first := i
	i = n.digits(b, i, 0)
	if i == first {
		r.i = i
		return n, r.unexpected("a number")
	}
	if b[first] == '0' && i > first+1 {
		return n, r.errorf("a number starts with a needless 0")
	}
	if i < len(b) && b[i] == '.' {
		n.whole = false
		dot := i + 1
		if i = n.digits(b, dot, -1); i == dot {
			r.i = i
			return n, r.unexpected("a digit after the point")
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		n.whole = false
		if i, err = r.exponent(&n, i+1); err != nil {
			return n, err
		}
	}
	if i-start > maxNumber {
		return n, r.errorf("a number of more than %d characters", maxNumber)
	}
	if i < len(b) && isWord(b[i]) {
		r.i = i
		return n, r.unexpected("the end of a number")
	}
	n.text, r.i = b[start:i], i
	return n, nil
}

// digits takes digits into mant. scale is added to exp for every digit taken: 0 before the point, -1 after it.
func (n *number) digits(b []byte, i, scale int) int {
	const full = 1e18 // mant below it takes another digit
	for ; i < len(b); i++ {
		d := b[i] - '0'
		if d > 9 {
			break
		}
		if n.mant >= full {
			n.long = true
			continue
		}
		n.mant = n.mant*10 + uint64(d)
		n.exp += scale
	}
	return i
}

func (r *jsonReader) exponent(n *number, i int) (int, error) {
	neg := false
	if i < len(r.b) && (r.b[i] == '-' || r.b[i] == '+') {
		neg = r.b[i] == '-'
		i++
	}
	e, first := 0, i
	for ; i < len(r.b) && r.b[i]-'0' <= 9; i++ {
		if e < 1e6 {
			e = e*10 + int(r.b[i]-'0')
		}
	}
	if i == first {
		r.i = i
		return i, r.unexpected("a digit of an exponent")
	}
	if neg {
		e = -e
	}
	n.exp += e
	return i, nil
}

// float32 is the float32 nearest to n, and false when that is infinite.
//
// One multiplication or division of mant by an exact power of ten is within 2 ulp of the number in float64. Rounding
// that to float32 is right unless it lies that close to the middle of two float32, which the low 29 bits tell.
func (n *number) float32() (float32, bool) {
	if !n.long && -22 <= n.exp && n.exp <= 22 {
		f := scaled(n.mant, n.exp)
		const middle, margin = 1 << 28, 4
		low := int64(math.Float64bits(f) & (1<<29 - 1))
		if f == 0 || f >= 0x1p-126 && f < math.MaxFloat32 && (low < middle-margin || low > middle+margin) {
			if n.neg {
				f = -f
			}
			return float32(f), true
		}
	}
	f, err := strconv.ParseFloat(string(n.text), 32)
	return float32(f), err == nil
}

// float64 is the float64 nearest to n, and false when that is infinite.
func (n *number) float64() (float64, bool) {
	if !n.long && n.mant < 1<<53 && -22 <= n.exp && n.exp <= 22 {
		f := scaled(n.mant, n.exp) // exact operands, one rounding
		if n.neg {
			f = -f
		}
		return f, true
	}
	f, err := strconv.ParseFloat(string(n.text), 64)
	return f, err == nil
}

func scaled(mant uint64, exp int) float64 {
	if exp < 0 {
		return float64(mant) / powersOfTen[-exp]
	}
	return float64(mant) * powersOfTen[exp]
}

// float reads a floating-point element, NaN and infinities included, as float64 bits or, for FP32, float32 bits.
func (r *jsonReader) float(t Datatype, dst []byte) error {
	if f, ok := r.notFinite(); ok {
		if t == FP32 {
			binary.LittleEndian.PutUint32(dst, math.Float32bits(float32(f)))
		} else {
			binary.LittleEndian.PutUint64(dst, math.Float64bits(f))
		}
		return nil
	}
	n, err := r.number()
	if err != nil {
		return err
	}
	if t == FP32 {
		if f, ok := n.float32(); ok {
			binary.LittleEndian.PutUint32(dst, math.Float32bits(f))
			return nil
		}
	} else if f, ok := n.float64(); ok {
		binary.LittleEndian.PutUint64(dst, math.Float64bits(f))
		return nil
	}
	return r.errorf("%s is out of the range of %s", short(string(n.text)), t)
}

// notFinite consumes one of the tokens that JSON lacks.
func (r *jsonReader) notFinite() (float64, bool) {
	switch rest := r.b[r.i:]; {
	case len(rest) == 0 || rest[0] != 'N' && rest[0] != 'I' && (rest[0] != '-' || len(rest) < 2 || rest[1] != 'I'):
		return 0, false // nearly always
	case r.word("NaN"):
		return math.NaN(), true
	case r.word("Infinity"):
		return math.Inf(1), true
	}
	return math.Inf(-1), r.word("-Infinity")
}

// integer reads an element of an integer datatype.
func (r *jsonReader) integer(t Datatype, dst []byte) error {
	n, err := r.number()
	if err != nil {
		return err
	}
	if !n.whole {
		return r.errorf("%s is not an integer, as %s asks for", short(string(n.text)), t)
	}
	bits := uint(8 * t.Size())
	var (
		v  uint64
		ok bool
	)
	if t >= Int8 {
		var s int64
		s, ok = n.int64()
		ok = ok && s >= -1<<(bits-1) && s <= 1<<(bits-1)-1
		v = uint64(s)
	} else {
		v, ok = n.uint64()
		ok = ok && v <= math.MaxUint64>>(64-bits)
	}
	if !ok {
		return r.errorf("%s is out of the range of %s", short(string(n.text)), t)
	}
	switch bits {
	case 8:
		dst[0] = byte(v)
	case 16:
		binary.LittleEndian.PutUint16(dst, uint16(v))
	case 32:
		binary.LittleEndian.PutUint32(dst, uint32(v))
	default:
		binary.LittleEndian.PutUint64(dst, v)
	}
	return nil
}

func (n *number) uint64() (uint64, bool) {
	switch {
	case n.neg:
		return 0, n.mant == 0 && !n.long
	case n.long:
		v, err := strconv.ParseUint(string(n.text), 10, 64)
		return v, err == nil
	}
	return n.mant, true
}

func (n *number) int64() (int64, bool) {
	switch {
	case n.long:
		v, err := strconv.ParseInt(string(n.text), 10, 64)
		return v, err == nil
	case n.neg:
		return -int64(n.mant), n.mant <= 1<<63
	}
	return int64(n.mant), n.mant <= math.MaxInt64
}
