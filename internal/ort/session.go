package ort

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"

	yalue "github.com/yalue/onnxruntime_go"
)

// Session is a model ready to run. Run may be called from many goroutines.
// It holds native memory until Close.
type Session struct {
	name    string
	sig     signature
	meta    map[string]string
	options Options

	mu      sync.RWMutex // held for reading by every run, for writing by Close
	core    *core        // nil after Close
	cleanup runtime.Cleanup
}

// core is everything native that a session owns.
type core struct {
	session *yalue.DynamicAdvancedSession
	mu      sync.Mutex
	fixed   map[*bound]bool
}

func (c *core) free() error {
	var errs []error
	for b := range c.fixed {
		errs = append(errs, b.free())
	}
	clear(c.fixed)
	return errors.Join(append(errs, c.session.Destroy())...)
}

// NewSession makes a session of a model's bytes, which the library copies. A
// model that keeps its weights in files beside it needs [Runtime.OpenSession];
// here its error wraps [ErrExternal].
func (r *Runtime) NewSession(model []byte, o Options) (*Session, error) {
	if o.Name == "" {
		o.Name = "model"
	}
	if err := checkInternal(model); err != nil {
		return nil, fmt.Errorf("ort: load %s: %w", o.Name, err)
	}
	s, err := newSession(model, o, func(in, out []string, so *yalue.SessionOptions) (*yalue.DynamicAdvancedSession, error) {
		return yalue.NewDynamicAdvancedSessionWithONNXData(model, in, out, so)
	})
	if err != nil {
		return nil, fmt.Errorf("ort: load %s: %w", o.Name, err)
	}
	return s, nil
}

// OpenSession makes a session of a model's file.
func (r *Runtime) OpenSession(path string, o Options) (*Session, error) {
	if o.Name == "" {
		o.Name = path
	}
	model, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ort: load model: %w", err)
	}
	s, err := newSession(model, o, func(in, out []string, so *yalue.SessionOptions) (*yalue.DynamicAdvancedSession, error) {
		return yalue.NewDynamicAdvancedSession(path, in, out, so)
	})
	if err != nil {
		return nil, fmt.Errorf("ort: load %s: %w", o.Name, err)
	}
	return s, nil
}

type load func(in, out []string, so *yalue.SessionOptions) (*yalue.DynamicAdvancedSession, error)

func newSession(model []byte, o Options, load load) (*Session, error) {
	so, err := o.session()
	if err != nil {
		return nil, err
	}
	// Destroying options has no error to report.
	defer func() { _ = so.Destroy() }()
	sig, err := readSignature(model)
	if err != nil {
		return nil, err
	}
	if len(sig.in) == 0 || len(sig.out) == 0 {
		return nil, fmt.Errorf("it has %d inputs and %d outputs, at least one of each is needed", len(sig.in), len(sig.out))
	}
	native, err := load(names(sig.in), names(sig.out), so)
	if err != nil {
		return nil, err
	}
	c := &core{session: native, fixed: map[*bound]bool{}}
	meta, err := metadata(native)
	if err != nil {
		return nil, errors.Join(err, c.free())
	}
	s := &Session{name: o.Name, sig: sig, meta: meta, options: o, core: c}
	s.cleanup = runtime.AddCleanup(s, func(c *core) { _ = c.free() }, c)
	return s, nil
}

// readSignature reads the model itself, and asks the library, at the price of
// a second session, where the file is not a plain ModelProto or leaves the
// rank of an output open.
func readSignature(model []byte) (signature, error) {
	sig, scanErr := scan(model)
	open := func(i Info) bool { return i.Shape == nil || i.Type == Undefined }
	if scanErr == nil && !slices.ContainsFunc(sig.out, open) && !slices.ContainsFunc(sig.in, open) {
		return sig, nil
	}
	in, out, err := yalue.GetInputOutputInfoWithONNXData(model)
	if err != nil {
		return signature{}, err
	}
	sig.in, err = inferred(sig.in, in)
	if err != nil {
		return signature{}, fmt.Errorf("input %w", err)
	}
	sig.out, err = inferred(sig.out, out)
	if err != nil {
		return signature{}, fmt.Errorf("output %w", err)
	}
	return sig, nil
}

