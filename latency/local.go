package latency

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"spos/internal/ort"
)

// Local times models in this process. One session is timed at a time, whatever
// the number of callers and of processes: two would disturb each other, bound
// to one processor as they are. The zero value lacks only Runtime.
type Local struct {
	Runtime *ort.Runtime
	// CPUs are the processors to bind to, the timing thread's first. Nil means
	// the last ones allowed: the first tends to serve interrupts, and on
	// processors of two kinds the last is usually of the faster.
	CPUs []int
	// Root is where /proc and /sys are read; nil means "/".
	Root fs.FS
	// Lock is the file by which the processes of this machine take turns. ""
	// means a file for each processor that is bound to, of all where none is,
	// in the directory for temporary files: who measures on other processors is
	// not waited for. Where a file cannot be made, nobody is.
	Lock string
	// Quiet is the file in which the processes of this machine tell each other
	// how fast it is when nothing disturbs it: see [Reference]. "" means that
	// each finds out for itself.
	Quiet string

	mu     sync.Mutex
	gauge  *gauge                    // nil until needed
	placed map[string]*ort.Placement // what [Local.place] has found
}

func (l *Local) root() fs.FS {
	if l.Root == nil {
		return os.DirFS("/")
	}
	return l.Root
}

// cpus is where the threads of p are to be bound; nil where not at all.
func (l *Local) cpus(p Protocol) ([]int, error) {
	if !p.Pin {
		return nil, nil
	}
	cpus := slices.Clone(l.CPUs)
	if cpus == nil {
		cpus = allowed()
		slices.Reverse(cpus)
	}
	if cpus == nil {
		return nil, nil // not a system that binds
	}
	if len(cpus) < p.Threads {
		return nil, fmt.Errorf("latency: %d threads cannot be bound to %d processors: lower threads or set pin: false",
			p.Threads, len(cpus))
	}
	return cpus[:p.Threads], nil
}

// locks are the files that a measurement holds, in the same order everywhere,
// so that two cannot wait for each other.
func (l *Local) locks(cpus []int) []string {
	if l.Lock != "" {
		return []string{l.Lock}
	}
	if cpus == nil {
		cpus = allowed()
	}
	var files []string
	for _, cpu := range slices.Sorted(slices.Values(cpus)) {
		files = append(files, filepath.Join(os.TempDir(), fmt.Sprintf("spos-latency-%d.lock", cpu)))
	}
	return files
}

// turns is [turn] for several files.
func turns(ctx context.Context, files []string) (release func(), err error) {
	var held []func()
	release = func() {
		for _, r := range held {
			r()
		}
	}
	for _, file := range files {
		r, err := turn(ctx, file)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, r)
	}
	return release, nil
}

// Fingerprint implements [Describer]. It does not load the model: opset and
// inputs stay empty.
func (l *Local) Fingerprint(_ context.Context, model []byte, p Protocol) (Fingerprint, error) {
	if err := p.Validate(); err != nil {
		return Fingerprint{}, err
	}
	cpus, err := l.cpus(p)
	if err != nil {
		return Fingerprint{}, err
	}
	return Fingerprint{Host: readHost(l.root()), Session: setting(l.Runtime.Version(), l.Runtime.Build(), p, cpus), Model: identify(model)}, nil
}

