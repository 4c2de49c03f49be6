package serve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestFloatsRoundCorrectly holds the fast number reader to strconv, which rounds correctly, on the numbers that are
// hard: everything near the middle of two neighbours, and every way of writing them.
func TestFloatsRoundCorrectly(t *testing.T) {
	const seed = 20260101
	r := rand.New(rand.NewPCG(seed, 0))
	check := func(text string) {
		t.Helper()
		rd := jsonReader{b: []byte(text)}
		n, err := rd.number()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		want32, err32 := strconv.ParseFloat(text, 32)
		if got, ok := n.float32(); ok != (err32 == nil) || ok && math.Float32bits(got) != math.Float32bits(float32(want32)) {
			t.Errorf("float32 of %s: %v %v, want %v %v", text, got, ok, want32, err32)
		}
		want64, err64 := strconv.ParseFloat(text, 64)
		if got, ok := n.float64(); ok != (err64 == nil) || ok && math.Float64bits(got) != math.Float64bits(want64) {
			t.Errorf("float64 of %s: %v %v, want %v %v", text, got, ok, want64, err64)
		}
	}
	for range 20_000 {
		f := math.Float32frombits(r.Uint32())
		if f != f || math.IsInf(float64(f), 0) {
			continue
		}
		next := math.Nextafter32(f, 2*f)
		middle := (float64(f) + float64(next)) / 2
		if math.IsInf(middle, 0) {
			continue
		}
		for _, x := range []float64{float64(f), middle, math.Nextafter(middle, 0), math.Nextafter(middle, math.Inf(1))} {
			for _, form := range []byte{'g', 'e', 'f'} {
				check(strconv.FormatFloat(x, form, -1, 64))
			}
			check(strconv.FormatFloat(x, 'g', 18, 64))
			check(strconv.FormatFloat(x, 'g', 25, 64))
		}
		check(strconv.FormatFloat(float64(f), 'g', -1, 32))
		check(fmt.Sprintf("%d.%06d", r.IntN(256), r.IntN(1e6)))
	}
	for _, text := range []string{
		"0", "-0", "0.0", "0e5", "1e22", "1e23", "9007199254740993", "1e-22", "123456789012345678901234567890",
		"3.4028235677973366e38", "3.4028235677973365e38", "1.7976931348623159e308", "1e-400", "0.000000000000000000000000000001",
		"1.17549435e-38", "1.1754943e-38", "7e-46", "7.1e-46", "1e999999999999999999999", "1e-999999999999999999999",
	} {
		check(text)
	}
}

func TestIntegersAtTheirLimits(t *testing.T) {
	for d := Uint8; d <= Int64; d++ {
		bits := uint(8 * d.Size())
		lo, hi := "0", strconv.FormatUint(math.MaxUint64>>(64-bits), 10)
		below, above := "-1", hi+"0"
		if d >= Int8 {
			lo, hi = strconv.FormatInt(math.MinInt64>>(64-bits), 10), strconv.FormatInt(math.MaxInt64>>(64-bits), 10)
			below = lo + "0"
		}
		for text, ok := range map[string]bool{lo: true, hi: true, below: false, above: false, "-0": true, "1e0": false, "0.5": false} {
			rd := jsonReader{b: []byte(text)}
			var dst [8]byte
			err := rd.integer(d, dst[:d.Size()])
			if (err == nil) != ok {
				t.Errorf("%s as %s: %v", text, d, err)
				continue
			}
			if v := binary.LittleEndian.Uint64(dst[:]); ok && d < Int8 && strconv.FormatUint(v, 10) != text && text != "-0" {
				t.Errorf("%s as %s: %d", text, d, v)
			}
		}
	}
}

func TestAppendedStringsReadBack(t *testing.T) {
	for _, s := range []string{"", "plain", `"\/`, "\x00\x01\x1f\x7f", "a\u2028b\u2029", "ä😀", "<script>&"} {
		r := jsonReader{b: appendString(nil, s)}
		if got, err := r.string("s"); err != nil || got != s {
			t.Errorf("%q came back as %q (%v)", s, got, err)
		}
	}
}

func TestElements(t *testing.T) {
	for name, tt := range map[string]struct {
		shape []int64
		n     int64
		ok    bool
	}{
		"scalar": {nil, 1, true}, "plain": {[]int64{2, 3}, 6, true}, "zero": {[]int64{0, 1 << 40}, 0, true},
		"wraps": {[]int64{16, 1<<60 + 2}, 0, false}, "wraps to zero": {[]int64{1 << 32, 1 << 32}, 0, false},
		"negative": {[]int64{-1}, 0, false}, "two negatives": {[]int64{-2, -3}, 0, false},
	} {
		if n, ok := elements(tt.shape); n != tt.n || ok != tt.ok {
			t.Errorf("%s: %d %v", name, n, ok)
		}
	}
}

func TestArena(t *testing.T) {
	m := &memory{limit: 1 << 20}
	a := &arena{m: m}
	for _, n := range []int{0, 1, 63, 4096, 4097, 100_000} {
		b, err := a.alloc(n)
		if err != nil || len(b) != n {
			t.Fatalf("alloc(%d): %d bytes, %v", n, len(b), err)
		}
		if b = b[:cap(b)]; addr(b)%alignment != 0 {
			t.Errorf("alloc(%d) is not aligned", n)
		}
	}
	if _, err := a.alloc(1 << 20); !errors.Is(err, errMemory) {
		t.Errorf("beyond the limit: %v", err)
	}
	if err := a.reserve(1 << 20); !errors.Is(err, errMemory) {
		t.Errorf("reserve beyond the limit: %v", err)
	}
	a.free()
	if used := m.used.Load(); used != 0 {
		t.Errorf("%d bytes are held after free", used)
	}
}

// BenchmarkData reads the tensor of one picture from JSON.
func BenchmarkData(b *testing.B) {
	const n = 3 * 224 * 224
	text := []byte{'['}
	for i := range n {
		if i > 0 {
			text = append(text, ',')
		}
		text = appendFloat(text, float64(float32(i%25117)/25117-0.5), 32)
	}
	text = append(text, ']')
	m := &memory{limit: 64 << 20}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		mem := &arena{m: m}
		r := requestReader{jsonReader: jsonReader{b: text}, requestParts: requestParts{mem: mem}}
		if _, err := r.tensor(&wireInput{Tensor: Tensor{Type: FP32, Shape: []int64{n}}}); err != nil {
			b.Fatal(err)
		}
		mem.free()
	}
}