// inferred is what the library says where the file says less.
func inferred(said []Info, known []yalue.InputOutputInfo) ([]Info, error) {
	infos := make([]Info, len(known))
	for i, k := range known {
		if k.OrtValueType != yalue.ONNXTypeTensor {
			return nil, fmt.Errorf("%s: it is a %s, only tensors are supported", k.Name, k.OrtValueType)
		}
		infos[i] = Info{Name: k.Name, Type: typeOf(k.DataType), Shape: slices.Clone(k.Dimensions)}
		if infos[i].Type == Undefined {
			return nil, fmt.Errorf("%s: elements of type %s are not supported", k.Name, k.DataType)
		}
		j := slices.IndexFunc(said, func(s Info) bool { return s.Name == k.Name })
		switch {
		case j >= 0 && said[j].Shape != nil:
			infos[i].Shape, infos[i].Symbols = said[j].Shape, said[j].Symbols
		case len(k.Dimensions) == 0:
			infos[i].Shape = nil // the library does not tell a scalar from an open rank
		default:
			infos[i].Symbols = make([]string, len(k.Dimensions))
		}
	}
	return infos, nil
}

func names(infos []Info) []string {
	n := make([]string, len(infos))
	for i, info := range infos {
		n[i] = info.Name
	}
	return n
}

func metadata(s *yalue.DynamicAdvancedSession) (_ map[string]string, err error) {
	m, err := s.GetModelMetadata()
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	defer func() { err = errors.Join(err, m.Destroy()) }()
	keys, err := m.GetCustomMetadataMapKeys()
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	meta := make(map[string]string, len(keys))
	for _, k := range keys {
		v, _, err := m.LookupCustomMetadataMap(k)
		if err != nil {
			return nil, fmt.Errorf("read metadata %q: %w", k, err)
		}
		meta[k] = v
	}
	return meta, nil
}

// Name is what errors call the model.
func (s *Session) Name() string { return s.name }

// Inputs describes the inputs in the order that Run takes them.
func (s *Session) Inputs() []Info { return slices.Clone(s.sig.in) }

// Outputs describes the outputs in the order that Run fills them.
func (s *Session) Outputs() []Info { return slices.Clone(s.sig.out) }

// Metadata is the model's own key-value map.
func (s *Session) Metadata() map[string]string { return maps.Clone(s.meta) }

// Opset is the version of the default operator set that the model imports.
func (s *Session) Opset() int64 { return s.sig.opset }

// Weights is the type of most bytes of the model's constants: what it computes
// with, whatever its inputs are. Undefined where it has none.
func (s *Session) Weights() Type { return s.sig.weights }

// Options is what the session was made with.
func (s *Session) Options() Options { return s.options }

// Run computes the outputs of one set of inputs, both in the order of
// [Session.Inputs] and [Session.Outputs]. An output with memory is written in
// place; one without gets it (see [Tensor]). It returns when the run is over,
// within one operator of ctx's end. Errors wrap [ErrTensor] where a tensor
// does not fit the model, [ErrClosed], or the cause of ctx; otherwise they are
// the library's.
func (s *Session) Run(ctx context.Context, in, out []Tensor) error {
	if err := s.run(ctx, in, out); err != nil {
		return fmt.Errorf("ort: run %s: %w", s.name, err)
	}
	return nil
}

func (s *Session) run(ctx context.Context, in, out []Tensor) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.core == nil {
		return ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	ins, outs, err := s.wrap(in, out, &pin)
	if err != nil {
		return err
	}
	defer ins.destroy()
	defer func() { outs.destroy() }()
	given := slices.Clone(outs)
	if err := s.core.call(ctx, ins, outs); err != nil {
		return err
	}
	for i := range out {
		if given[i] != nil {
			err = settle(&out[i], outs[i])
		} else {
			err = take(&out[i], outs[i])
		}
		if err != nil {
			return fmt.Errorf("output %s: %w", s.sig.out[i].Name, err)
		}
	}
	return nil
}

// call runs the library, told to stop when ctx ends.
func (c *core) call(ctx context.Context, ins, outs values) error {
	if ctx.Done() == nil {
		return c.session.Run(ins, outs)
	}
	ro, err := yalue.NewRunOptions()
	if err != nil {
		return err
	}
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		_ = ro.Terminate() // fails only on destroyed options, and those outlive this
	})
	err = c.session.RunWithOptions(ins, outs, ro)
	if !stop() {
		<-told
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return errors.Join(err, ro.Destroy())
}

