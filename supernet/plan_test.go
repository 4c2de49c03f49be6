package supernet

import (
	"testing"

	"spos/configs"
	"spos/internal/arch"
	"spos/supernet/internal/torchx"
)

// TestPlan checks for every shipped space that each value is made once before
// it is read, freed once after, and that joining and taking apart is one pass
// a block.
func TestPlan(t *testing.T) {
	for _, name := range []string{"shufflenetv2-spos", "shufflenetv2-mmrazor", "shufflenetv2-small"} {
		space, err := configs.Space(name)
		if err != nil {
			t.Fatal(err)
		}
		choices := make([]int, space.Len())
		for i := range choices {
			choices[i] = i % 4
		}
		net, err := space.Net(arch.Make(choices))
		if err != nil {
			t.Fatal(err)
		}
		there := map[int]bool{arch.Input: true}
		regroupings := 0
		for _, st := range plan(net) {
			in, out := []int(nil), []int{st.op}
			if st.sum != nil {
				regroupings++
				in, out = st.sum.in, st.sum.out
			} else {
				in = net.Ops[st.op].Inputs
			}
			for _, v := range in {
				if !there[v] {
					t.Errorf("%s: value %d is read where it is not there", name, v)
				}
			}
			for _, v := range out {
				if there[v] {
					t.Errorf("%s: value %d is made twice", name, v)
				}
				there[v] = true
			}
			for _, v := range st.spent {
				if !there[v] {
					t.Errorf("%s: value %d is freed where it is not there", name, v)
				}
				delete(there, v)
			}
		}
		if len(there) != 2 || !there[len(net.Ops)-1] {
			t.Errorf("%s: left at the end: %v, want the input and the logits", name, there)
		}
		// Before each block but the first, and before the tail.
		if want := space.Len(); regroupings != want {
			t.Errorf("%s: %d regroupings, want %d", name, regroupings, want)
		}
	}
}

// TestForwardLeavesOnlyTheLogits counts what the scope still owns.
func TestForwardLeavesOnlyTheLogits(t *testing.T) {
	s, net := tiny(t, Options{})
	err := s.worker.Do(func(sc *torchx.Scope) error {
		x := s.images(sc, tinyBatches()[0])
		tr := s.trainer(s.running)
		logits := forward(sc, net, x, tr)
		sc.Free(x)
		sc.Free(logits)
		weights := 0
		for range net.Views() {
			weights++
		}
		if sc.Len() != weights {
			t.Errorf("%d tensors are left, want the %d parts of weights", sc.Len(), weights)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
