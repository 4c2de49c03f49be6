package latency

import (
	"encoding/json"
	"errors"
	"time"
)

// AgentState is what an agent is doing.
type AgentState string

// The states.
const (
	AgentIdle      AgentState = "idle"
	AgentMeasuring AgentState = "measuring" // a task or the sentinel
	AgentCooling   AgentState = "cooling"   // resting before a task
	AgentDrifted   AgentState = "drifted"   // resting, for the sentinel's time has changed
	AgentPaused    AgentState = "paused"    // as it was asked to be
)

// AgentStatus is what an agent says of itself.
type AgentStatus struct {
	Version     string        `json:"version"`
	State       AgentState    `json:"state"`
	Fingerprint Fingerprint   `json:"fingerprint"`           // of a screening measurement, without a model
	Tasks       int           `json:"tasks"`                 // answered since it started
	Drift       float64       `json:"drift,omitempty"`       // the sentinel's last time over its first; 0: not looked yet
	LookedAgo   time.Duration `json:"looked_ago_ns"`         // how long ago that was
	Sentinel    time.Duration `json:"sentinel_ns,omitempty"` // its first time: how fast the device is
	Celsius     float64       `json:"celsius,omitempty"`     // its hottest zone, where it says
}

// ParseStatus reads what an agent has announced, without characters that a
// terminal would obey. What no agent wrote is an error.
func ParseStatus(text []byte) (AgentStatus, error) {
	var s AgentStatus
	if err := json.Unmarshal(text, &s); err != nil {
		return AgentStatus{}, err
	}
	if s.Version == "" {
		return AgentStatus{}, errors.New("latency: no agent's status")
	}
	clean(&s)
	return s, nil
}

// Status may be asked for at any time.
func (a *Agent) Status() AgentStatus {
	a.init()
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.status
	if !a.looked.IsZero() {
		s.LookedAgo = time.Since(a.looked)
	}
	if a.resume != nil && s.State == AgentIdle {
		s.State = AgentPaused
	}
	s.Celsius, _ = hottest(a.root())
	return s
}

func (a *Agent) pause(on bool) {
	a.mu.Lock()
	switch {
	case on && a.resume == nil:
		a.resume = make(chan struct{})
	case !on && a.resume != nil:
		close(a.resume)
		a.resume = nil
	}
	a.mu.Unlock()
	if a.Changed != nil {
		a.Changed()
	}
}

func (a *Agent) enter(s AgentState) {
	a.change(func(status *AgentStatus) { status.State = s })
}

func (a *Agent) change(f func(*AgentStatus)) {
	a.mu.Lock()
	before := a.status
	f(&a.status)
	a.acted = time.Now()
	rests := resting(before.State) || resting(a.status.State)
	news := rests && a.status.State != before.State || a.status.Drift != before.Drift || a.status.Fingerprint.Key() != before.Fingerprint.Key()
	a.mu.Unlock()
	if news && a.Changed != nil {
		a.Changed()
	}
}

func resting(s AgentState) bool { return s == AgentCooling || s == AgentDrifted || s == AgentPaused }