// wrap checks the tensors and makes the library's views of them. Where an
// output has no memory its view is nil, unless the library cannot give one.
func (s *Session) wrap(in, out []Tensor, pin *runtime.Pinner) (ins, outs values, err error) {
	if len(in) != len(s.sig.in) || len(out) != len(s.sig.out) {
		return nil, nil, fmt.Errorf("%w: %d inputs and %d outputs given, it has %d and %d",
			ErrTensor, len(in), len(out), len(s.sig.in), len(s.sig.out))
	}
	ins, outs = make(values, len(in)), make(values, len(out))
	defer func() {
		if err != nil {
			ins.destroy()
			outs.destroy()
		}
	}()
	symbols := map[string]int64{}
	for i := range in {
		info := s.sig.in[i]
		if err := in[i].fits(info); err != nil {
			return nil, nil, fmt.Errorf("input %s: %w", info.Name, err)
		}
		if err := info.bind(symbols, in[i].Shape); err != nil {
			return nil, nil, fmt.Errorf("input %s: %w", info.Name, err)
		}
		t := in[i]
		if size := t.Type.Size(); size > 1 && !aligned(t.Data, size) {
			// A tensor cut out of a request's body may start anywhere.
			if t, err = New(t.Type, t.Shape...); err != nil {
				return nil, nil, err
			}
			copy(t.Data, in[i].Data)
		}
		if ins[i], err = wrap(&t, pin); err != nil {
			return nil, nil, fmt.Errorf("input %s: %w", info.Name, err)
		}
	}
	for i := range out {
		if outs[i], err = s.sig.out[i].place(symbols, &out[i], pin); err != nil {
			return nil, nil, fmt.Errorf("output %s: %w", s.sig.out[i].Name, err)
		}
	}
	return ins, outs, nil
}

// place makes the view of an output.
func (i Info) place(symbols map[string]int64, t *Tensor, pin *runtime.Pinner) (yalue.Value, error) {
	if t.Data == nil && t.Strings == nil {
		half := i.Type == Float16 || i.Type == BFloat16
		scalar := i.Shape != nil && len(i.Shape) == 0
		if !half && !scalar {
			return nil, nil
		}
		shape, ok := i.resolve(symbols)
		if !ok {
			return nil, fmt.Errorf("%w: a %s output of an open shape must be given memory", ErrTensor, i.Type)
		}
		var err error
		if *t, err = New(i.Type, shape...); err != nil {
			return nil, err
		}
	}
	if err := t.fits(i); err != nil {
		return nil, err
	}
	if size := t.Type.Size(); size > 1 && len(t.Data) > 0 && !aligned(t.Data, size) {
		return nil, fmt.Errorf("%w: its memory is not aligned to %d bytes", ErrTensor, size)
	}
	return wrap(t, pin)
}

// bind notes the extents that an input's shape gives to the symbols.
func (i Info) bind(symbols map[string]int64, shape []int64) error {
	for d, name := range i.Symbols {
		if name == "" {
			continue
		}
		if have, ok := symbols[name]; ok && have != shape[d] {
			return fmt.Errorf("%w: extent %s is %d here and %d in an earlier input", ErrTensor, name, shape[d], have)
		}
		symbols[name] = shape[d]
	}
	return nil
}

// resolve is the shape with the symbols' extents put in.
func (i Info) resolve(symbols map[string]int64) ([]int64, bool) {
	if i.Shape == nil {
		return nil, false
	}
	shape := slices.Clone(i.Shape)
	for d := range shape {
		if shape[d] >= 0 {
			continue
		}
		extent, ok := symbols[i.Symbols[d]]
		if !ok {
			return nil, false
		}
		shape[d] = extent
	}
	return shape, true
}

// Close waits for the runs in flight and frees the session and everything
// made by [Session.Fix]. A second Close does nothing.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.core == nil {
		return nil
	}
	s.cleanup.Stop()
	c := s.core
	s.core = nil
	if err := c.free(); err != nil {
		return fmt.Errorf("ort: close %s: %w", s.name, err)
	}
	return nil
}
