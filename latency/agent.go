package latency

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"sync"
	"time"
)

// Agent measures for others on the device that it runs on: it takes tasks one
// at a time, watches the device with a sentinel of its own, lets it cool, and
// says in each sample what was wrong. How tasks arrive is not its business:
// [Agent.Do], [Agent.Answer] and [Agent.Status] are for whatever brings them,
// and [Remote] is who asks. Nothing here reads a wall clock.
type Agent struct {
	Device  Device
	Version string        // of this program: askers of another are refused
	Every   int           // tasks between two looks at the sentinel; 0 means 16
	Idle    time.Duration // between two looks while there is nothing to do; 0 means a minute
	Drift   float64       // of the sentinel that counts, as a fraction; 0 means 0.03
	Pause   time.Duration // rest of a device that has drifted; 0 means 10 s. It is given three.
	Rest    time.Duration // before each task
	// CoolBelow is the temperature in °C below which a task may begin; 0 means
	// any. After CoolMost, 0 means two minutes, it begins all the same, and the
	// sample says so.
	CoolBelow float64
	CoolMost  time.Duration
	Root      fs.FS        // where /sys is read; nil means "/"
	Log       *slog.Logger // needed
	// Changed is called when the status has changed in a way that people would
	// want to hear of; a task that begins or ends is none. nil: nobody does.
	Changed func()

	once   sync.Once
	turn   chan struct{} // holds one token: who has it has the device
	broken chan error    // what makes Run end
	meter  Meter         // of the sentinel; with the turn

	mu     sync.Mutex
	status AgentStatus
	looked time.Time     // at the sentinel
	acted  time.Time     // anything at all
	resume chan struct{} // closed when the pause ends; nil while there is none

	since int  // tasks since the look; with the turn
	lost  bool // it has drifted for good, as far as resting could tell; with the turn
}

// sentinelONNX is a stem, inverted residuals and a classifier: what candidates
// are made of, in a size that takes half a millisecond or a few (testdata/models.py).
//
//go:embed sentinel.onnx
var sentinelONNX []byte

// BuiltinSentinel is a network to watch a device with where no other is at
// hand.
func BuiltinSentinel() Model { return Model{Name: "the sentinel", Bytes: sentinelONNX} }

func (a *Agent) init() {
	a.once.Do(func() {
		a.turn, a.broken = make(chan struct{}, 1), make(chan error, 1)
		a.turn <- struct{}{}
		a.meter = Meter{Runner: a.Device, Protocol: Screening(), Sentinel: &Sentinel{Model: BuiltinSentinel(), Drift: a.drift()}, Log: a.Log}
		a.acted = time.Now()
		a.status = AgentStatus{Version: a.Version, State: AgentIdle}
	})
}

func (a *Agent) drift() float64 { return cmp.Or(a.Drift, 0.03) }

func (a *Agent) root() fs.FS {
	if a.Root == nil {
		return os.DirFS("/")
	}
	return a.Root
}

// Run measures the sentinel, and again whenever the agent has been idle for
// long, until ctx ends (nil) or the device cannot measure at all.
func (a *Agent) Run(ctx context.Context) error {
	a.init()
	held, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // a task that breaks the device keeps it until ctx ends
		select {
		case err := <-a.broken:
			stop(err)
		case <-held.Done():
		}
	}()
	err := a.watch(held)
	if err == nil && ctx.Err() == nil {
		err = context.Cause(held)
	}
	return err
}

