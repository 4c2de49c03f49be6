package supernet

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"

	"spos/internal/arch"
)

// TestStepsDoNotGrowTheProcess takes ten thousand steps, collecting garbage
// all the while: no handle may leak, and none may be freed under C's feet.
func TestStepsDoNotGrowTheProcess(t *testing.T) {
	steps := 10_000
	if testing.Short() {
		steps = 1000
	}
	net := shortNet()
	s, err := New(paramsOf(net), Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := tinyBatches()[1]
	var half int64
	for i := range steps {
		if _, err := s.Step(t.Context(), net, b, 1e-3); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			runtime.GC()
		}
		if i == steps/2 {
			half = resident(t)
		}
	}
	// A leak of one handle a step would be 0.4 MB, of one activation 20 MB.
	grown := resident(t) - half
	t.Logf("the second half grew the process by %d KB", grown>>10)
	if grown > 4<<20 {
		t.Error("the process grows")
	}
}

// shortNet goes through every kind of native call in as few ops as possible.
func shortNet() *arch.Net {
	long := tinyNet()
	net := &arch.Net{Space: "short", In: long.In, Ops: long.Ops[:3]} // stem, two takes
	last := len(long.Ops) - 1
	tail := slices.Clone(long.Ops[last-2:]) // pool, dropout, linear
	cat := arch.Op{Name: "cat", Kind: arch.Concat, Inputs: []int{1, 2}, Out: long.Ops[0].Out}
	net.Ops = append(slices.Clone(net.Ops), cat)
	for i := range tail {
		tail[i].Inputs, tail[i].Out.C = []int{len(net.Ops) - 1}, cat.Out.C
		net.Ops = append(net.Ops, tail[i])
	}
	fc := &net.Ops[len(net.Ops)-1]
	fc.Out.C, fc.Weight.Shape = 5, []int{5, cat.Out.C}
	return net
}

func resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// TestCollectionDuringSteps runs the collector without a pause beside training
// and evaluation from two goroutines.
func TestCollectionDuringSteps(t *testing.T) {
	s, net := tiny(t, Options{Threads: 1})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	evaluated := make(chan error, 1)
	go func() {
		for range 30 {
			if _, err := s.Evaluate(context.Background(), net, nil, all(tinyBatches())); err != nil {
				evaluated <- err
				return
			}
		}
		evaluated <- nil
	}()
	train(t, s, net, 0, 200)
	if err := <-evaluated; err != nil {
		t.Error(err)
	}
	close(stop)
	<-done
}
