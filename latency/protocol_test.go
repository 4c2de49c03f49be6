package latency_test

import (
	"strings"
	"testing"
	"time"

	"spos/internal/ort"
	"spos/latency"
)

func TestPresets(t *testing.T) {
	s, c := latency.Screening(), latency.Confirmation()
	for name, p := range map[string]latency.Protocol{"screening": s, "confirmation": c} {
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Sessions != 1 || s.Runs != 20 || s.MinTime != 30*time.Millisecond || c.Sessions != 6 || c.Runs != 40 {
		t.Errorf("presets are %d×%d within %v and %d×%d", s.Sessions, s.Runs, s.MinTime, c.Sessions, c.Runs)
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*latency.Protocol){
		"mode":       func(p *latency.Protocol) { p.Mode = "warm" },
		"gap":        func(p *latency.Protocol) { p.Mode, p.Gap = latency.Paced, 0 },
		"batch":      func(p *latency.Protocol) { p.Batch = 0 },
		"dims":       func(p *latency.Protocol) { p.Dims = map[string]int64{"n": 0} },
		"threads":    func(p *latency.Protocol) { p.Threads = 0 },
		"intra_op":   func(p *latency.Protocol) { p.Session.IntraOp = 2 },
		"session":    func(p *latency.Protocol) { p.Session.GraphLevel = ort.GraphLevel("most") },
		"warmup_max": func(p *latency.Protocol) { p.WarmupMax = 1 },
		"settle":     func(p *latency.Protocol) { p.Settle = 2 },
		"runs":       func(p *latency.Protocol) { p.Runs = latency.MaxRuns + 1 },
		"min_time":   func(p *latency.Protocol) { p.MinTime = -1 },
		"sessions":   func(p *latency.Protocol) { p.Sessions = 0 },
		"spread":     func(p *latency.Protocol) { p.Spread = 1 },
	} {
		p := latency.Screening()
		change(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Validate() = %v, want an error that names it", want, err)
		}
	}
}
