package export

import (
	"fmt"
	"slices"
)

// The rules of operators that move numbers and compute none.

func flatten(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	axis := n.int("axis", 1)
	if axis < 0 {
		axis += int64(len(x))
	}
	if axis < 0 || axis > int64(len(x)) {
		return fail(fmt.Errorf("axis %d of %v", axis, x))
	}
	return one([]int64{product(x[:axis]), product(x[axis:])})
}

func reshape(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	target, err := f.list(n, "shape", 1)
	if err != nil {
		return fail(err)
	}
	out, free := make([]int64, len(target)), -1
	for i, d := range target {
		switch {
		case d == -1 && free < 0:
			free = i
			out[i] = 1
		case d == 0 && n.int("allowzero", 0) == 0 && i < len(x):
			out[i] = x[i]
		case d >= 0:
			out[i] = d
		default:
			return fail(fmt.Errorf("cannot reshape %v to %v", x, target))
		}
	}
	total := product(x)
	known, err := elements(out)
	if err != nil {
		return fail(err)
	}
	if free >= 0 && known > 0 && total%known == 0 {
		out[free] = total / known
		known = total
	}
	if known != total {
		return fail(fmt.Errorf("cannot reshape %v to %v", x, target))
	}
	return one(out)
}

func transpose(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	perm, ok := n.attrs["perm"].([]int64)
	if !ok {
		out := slices.Clone(x)
		slices.Reverse(out)
		return one(out)
	}
	if len(perm) != len(x) {
		return fail(fmt.Errorf("%d numbers do not permute %d dimensions", len(perm), len(x)))
	}
	sorted := slices.Sorted(slices.Values(perm))
	for i, p := range sorted {
		if p != int64(i) {
			return fail(fmt.Errorf("%v does not permute %d dimensions", perm, len(x)))
		}
	}
	out := make([]int64, len(perm))
	for i, p := range perm {
		out[i] = x[p]
	}
	return one(out)
}

func concat(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.ranked(n, 0, 1)
	if err != nil {
		return fail(err)
	}
	axis, err := axisOf(n.int("axis", 1), len(x))
	if err != nil {
		return fail(err)
	}
	out, ints, constant := slices.Clone(x), []int64{}, len(x) == 1
	out[axis] = 0
	for i := range n.in {
		s, err := f.ranked(n, i, len(x))
		if err != nil {
			return fail(err)
		}
		for k := range s {
			if len(s) != len(x) || k != axis && s[k] != x[k] {
				return fail(fmt.Errorf("inputs %v and %v differ beyond axis %d", x, s, axis))
			}
		}
		out[axis] += s[axis]
		v, ok := f.ints[n.in[i]]
		constant = constant && ok
		ints = append(ints, v...)
		if len(ints) > maxInts {
			constant, ints = false, nil
		}
	}
	if constant && len(n.out) > 0 {
		f.ints[n.out[0]] = ints
	}
	return one(out)
}

func slice(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	starts, err := f.list(n, "starts", 1)
	if err != nil {
		return fail(err)
	}
	ends, err := f.list(n, "ends", 2)
	if err != nil {
		return fail(err)
	}
	axes, err := f.list(n, "axes", 3)
	if err != nil {
		return fail(err)
	}
	steps, err := f.values(n, 4)
	if err != nil {
		return fail(err)
	}
	if len(ends) != len(starts) || axes != nil && len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		return fail(fmt.Errorf("%d starts, %d ends, %d axes, %d steps", len(starts), len(ends), len(axes), len(steps)))
	}
	out := slices.Clone(x)
	for i := range starts {
		a, step := int64(i), int64(1)
		if axes != nil {
			a = axes[i]
		}
		if steps != nil {
			step = steps[i]
		}
		axis, err := axisOf(a, len(x))
		if err != nil {
			return fail(err)
		}
		if out[axis], err = sliced(x[axis], starts[i], ends[i], step); err != nil {
			return fail(err)
		}
	}
	return one(out)
}

// sliced is how many of d elements lie between start and end.
func sliced(d, start, end, step int64) (int64, error) {
	const most = 1 << 48
	if step == 0 || step > most || step < -most {
		return 0, fmt.Errorf("step %d", step)
	}
	if start < 0 {
		start += d
	}
	if end < 0 {
		end += d
	}
	if step > 0 {
		start, end = min(max(start, 0), d), min(max(end, 0), d)
		return max(0, (end-start+step-1)/step), nil
	}
	start, end = min(max(start, 0), d-1), min(max(end, -1), d-1)
	return max(0, (start-end-step-1)/-step), nil
}

