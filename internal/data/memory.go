package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"

	"spos/internal/arch"
	"spos/internal/imaging"
)

// Memory is a [Dataset] of decoded images.
type Memory struct {
	classes []string
	images  []imaging.Image
	labels  []int32
	names   []string // nil where images have none
}

// Len implements [Dataset].
func (m *Memory) Len() int { return len(m.images) }

// Classes implements [Dataset].
func (m *Memory) Classes() []string { return m.classes }

// Label implements [Dataset].
func (m *Memory) Label(i int) int { return int(m.labels[i]) }

// Image implements [Dataset]. It never fails, and shares its pixels.
func (m *Memory) Image(i int) (imaging.Image, error) { return m.images[i], nil }

// Name implements [Named].
func (m *Memory) Name(i int) string {
	if m.names == nil {
		return fmt.Sprintf("image %d", i)
	}
	return m.names[i]
}

// drop takes out broken images.
func (m *Memory) drop(bad []BadImage) {
	m.images, m.labels, m.names = without(m.images, bad), without(m.labels, bad), without(m.names, bad)
}

// without is s less the elements at the indices of bad, which ascend.
func without[T any](s []T, bad []BadImage) []T {
	if len(bad) == 0 {
		return s
	}
	kept := s[:0]
	for i, v := range s {
		if len(bad) > 0 && bad[0].Index == i {
			bad = bad[1:]
			continue
		}
		kept = append(kept, v)
	}
	return kept
}

// Shape is the one shape of all images; height and width are zero where they
// differ. Channels are 3 where any image has colour.
func (m *Memory) Shape() arch.Shape {
	s := arch.Shape{C: 1}
	for i := range m.images {
		im := &m.images[i]
		s.C = max(s.C, im.C)
		if i == 0 {
			s.H, s.W = im.H, im.W
		}
		if im.H != s.H || im.W != s.W {
			s.H, s.W = 0, 0
			break
		}
	}
	if s.H == 0 {
		s.C = 3
	}
	return s
}

// fingerprint hashes what several sets hold: class names, labels, sizes and
// pixels, in order.
func fingerprint(sets ...*Memory) string {
	h := sha256.New()
	var b []byte
	for _, m := range sets {
		b = fmt.Appendf(b[:0], "%q %d\n", m.classes, len(m.images))
		h.Write(b)
		for i := range m.images {
			im := &m.images[i]
			b = b[:0]
			for _, v := range [...]int{int(m.labels[i]), im.W, im.H, im.C} {
				b = binary.LittleEndian.AppendUint32(b, uint32(v))
			}
			h.Write(b)
			h.Write(im.Pix)
		}
	}
	return "pixels-sha256:" + hex.EncodeToString(h.Sum(nil))
}

// subset shows some images of another set, in its own order.
type subset struct {
	Dataset
	index []int32
}

func (s *subset) Len() int                           { return len(s.index) }
func (s *subset) Label(i int) int                    { return s.Dataset.Label(int(s.index[i])) }
func (s *subset) Image(i int) (imaging.Image, error) { return s.Dataset.Image(int(s.index[i])) }
func (s *subset) Name(i int) string                  { return Name(s.Dataset, int(s.index[i])) }

// Sample is n images of d (all, if it has fewer), drawn by the seed without
// replacement: a calibration set. A smaller sample of the same seed is the
// beginning of a larger one.
func Sample(d Dataset, n int, seed uint64) Dataset {
	index := indices(d.Len())
	shuffle(index, rand.New(rand.NewPCG(seed, streamSample)))
	return &subset{d, index[:min(max(n, 0), len(index))]}
}

// Split divides d in two, class by class: held gets the given fraction of
// each class, rounded, but at least one image of a class that has two. Which
// ones depends on the seed and the class alone. Both keep d's order.
func Split(d Dataset, fraction float64, seed uint64) (rest, held Dataset, err error) {
	if !(fraction > 0 && fraction < 1) {
		return nil, nil, fmt.Errorf("split: fraction %v is outside 0..1", fraction)
	}
	byClass := make([][]int32, len(d.Classes()))
	for i := range d.Len() {
		c := d.Label(i)
		byClass[c] = append(byClass[c], int32(i))
	}
	var a, b []int32
	for c, index := range byClass {
		n := int(float64(len(index))*fraction + 0.5)
		n = min(max(n, 1), len(index)-1)
		if n < 1 { // an absent class, or one image: it trains
			a = append(a, index...)
			continue
		}
		shuffle(index, rand.New(rand.NewPCG(seed, streamSplit+uint64(c))))
		b = append(b, index[:n]...)
		a = append(a, index[n:]...)
	}
	if len(a) == 0 || len(b) == 0 {
		return nil, nil, fmt.Errorf("split: %d images of %d classes are too few to hold any out: %w",
			d.Len(), len(byClass), ErrData)
	}
	slices.Sort(a)
	slices.Sort(b)
	return &subset{d, a}, &subset{d, b}, nil
}

// The random streams of a seed. They are far apart, so that no two uses of
// one seed see the same numbers.
const (
	streamOrder   uint64 = 1 << 60
	streamAugment uint64 = 2 << 60
	streamSplit   uint64 = 3 << 60
	streamSample  uint64 = 4 << 60
)

func indices(n int) []int32 {
	index := make([]int32, n)
	for i := range index {
		index[i] = int32(i)
	}
	return index
}

func shuffle(index []int32, r *rand.Rand) {
	r.Shuffle(len(index), func(i, j int) { index[i], index[j] = index[j], index[i] })
}
