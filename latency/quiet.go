package latency

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"spos/internal/ort"
)

// Reference is how fast the machine was around a session, by a model that is
// always the same. A guest cannot see its neighbour on the other thread of a
// core, which takes a fifth of its speed for tens of seconds and leaves the
// clock as it is; a convolution notices. Zero where it was not looked.
type Reference struct {
	Quiet  time.Duration `json:"quiet_ns,omitempty"`  // the model's time on this machine undisturbed, as far as known then
	Before time.Duration `json:"before_ns,omitempty"` // before the warm-up
	After  time.Duration `json:"after_ns,omitempty"`  // after the last run
	Waited time.Duration `json:"waited_ns,omitempty"` // for the machine to be quiet: see [Protocol.Patience]
}

// slowdown is the machine's time over its quiet one, 1 where nothing is known.
func (r Reference) slowdown(quiet time.Duration) float64 {
	if quiet <= 0 {
		return 1
	}
	return max(1, float64(max(r.Before, r.After))/float64(quiet))
}

const (
	loud      = 1.05 // the slowdown that counts: sessions of the reference differ by 2 %
	glances   = 5    // runs of the reference at a look
	refill    = 4    // and before them, for the caches
	lookAgain = 20 * time.Millisecond
	// A machine that has not been quiet while this was waited for has become
	// slower: what it does now is its speed.
	resign     = time.Minute
	quietKnown = 3              // times: one that is least by chance is not believed
	quietAge   = 24 * time.Hour // after which it is learnt anew
)

// gauge runs the reference for a [Local].
type gauge struct {
	run    func(times []time.Duration) error
	path   string // where it is kept, "" nowhere
	key    string
	least  []time.Duration // up to quietKnown, in order
	waited time.Duration   // in vain, since it was last quiet
	sweep  sweep           // nil until needed
	usual  time.Duration   // of the sweep
	sweeps int             // that it is over
}

// quietFile is what processes of one machine tell each other.
type quietFile map[string]quietLine

type quietLine struct {
	Least  []time.Duration `json:"least_ns"`
	At     time.Time       `json:"at"`
	Usual  time.Duration   `json:"memory_usual_ns,omitempty"`
	Sweeps int             `json:"memory_looks,omitempty"`
}

// newGauge makes the reference's session, which lives as long as the program.
func newGauge(rt *ort.Runtime, fp Fingerprint, path string) (*gauge, error) {
	s, err := rt.NewSession(sentinelONNX, ort.Options{Name: "the reference"})
	if err != nil {
		return nil, fmt.Errorf("latency: %w", err)
	}
	var sample Sample
	fixed, err := fix(s, Screening(), &sample)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(fmt.Append(nil, fp.Host, fp.Session.Runtime, fp.Session.Build))
	g := &gauge{path: path, key: hex.EncodeToString(sum[:12])}
	g.run = func(times []time.Duration) error { return fixed.Time(times, 0, nil) }
	g.recall()
	return g, nil
}

// recall reads what other processes have found out.
func (g *gauge) recall() {
	line := readQuiet(g.path)[g.key]
	if time.Since(line.At).Abs() < quietAge && len(line.Least) <= quietKnown && slices.IsSorted(line.Least) {
		g.least = line.Least
		g.usual, g.sweeps = line.Usual, min(max(0, line.Sweeps), lately)
	}
}

// readQuiet reads the file; one that cannot be read knows nothing.
func readQuiet(path string) quietFile {
	known := quietFile{}
	text, err := os.ReadFile(path)
	if err != nil || len(text) > 1<<20 || json.Unmarshal(text, &known) != nil {
		return quietFile{}
	}
	return known
}

// quiet is the reference's time on the machine undisturbed, 0 where it was
// looked less than quietKnown times.
func (g *gauge) quiet() time.Duration {
	if len(g.least) < quietKnown {
		return 0
	}
	return g.least[quietKnown-1]
}

// look is the reference's time now.
func (g *gauge) look() (time.Duration, error) {
	times := make([]time.Duration, refill+glances)
	if err := g.run(times); err != nil {
		return 0, fmt.Errorf("latency: the reference: %w", err)
	}
	now := time.Duration(median(times[refill:]))
	g.learn(now)
	return now, nil
}

// learn keeps a time that is among the least that any process has seen.
func (g *gauge) learn(now time.Duration) {
	g.recall()
	if len(g.least) == quietKnown && now >= g.least[quietKnown-1] {
		return
	}
	g.least = append(g.least, now)
	slices.Sort(g.least)
	g.least = g.least[:min(len(g.least), quietKnown)]
	g.tell()
}

// tell writes what is known for other processes. It is of no consequence where
// that is not possible.
func (g *gauge) tell() {
	if g.path == "" {
		return
	}
	known := readQuiet(g.path)
	for key, line := range known {
		if time.Since(line.At) > quietAge {
			delete(known, key)
		}
	}
	known[g.key] = quietLine{g.least, time.Now().Round(0).UTC(), g.usual, g.sweeps}
	if text, err := json.Marshal(known); err == nil {
		_ = renameio.WriteFile(g.path, append(text, '\n'), 0o600)
	}
}

// await waits until the machine is quiet, for patience at most.
func (g *gauge) await(ctx context.Context, patience time.Duration) (r Reference, err error) {
	start := time.Now()
	for {
		if r.Before, err = g.look(); err != nil {
			return r, err
		}
		r.Quiet, r.Waited = g.quiet(), time.Since(start)
		if r.slowdown(r.Quiet) <= loud {
			g.waited = 0
			return r, nil
		}
		if r.Waited >= patience {
			break
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return r, context.Cause(ctx)
		}
	}
	if g.waited += r.Waited; g.waited > resign {
		g.waited, g.least = 0, nil
		g.tell() // or what others know would be learnt again
		g.learn(r.Before)
	}
	return r, nil
}

// memory passes over the memory.
func (g *gauge) memory(cache int) time.Duration {
	if g.sweep == nil {
		g.sweep = newSweep(cache)
	}
	return g.sweep.look()
}

// remember keeps what looks took for what is usual.
func (g *gauge) remember(looks ...time.Duration) {
	g.recall()
	if g.usual <= 0 {
		g.sweeps = 0
	}
	for _, now := range looks {
		g.usual = average(g.usual, now, g.sweeps)
		g.sweeps = min(g.sweeps+1, lately)
	}
	g.tell()
}