// watch is Run, in a ctx that ends also when the device breaks.
func (a *Agent) watch(ctx context.Context) error {
	if !a.hold(ctx) {
		return nil
	}
	fp, err := a.Device.Fingerprint(ctx, nil, Screening())
	if err == nil {
		a.change(func(s *AgentStatus) { fp.Model = ModelID{}; s.Fingerprint = fp })
		if a.meter.base == 0 { // a task may have come first
			err = a.look(ctx)
		}
	}
	a.letGo()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("latency: this device cannot measure its sentinel: %w", err)
	}
	for idle := cmp.Or(a.Idle, time.Minute); ; {
		a.mu.Lock()
		wait := idle - time.Since(a.acted)
		a.mu.Unlock()
		if wait <= 0 {
			if !a.hold(ctx) {
				return nil
			}
			a.lookAgain(ctx)
			a.letGo()
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Do does a task and returns the answer. What is wrong with the task or its
// model is an answer as well. An error comes only once ctx has ended: where the
// device itself is at fault, Run ends with it, and whoever calls both ends ctx.
func (a *Agent) Do(ctx context.Context, body, model []byte) ([]byte, error) {
	a.init()
	q, refusal := a.read(body)
	if refusal != nil {
		return json.Marshal(reply{Fault: refusal})
	}
	if !a.hold(ctx) {
		return nil, context.Cause(ctx)
	}
	defer a.letGo()
	if err := a.steady(ctx); err != nil {
		return nil, err
	}
	note, err := a.cool(ctx)
	if err != nil {
		return nil, err
	}
	a.enter(AgentMeasuring)
	r := q.answer(ctx, a.Device, model)
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if r.Fault != nil && errors.Is(r.Fault.cause, ErrChild) {
		a.fail(r.Fault.cause)
		<-ctx.Done() // for what is returned here would be an answer
		return nil, r.Fault.cause
	}
	if r.Sample != nil {
		if note != "" {
			r.Sample.Notes = append(r.Sample.Notes, note)
		}
		if a.drifted() {
			r.Sample.Notes = append(r.Sample.Notes, fmt.Sprintf("the device has drifted by %+.0f %% since its agent started", 100*(a.Status().Drift-1)))
		}
	}
	a.change(func(s *AgentStatus) { s.Tasks++ })
	a.since++
	return json.Marshal(r)
}

// Answer answers what needs no measurement: what the device is, and whether
// it shall pause.
func (a *Agent) Answer(ctx context.Context, body []byte) ([]byte, error) {
	a.init()
	q, refusal := a.read(body)
	switch {
	case refusal != nil:
		return json.Marshal(reply{Fault: refusal})
	case q.Pause != nil:
		a.pause(*q.Pause)
		return json.Marshal(reply{})
	}
	q.Describe = true
	return json.Marshal(q.answer(ctx, a.Device, nil))
}

func (a *Agent) read(body []byte) (q request, refusal *fault) {
	if err := json.Unmarshal(body, &q); err != nil {
		return q, &fault{Text: fmt.Sprintf("latency: the task is malformed: %v", err)}
	}
	if q.Version != a.Version {
		return q, &fault{Text: fmt.Sprintf("latency: the agent is version %s, who asks is version %s: install the same release on both", a.Version, q.Version)}
	}
	if err := q.Protocol.Session.CheckForeign(); err != nil {
		return q, &fault{Text: fmt.Sprintf("latency: %v: an agent takes none that may name a file, a library or memory of its device: leave it out, or measure on the device itself", err)}
	}
	return q, nil
}

// steady looks at the sentinel where it is time to, and lets a device that
// has drifted rest. One that does not come back is left alone until the next
// look: its samples say what they are.
func (a *Agent) steady(ctx context.Context) error {
	if a.meter.base != 0 && a.since < cmp.Or(a.Every, 16) && (a.lost || !a.drifted()) {
		return nil
	}
	a.lookAgain(ctx)
	for rests := 0; a.drifted() && !a.lost && rests < 3; rests++ {
		a.enter(AgentDrifted)
		if err := sleep(ctx, cmp.Or(a.Pause, 10*time.Second)); err != nil {
			return err
		}
		a.lookAgain(ctx)
	}
	a.lost = a.drifted()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (a *Agent) drifted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status.Drift != 0 && math.Abs(a.status.Drift-1) > a.drift()
}

// lookAgain is a look whose failure is only worth a word.
func (a *Agent) lookAgain(ctx context.Context) {
	if err := a.look(ctx); err != nil && ctx.Err() == nil {
		a.Log.Warn("the sentinel was not measured", "err", err)
	}
}

// look measures the sentinel; the first time is what later ones are held to.
func (a *Agent) look(ctx context.Context) error {
	a.enter(AgentMeasuring)
	a.since = 0
	var l Look
	var err error
	if a.meter.base != 0 {
		l, err = a.meter.look(ctx)
	} else if l, err = a.meter.glance(ctx, 3); err == nil {
		a.meter.base = l.P50
	}
	if err != nil {
		return err
	}
	before := a.drifted()
	a.change(func(s *AgentStatus) {
		s.Drift, s.Sentinel = l.Ratio, a.meter.base
		a.looked = time.Now()
	})
	if after := a.drifted(); after != before {
		a.Log.Warn("the device drifts", "drifted", after, "ratio", l.Ratio)
	}
	return nil
}

// cool rests, and waits for the device's temperature.
func (a *Agent) cool(ctx context.Context) (note string, err error) {
	if a.Rest > 0 {
		a.enter(AgentCooling)
		if err := sleep(ctx, a.Rest); err != nil {
			return "", err
		}
	}
	most := cmp.Or(a.CoolMost, 2*time.Minute)
	for start := time.Now(); a.CoolBelow > 0; {
		celsius, ok := hottest(a.root())
		if !ok || celsius < a.CoolBelow {
			break
		}
		if time.Since(start) >= most {
			return fmt.Sprintf("the device did not cool below %.0f °C within %v", a.CoolBelow, most), nil
		}
		a.enter(AgentCooling)
		if err := sleep(ctx, min(most, time.Second)); err != nil {
			return "", err
		}
	}
	return "", nil
}

// hold waits for the device, and for the end of a pause; false: ctx has ended.
func (a *Agent) hold(ctx context.Context) bool {
	for {
		select {
		case <-a.turn:
		case <-ctx.Done():
			return false
		}
		a.mu.Lock()
		resume := a.resume
		a.mu.Unlock()
		if resume == nil {
			return true
		}
		a.turn <- struct{}{}
		select {
		case <-resume:
		case <-ctx.Done():
			return false
		}
	}
}

func (a *Agent) letGo() {
	a.enter(AgentIdle)
	a.turn <- struct{}{}
}

// fail makes Run end.
func (a *Agent) fail(err error) {
	select {
	case a.broken <- err:
	default:
	}
}

// sleep is cut short, with its cause, when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
