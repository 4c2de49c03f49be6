package latency

import (
	"fmt"
	"slices"
	"time"
)

// Disturbance is what happened on the machine while a session warmed up and
// was timed: evidence, where a load average is a guess. Where the system does
// not tell, a field is zero. Processor times are the kernel's, in ticks of
// 10 ms.
type Disturbance struct {
	Window    time.Duration `json:"window_ns,omitempty"`   // how long was looked
	Others    int           `json:"others,omitempty"`      // processors that the session's threads were not bound to
	Busy      time.Duration `json:"busy_ns,omitempty"`     // work on those, all together
	Sibling   time.Duration `json:"sibling_ns,omitempty"`  // of it, on those that share a core with the session's
	Stolen    time.Duration `json:"stolen_ns,omitempty"`   // time that the hypervisor gave the session's processors to others
	Throttled int64         `json:"throttled,omitempty"`   // periods in which the control group had used up its quota
	Stopped   time.Duration `json:"stopped_ns,omitempty"`  // for which it was stopped therefore
	Heat      int64         `json:"heat,omitempty"`        // times that a processor slowed itself for heat
	Before    time.Duration `json:"spin_before,omitempty"` // a fixed piece of arithmetic, a measure of the clock alone
	After     time.Duration `json:"spin_after,omitempty"`  // and at the end
	Battery   bool          `json:"on_battery,omitempty"`  // the machine is not plugged in
}

// Contention is the part of the time for which the busiest of the other
// processors can have worked, from 0 to 1: with one other, just that.
func (d Disturbance) Contention() float64 {
	if d.Window <= 0 || d.Others == 0 {
		return 0
	}
	return min(1, max(0, float64(d.Busy)/float64(d.Window)))
}

// Where a warning starts, as fractions of the time.
const (
	warnBusy   = 0.20
	warnStolen = 0.01
	warnClock  = 0.05
)

// disturbances says in words what happened during the samples, each with the
// way out.
func disturbances(samples []Sample) []string {
	var w []string
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	var sum Disturbance
	var spins []time.Duration
	processors := 1
	for _, s := range samples {
		d := s.Disturbance
		sum.Window += d.Window
		sum.Busy += d.Busy
		sum.Sibling += d.Sibling
		sum.Stolen += d.Stolen
		sum.Throttled += d.Throttled
		sum.Stopped += d.Stopped
		sum.Heat += d.Heat
		sum.Battery = sum.Battery || d.Battery
		sum.Others = max(sum.Others, d.Others)
		processors = max(processors, len(s.Fingerprint.Session.Affinity))
		for _, spin := range []time.Duration{d.Before, d.After} {
			if spin > 0 {
				spins = append(spins, spin)
			}
		}
	}
	if sum.Throttled > 0 {
		add("the control group used up its quota %d times and was stopped for %d ms: raise it (cpu.max, --cpus) or lower threads",
			sum.Throttled, sum.Stopped.Milliseconds())
	}
	part := func(d time.Duration) float64 { return float64(d) / float64(max(sum.Window, 1)) }
	if p := part(sum.Stolen) / float64(processors); p > warnStolen {
		add("the hypervisor gave the processor to others for %.0f %% of the time: measure on a machine of its own, or at another time", 100*p)
	}
	switch busy := part(sum.Busy) / float64(max(sum.Others, 1)); {
	case part(sum.Sibling) > warnBusy:
		add("other work ran on the same core's other thread for about %d %% of the time: stop it; the interval is wider for it", tens(part(sum.Sibling)))
	case busy > warnBusy || sum.Contention() > 0.5:
		add("other work kept the other processors about %d %% busy, which takes caches and memory bandwidth: stop it; the interval is wider for it", tens(busy))
	}
	if sum.Heat > 0 {
		add("a processor slowed itself for heat %d times: cool it, and let it rest between sessions", sum.Heat)
	}
	if sum.Battery {
		add("the machine runs on its battery: plug it in, or times follow its power plan")
	}
	if len(spins) > 1 {
		if change := float64(slices.Max(spins))/float64(slices.Min(spins)) - 1; change > warnClock {
			add("the processor's clock changed by %.0f %%: set the governor \"performance\" or fix the clock, let it cool, stop other work", 100*change)
		}
	}
	return w
}

// tens is a part in percent, rounded to tens: few warnings then differ.
func tens(part float64) int { return 10 * int(10*min(1, part)+0.5) }

// spin times a fixed chain of dependent multiplications: it waits for no
// memory and shares no unit for long, so that it follows the clock alone. The
// least of several, as an interrupt only adds.
func spin() time.Duration {
	const links, tries = 20_000, 5
	least := time.Duration(1 << 62)
	for range tries {
		x := uint64(1)
		start := time.Now()
		for range links {
			x = x*6364136223846793005 + 1442695040888963407
		}
		d := time.Since(start)
		if x == 0 { // keeps the chain: it is never 0 after this many
			d = 0
		}
		least = min(least, d)
	}
	return least
}