func split(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	axis, err := axisOf(n.int("axis", 0), len(x))
	if err != nil {
		return fail(err)
	}
	sizes, err := f.list(n, "split", 1)
	if err != nil {
		return fail(err)
	}
	if sizes == nil {
		sizes = evenly(x[axis], int64(len(n.out)))
	}
	if len(sizes) != len(n.out) { // before a shape is made for each
		return fail(fmt.Errorf("%d parts for %d outputs of %v", len(sizes), len(n.out), x))
	}
	sum := int64(0)
	out := make([][]int64, len(sizes))
	for i, s := range sizes {
		out[i] = slices.Clone(x)
		out[i][axis] = s
		sum += s
	}
	if sum != x[axis] {
		return fail(fmt.Errorf("parts %v of %v", sizes, x))
	}
	return out, 0, nil
}

// evenly shares d over k parts, the last one smaller.
func evenly(d, k int64) []int64 {
	if k == 0 {
		return nil
	}
	sizes := slices.Repeat([]int64{(d + k - 1) / k}, int(k))
	sizes[k-1] = d - sizes[0]*(k-1)
	return sizes
}

func gather(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.ranked(n, 0, 1)
	if err != nil {
		return fail(err)
	}
	indices, err := f.shape(n, 1)
	if err != nil {
		return fail(err)
	}
	axis, err := axisOf(n.int("axis", 0), len(x))
	if err != nil {
		return fail(err)
	}
	from, known := f.ints[n.in[0]]
	at, fixed := f.ints[n.in[1]]
	if known && fixed && len(x) == 1 && len(n.out) > 0 {
		ints := make([]int64, len(at))
		for i, a := range at {
			j, err := axisOf(a, len(from))
			if err != nil {
				return fail(err)
			}
			ints[i] = from[j]
		}
		f.ints[n.out[0]] = ints
	}
	return one(slices.Concat(x[:axis], indices, x[axis+1:]))
}

func squeeze(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	axes, err := f.list(n, "axes", 1)
	if err != nil {
		return fail(err)
	}
	gone := make([]bool, len(x))
	for i, d := range x {
		gone[i] = axes == nil && d == 1
	}
	for _, a := range axes {
		i, err := axisOf(a, len(x))
		if err != nil {
			return fail(err)
		}
		if x[i] != 1 {
			return fail(fmt.Errorf("axis %d of %v is not one", i, x))
		}
		gone[i] = true
	}
	out := []int64{}
	for i, d := range x {
		if !gone[i] {
			out = append(out, d)
		}
	}
	f.keepInts(n)
	return one(out)
}

func unsqueeze(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	axes, err := f.list(n, "axes", 1)
	if err != nil {
		return fail(err)
	}
	rank := len(x) + len(axes)
	out := make([]int64, rank)
	for _, a := range axes {
		i, err := axisOf(a, rank)
		if err != nil {
			return fail(err)
		}
		if out[i] == 1 {
			return fail(fmt.Errorf("axis %d twice", i))
		}
		out[i] = 1
	}
	rest := x
	for i := range out {
		if out[i] == 0 {
			out[i], rest = rest[0], rest[1:]
		}
	}
	f.keepInts(n)
	return one(out)
}

// keepInts passes known integers on where only the shape changes.
func (f *inference) keepInts(n node) {
	if v, ok := f.ints[n.in[0]]; ok && len(n.out) > 0 {
		f.ints[n.out[0]] = v
	}
}

func pad(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	pads, err := f.list(n, "pads", 1)
	if err != nil {
		return fail(err)
	}
	if len(pads) != 2*len(x) || len(n.in) > 3 {
		return fail(fmt.Errorf("%d pads for %v: %w", len(pads), x, errUnknown))
	}
	out := slices.Clone(x)
	for i := range x {
		out[i] += pads[i] + pads[i+len(x)]
	}
	return one(out)
}

func constant(f *inference, n node) ([][]int64, int64, error) {
	var t tensor
	switch v := n.attrs["value"].(type) {
	case tensor:
		t = v
	default:
		if i, ok := n.attrs["value_int"].(int64); ok {
			t.ints = []int64{i}
			break
		}
		if is, ok := n.attrs["value_ints"].([]int64); ok && len(is) <= maxInts {
			t.ints, t.shape = is, []int64{int64(len(is))}
			break
		}
		if _, ok := n.attrs["value_float"].(float32); !ok {
			return fail(fmt.Errorf("constant: %w", errUnknown))
		}
	}
	if t.ints != nil && len(n.out) > 0 {
		f.ints[n.out[0]] = t.ints
	}
	return one(t.shape)
}

func shapeOf(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	start, end := n.int("start", 0), n.int("end", int64(len(x)))
	k, err := sliced(int64(len(x)), start, end, 1)
	if err != nil {
		return fail(err)
	}
	if start < 0 {
		start += int64(len(x))
	}
	start = min(max(start, 0), int64(len(x)))
	if len(n.out) > 0 {
		f.ints[n.out[0]] = slices.Clone(x[start : start+k])
	}
	return one([]int64{k})
}