// Time implements [Runner]. The timing goroutine has its thread to itself,
// bound and with priority as p asks and given back as it was; the collector
// has run before and does not run meanwhile; nothing is allocated between
// runs.
func (l *Local) Time(ctx context.Context, t Task) (Sample, error) {
	model, p := t.Model, t.Protocol
	fp, err := l.Fingerprint(ctx, model, p)
	if err != nil {
		return Sample{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	release, err := turns(ctx, l.locks(fp.Session.Affinity))
	if err != nil {
		return Sample{}, err
	}
	defer release()
	s := Sample{Fingerprint: fp, Load: loadAverage(l.root())}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	o := p.options()
	if cpus := fp.Session.Affinity; cpus != nil {
		mine := cpus[:1]
		if o.OwnPool() {
			mine = cpus // whose threads are bound as the one that makes them
		}
		undo, err := bind(mine...)
		if err != nil {
			return Sample{}, fmt.Errorf("latency: %w: choose other processors or set pin: false", err)
		}
		defer undo()
		s.Pinned = true
		o = bound(o, cpus)
	}
	if p.Priority {
		defer favour()()
	}

	unplaced, err := l.locate(model, p, o, &s)
	if err != nil {
		return Sample{}, err
	}
	start := time.Now()
	s.Started = start.Round(0).UTC() // a wall clock, as it is read back
	session, err := l.Runtime.NewSession(model, strict(o, s.Placement))
	if err != nil {
		return Sample{}, modelFault(NoLoad, err)
	}
	defer session.Close()
	s.Create = time.Since(start)
	fixed, err := fix(session, p, &s)
	if err != nil {
		return Sample{}, err
	}
	defer fixed.Close()
	if unplaced != nil { // and it is not for the model
		return Sample{}, unplaced
	}

	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	if err := l.timed(ctx, fixed, p, heavy(len(model), lastLevelCache(l.root())), &s); err != nil {
		if ctx.Err() != nil {
			return Sample{}, fmt.Errorf("latency: time %s: %w", session.Name(), err)
		}
		return Sample{}, modelFault(NoRun, err)
	}
	return s, nil
}

// timed warms up and times the model; around a heavy one it looks at the memory.
func (l *Local) timed(ctx context.Context, fixed *ort.Fixed, p Protocol, heavy bool, s *Sample) (err error) {
	var idle time.Duration
	var evict []byte
	switch p.Mode {
	case Paced:
		idle = p.Gap
	case Cold:
		// Twice the last cache, so that nothing of the model stays in it.
		evict = make([]byte, max(64<<20, 2*lastLevelCache(l.root())))
	}
	loop := loop{func(times []time.Duration) error { return fixed.Time(times, idle, evict) }}
	if s.Reference, err = l.await(ctx, p, s.Fingerprint); err != nil {
		return err
	}
	sweeps := heavy && s.Reference != (Reference{})
	if sweeps {
		s.Memory.Before = l.gauge.memory(lastLevelCache(l.root()))
	}
	at, clock := count(l.root()), spin()
	defer func() {
		end := spin()
		s.Disturbance = count(l.root()).since(at, s.Fingerprint.Session.Affinity, l.root())
		s.Disturbance.Before, s.Disturbance.After = clock, end
		if err == nil && sweeps {
			if !s.besideWork() {
				l.gauge.remember(s.Memory.Before, s.Memory.After)
			}
			s.Memory.Usual = l.gauge.usual
		}
	}()
	if s.Warmup, s.Settled, err = loop.warm(ctx, p); err != nil {
		return err
	}
	each := typical(s.Warmup)
	s.Runs = make([]time.Duration, p.runs(each))
	before := preemptions()
	err = loop.measure(ctx, s.Runs, each+idle)
	s.Preempted = preemptions() - before
	if err == nil && s.Reference != (Reference{}) {
		s.Reference.After, err = l.gauge.look()
	}
	if err == nil && sweeps {
		s.Memory.After = l.gauge.memory(lastLevelCache(l.root()))
	}
	return err
}

// await waits for a quiet machine as far as p has patience. Only the
// processor's own provider, on one thread, is what the reference is like.
func (l *Local) await(ctx context.Context, p Protocol, fp Fingerprint) (r Reference, err error) {
	if fp.Session.Provider != ort.CPU || p.Threads > 1 {
		return r, nil
	}
	if l.gauge == nil {
		if l.gauge, err = newGauge(l.Runtime, fp, l.Quiet); err != nil {
			return r, err
		}
	}
	return l.gauge.await(ctx, p.Patience)
}

// bound tells the library where its own threads belong: it counts processors
// from 1 and leaves the calling thread to us.
func bound(o ort.Options, cpus []int) ort.Options {
	const key = "session.intra_op_thread_affinities"
	if len(cpus) < 2 || o.Config[key] != "" {
		return o
	}
	ids := make([]string, len(cpus)-1)
	for i, cpu := range cpus[1:] {
		ids[i] = strconv.Itoa(cpu + 1)
	}
	return configured(o, key, strings.Join(ids, ";"))
}

// configured sets a session entry where the caller has not.
func configured(o ort.Options, key, value string) ort.Options {
	config := map[string]string{key: value}
	maps.Copy(config, o.Config)
	o.Config = config
	return o
}

// fix makes the model's inputs and binds the session to them.
func fix(session *ort.Session, p Protocol, s *Sample) (*ort.Fixed, error) {
	infos := session.Inputs()
	shapes, notes := inputShapes(infos, p)
	in := make([]ort.Tensor, len(infos))
	for i, info := range infos {
		t, err := ort.New(info.Type, shapes[i]...)
		if err == nil {
			err = fill(t, uint64(i))
		}
		if err != nil {
			return nil, modelFault(NoInput, fmt.Errorf("input %s: %w", info.Name, err))
		}
		in[i] = t
	}
	s.Notes = notes
	s.Fingerprint.Model.Opset = session.Opset()
	if t := session.Weights(); t != ort.Undefined {
		s.Fingerprint.Model.DType = t.String()
	}
	s.Fingerprint.Model.Inputs = describe(infos, shapes)
	fixed, err := session.Fix(in, make([]ort.Tensor, len(session.Outputs())))
	if err != nil {
		return nil, modelFault(NoRun, err)
	}
	return fixed, nil
}

// inputShapes fills in what a model leaves free, and says so.
func inputShapes(infos []ort.Info, p Protocol) (shapes [][]int64, notes []string) {
	shapes = make([][]int64, len(infos))
	for i, info := range infos {
		shapes[i] = slices.Clone(info.Shape)
		for d, n := range shapes[i] {
			if n >= 0 {
				if d == 0 && len(shapes[i]) > 1 && n != int64(p.Batch) {
					notes = append(notes, fmt.Sprintf("input %s has the fixed first dimension %d, a batch of %d was asked for", info.Name, n, p.Batch))
				}
				continue
			}
			named, ok := p.Dims[info.Symbols[d]]
			switch {
			case ok:
				shapes[i][d] = named
			case d == 0:
				shapes[i][d] = int64(p.Batch)
			default:
				shapes[i][d] = 1
				name := info.Symbols[d]
				if name == "" {
					name = strconv.Itoa(d)
				}
				notes = append(notes, fmt.Sprintf("input %s: free dimension %s taken as 1", info.Name, name))
			}
		}
	}
	return shapes, notes
}

// fill writes fixed, non-constant numbers: reals in [-1, 1), and 0 and 1 in
// integers, which may be indices into anything.
func fill(t ort.Tensor, seed uint64) error {
	rng := rand.New(rand.NewPCG(1, seed))
	size := t.Type.Size()
	put := func(x float64, b []byte) { b[0] = byte(rng.Uint64() & 1) }
	switch t.Type {
	case ort.String:
		return fmt.Errorf("%w: strings cannot be made up", ort.ErrTensor)
	case ort.Float16:
		put = func(x float64, b []byte) { binary.NativeEndian.PutUint16(b, half(x)) }
	case ort.BFloat16:
		put = func(x float64, b []byte) { binary.NativeEndian.PutUint16(b, uint16(math.Float32bits(float32(x))>>16)) }
	case ort.Float32:
		put = func(x float64, b []byte) { binary.NativeEndian.PutUint32(b, math.Float32bits(float32(x))) }
	case ort.Float64:
		put = func(x float64, b []byte) { binary.NativeEndian.PutUint64(b, math.Float64bits(x)) }
	}
	for i := 0; i < len(t.Data); i += size {
		put(2*rng.Float64()-1, t.Data[i:i+size])
	}
	return nil
}

// half is x, in (-2, 2), as IEEE binary16, cut to multiples of 1/1024 at
// least: enough for made-up numbers.
func half(x float64) uint16 {
	var sign uint16
	if x < 0 {
		sign, x = 1<<15, -x
	}
	if x < 1.0/1024 {
		return sign
	}
	fraction, exponent := math.Frexp(x) // x = fraction·2^exponent, fraction in [½, 1)
	return sign | uint16(exponent-1+15)<<10 | uint16((fraction*2-1)*1024)
}
