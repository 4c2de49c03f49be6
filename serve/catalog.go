package serve

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// State is where a version of a model is in its life, under its name in the protocol.
type State string

// The states. A version that is replaced by another of the same number stays READY throughout.
const (
	StateUnknown     State = "UNKNOWN" // not loaded, and will be when first asked for
	StateLoading     State = "LOADING"
	StateReady       State = "READY"
	StateUnloading   State = "UNLOADING" // takes no more requests, finishes those that it has
	StateUnavailable State = "UNAVAILABLE"
)

// catalog is a snapshot of all models. It is never changed, only replaced, so that requests read it without a lock.
type catalog map[string]*entry

// entry is one name in a catalog. Like it, an entry is never changed.
type entry struct {
	slots map[string]*slot
	// order holds the versions that answer requests which name none, the highest first: the first one that is ready
	// does, so that a new version takes over when it is, and a broken one never.
	order []*slot
	// labels are further names of versions.
	labels map[string]string
	off    bool // unloaded by hand: only a load by hand brings it back
}

// slot is the place of one version of a name. It outlives what is loaded into it.
type slot struct {
	name, version string
	stats         stats

	live atomic.Pointer[version] // what answers; nil while nothing does
	turn chan struct{}           // holds one token; who has it may load, replace and unload

	mu       sync.Mutex
	state    State // while live is nil
	reason   string
	err      error // why live is nil, or nil
	tried    time.Time
	revision string // of the content that was loaded, or could not be
	lazy     bool   // loaded when first asked for
	out      bool   // left out by the model's policy
	gone     bool   // not in the catalog any more: nothing is loaded into it
	draining chan struct{}
}

func newSlot(name, version string) *slot {
	return &slot{name: name, version: version, turn: make(chan struct{}, 1), state: StateUnknown}
}

// acquire returns what is loaded, held until release, or nil.
func (sl *slot) acquire() *version {
	for {
		v := sl.live.Load()
		if v == nil || v.acquire() {
			return v
		}
		// It was replaced after it was read.
	}
}

// status is the state and its reason.
func (sl *slot) status() (State, string) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.live.Load() != nil {
		return StateReady, sl.reason
	}
	return sl.state, sl.reason
}

// note sets what status says.
func (sl *slot) note(state State, reason string) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.state, sl.reason = state, reason
}

// version is one loaded model.
type version struct {
	info  ModelInfo
	model Model
	gate  gate
	// batcher is nil where requests are run one by one.
	batcher *batcher
	met     *modelMetrics
	stats   *stats
	// differs are the conditions under which the promise of its latency was measured, and that are others here.
	differs []string

	refs atomic.Int64  // one of the slot's, and one of each request
	idle chan struct{} // closed when the last is given back
}

// acquire takes a reference, unless the last was given back already.
func (v *version) acquire() bool {
	for {
		n := v.refs.Load()
		if n == 0 {
			return false
		}
		if v.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release gives a reference back. What it was taken for must be over.
func (v *version) release() {
	if v.refs.Add(-1) == 0 {
		close(v.idle)
	}
}

// find is the slot of a version or a label; nil when there is none.
func (e *entry) find(version string) *slot {
	if sl := e.slots[version]; sl != nil {
		return sl
	}
	if to, ok := e.labels[version]; ok {
		return e.slots[to]
	}
	return nil
}

// list is the versions that can be asked for, ascending.
func (e *entry) list() []string {
	var vs []string
	for v, sl := range e.slots {
		if state, _ := sl.status(); state != StateUnavailable && state != StateUnloading {
			vs = append(vs, v)
		}
	}
	slices.SortFunc(vs, compareVersions)
	return vs
}

// sorted is all slots, ascending.
func (e *entry) sorted() []*slot {
	all := make([]*slot, 0, len(e.slots))
	for _, sl := range e.slots {
		all = append(all, sl)
	}
	slices.SortFunc(all, func(a, b *slot) int { return compareVersions(a.version, b.version) })
	return all
}

// sorted is the names in order.
func (c catalog) sorted() []string {
	names := make([]string, 0, len(c))
	for name := range c {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// compareVersions orders numeric versions by number, and before others, which it orders as text.
func compareVersions(a, b string) int {
	switch na, nb := isNumber(a), isNumber(b); {
	case na && nb && len(a) != len(b):
		return len(a) - len(b)
	case na != nb:
		if na {
			return -1
		}
		return 1
	}
	return cmp.Compare(a, b)
}

// isNumber reports a decimal number without needless zeros.
func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != "" && (s[0] != '0' || s == "0")
}
