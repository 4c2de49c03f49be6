package cli

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"spos/serve"
	"spos/serve/client"
)

// outputTensor is a tensor that is shown.
type outputTensor serve.Tensor

// MarshalJSON writes the elements as a flat list. What JSON has no number for is null.
func (t outputTensor) MarshalJSON() ([]byte, error) {
	values, err := t.values(math.MaxInt)
	if err != nil {
		return nil, err
	}
	data := make([]json.RawMessage, len(values))
	for i, v := range values {
		switch v {
		case "NaN", "+Inf", "-Inf":
			v = "null"
		}
		data[i] = json.RawMessage(v)
	}
	return json.Marshal(struct {
		Name  string            `json:"name"`
		Type  serve.Datatype    `json:"datatype"`
		Shape []int64           `json:"shape"`
		Data  []json.RawMessage `json:"data"`
	}{t.Name, t.Type, t.Shape, data})
}

// brief is the first few elements.
func (t outputTensor) brief() string {
	const few = 8
	values, err := t.values(few + 1)
	if err != nil {
		return err.Error()
	}
	if len(values) > few {
		values[few] = "…"
	}
	return strings.Join(values, " ")
}

// values are the elements, or the first most of them, as JSON writes them.
func (t outputTensor) values(most int) ([]string, error) {
	var words []string
	if t.Type == serve.Bytes {
		all, err := client.Strings(t.Data)
		for _, s := range all {
			text, _ := json.Marshal(s)
			words = append(words, string(text))
		}
		return words[:min(len(words), most)], err
	}
	size := t.Type.Size()
	if size == 0 || len(t.Data)%size != 0 {
		return nil, fmt.Errorf("output %q: %d bytes are no elements of %s", t.Name, len(t.Data), t.Type)
	}
	for e := range slices.Chunk(t.Data, size) {
		if len(words) == most {
			break
		}
		words = append(words, element(t.Type, e))
	}
	return words, nil
}

// element writes one element.
func element(d serve.Datatype, b []byte) string {
	number := func(v float64, bits int) string { return strconv.FormatFloat(v, 'g', -1, bits) }
	u := uint64(0)
	for i, x := range b {
		u |= uint64(x) << (8 * i)
	}
	switch d {
	case serve.Bool:
		return strconv.FormatBool(u != 0)
	case serve.Int8, serve.Int16, serve.Int32, serve.Int64:
		unused := 64 - 8*len(b)
		return strconv.FormatInt(int64(u<<unused)>>unused, 10)
	case serve.FP16:
		return number(half(uint16(u)), 32)
	case serve.BF16:
		return number(float64(math.Float32frombits(uint32(u)<<16)), 32)
	case serve.FP32:
		return number(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32)
	case serve.FP64:
		return number(math.Float64frombits(u), 64)
	}
	return strconv.FormatUint(u, 10)
}

// half is the value of an IEEE 754 binary16.
func half(h uint16) float64 {
	sign, exponent, fraction := 1-2*float64(h>>15), int(h>>10&31), float64(h&1023)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}
