package ort

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	yalue "github.com/yalue/onnxruntime_go"
)

// Fixed runs a session again and again on the same memory: nothing is checked,
// made or freed between runs, and Run does not allocate. One goroutine at a
// time; it cannot be cancelled. The timed loop of a measurement.
type Fixed struct {
	s   *Session
	b   *bound
	in  []Tensor
	out []Tensor
}

// bound is the native side of a Fixed, owned by its session's core.
type bound struct {
	binding *yalue.IoBinding
	values  values
	pin     runtime.Pinner
}

func (b *bound) free() error {
	err := b.binding.Destroy()
	b.values.destroy()
	b.pin.Unpin()
	return err
}

// Fix binds the session to these inputs and outputs, whose memory the caller
// goes on writing and reading between runs. Outputs without memory get it
// from a first run. Memory must be aligned for its type. Scalars and strings
// live in the library: of such inputs later changes are not seen, and string
// outputs are refused. Errors are those of [Session.Run].
func (s *Session) Fix(in, out []Tensor) (*Fixed, error) {
	f, err := s.fix(in, out)
	if err != nil {
		return nil, fmt.Errorf("ort: bind %s: %w", s.name, err)
	}
	return f, nil
}

func (s *Session) fix(in, out []Tensor) (_ *Fixed, err error) {
	for i := range out {
		if out[i].Data == nil && out[i].Strings == nil {
			if err := s.run(context.Background(), in, out); err != nil {
				return nil, fmt.Errorf("first run: %w", err)
			}
			break
		}
	}
	for i := range in {
		if size := in[i].Type.Size(); size > 1 && !aligned(in[i].Data, size) {
			return nil, fmt.Errorf("input %d: %w: its memory is not aligned to %d bytes", i, ErrTensor, size)
		}
	}
	for i := range out {
		if out[i].Type == String {
			return nil, fmt.Errorf("output %d: %w: strings have no memory to write in place", i, ErrTensor)
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.core == nil {
		return nil, ErrClosed
	}
	b := &bound{}
	if b.binding, err = s.core.session.CreateIoBinding(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.free())
		}
	}()
	ins, outs, err := s.wrap(in, out, &b.pin)
	if err != nil {
		return nil, err
	}
	b.values = append(ins, outs...)
	for i, v := range ins {
		if err := b.binding.BindInput(s.sig.in[i].Name, v); err != nil {
			return nil, fmt.Errorf("input %s: %w", s.sig.in[i].Name, err)
		}
	}
	for i, v := range outs {
		if err := b.binding.BindOutput(s.sig.out[i].Name, v); err != nil {
			return nil, fmt.Errorf("output %s: %w", s.sig.out[i].Name, err)
		}
	}
	s.core.mu.Lock()
	s.core.fixed[b] = true
	s.core.mu.Unlock()
	return &Fixed{s: s, b: b, in: in, out: out}, nil
}

// Outputs are the tensors that each Run overwrites.
func (f *Fixed) Outputs() []Tensor { return f.out }

// Run computes the outputs from the inputs' present contents. It returns
// [ErrClosed] after the Close of f or of its session.
func (f *Fixed) Run() error {
	f.s.mu.RLock()
	defer f.s.mu.RUnlock()
	if f.b == nil || f.s.core == nil {
		return ErrClosed
	}
	if err := f.s.core.session.RunWithBinding(f.b.binding); err != nil {
		return fmt.Errorf("ort: run %s: %w", f.s.name, err)
	}
	outs := f.b.values[len(f.in):]
	for i := range f.out {
		if err := settle(&f.out[i], outs[i]); err != nil {
			return fmt.Errorf("ort: run %s: output %d: %w", f.s.name, i, err)
		}
	}
	return nil
}

// Time runs len(times) times and writes how long each took. Before each run the
// thread sleeps for idle and writes to every cache line of evict; 0 and nil are
// neither. On Linux none of it returns to Go: a loop that does is noticed by
// the scheduler after some 20 ms, which from then on takes the processor from
// the goroutine in every run, at about 10 µs each. Outputs that are scalars
// keep their values. Errors and closing are those of [Fixed.Run]; times up to
// the run that failed are written.
func (f *Fixed) Time(times []time.Duration, idle time.Duration, evict []byte) error {
	f.s.mu.RLock()
	defer f.s.mu.RUnlock()
	if f.b == nil || f.s.core == nil {
		return ErrClosed
	}
	ok, err := f.native(times, idle, evict)
	if !ok {
		err = f.repeat(times, idle, evict)
	}
	if err != nil {
		return fmt.Errorf("ort: run %s: %w", f.s.name, err)
	}
	return nil
}

// repeat is the loop in Go, where there is none below it.
func (f *Fixed) repeat(times []time.Duration, idle time.Duration, evict []byte) error {
	for i := range times {
		if idle > 0 {
			time.Sleep(idle)
		}
		write(evict)
		start := time.Now()
		if err := f.s.core.session.RunWithBinding(f.b.binding); err != nil {
			return err
		}
		times[i] = time.Since(start)
	}
	return nil
}

// write touches every cache line. A race detector's own memory would take
// seconds.
//
//go:norace
func write(b []byte) {
	for i := 0; i < len(b); i += 64 {
		b[i]++
	}
}

// Close frees the binding; the tensors are the caller's again. A second Close
// does nothing.
func (f *Fixed) Close() error {
	f.s.mu.RLock()
	defer f.s.mu.RUnlock()
	b := f.b
	f.b = nil
	if b == nil || f.s.core == nil {
		return nil
	}
	f.s.core.mu.Lock()
	delete(f.s.core.fixed, b)
	f.s.core.mu.Unlock()
	return b.free()
}
