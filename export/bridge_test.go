package export

import "spos/export/onnxpb"

// Shapes is what inference finds of a model, for tests that hold it against
// other implementations.
func Shapes(p *onnxpb.ModelProto) (shapes map[string][]int64, macs int64, err error) {
	m, err := read(p)
	if err != nil {
		return nil, 0, err
	}
	f := newInference(m)
	for _, n := range m.nodes {
		c, err := f.node(n)
		if err != nil {
			return nil, 0, err
		}
		macs += c
	}
	return f.shapes, macs, nil
}
