package serve

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Promise is what a model's file says of the latency of one run: measured on some machine, it holds where the
// conditions are the same. Times are milliseconds, as in the file.
type Promise struct {
	P50  float64 `json:"p50_ms"`
	Low  float64 `json:"low_ms"` // 95 % interval of P50
	High float64 `json:"high_ms"`
	// Limit is what it was to stay below; 0: nothing.
	Limit float64 `json:"limit_ms,omitempty"`
	// Batch is the first dimension of the runs that were timed.
	Batch int64 `json:"batch"`
	// Fingerprint names Conditions in one short string.
	Fingerprint string            `json:"fingerprint,omitempty"`
	Conditions  map[string]string `json:"conditions,omitempty"`
}

// promiseProtocol is the form of a promise that is understood.
const promiseProtocol = 1

// readPromise reads a file's metadata. A promise of another protocol is none: the model is as good without.
func readPromise(text string) (*Promise, error) {
	var p struct {
		Protocol int `json:"protocol"`
		Promise
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, err
	}
	if p.Protocol != promiseProtocol {
		return nil, nil
	}
	if !(0 < p.Low && p.Low <= p.P50 && p.P50 <= p.High) || p.Batch < 1 || p.Limit < 0 {
		return nil, errors.New("its numbers are no interval around a median")
	}
	return &p.Promise, nil
}

// later are conditions that the first promises did not name: of a promise without one it is not known what it was.
var later = []string{"build", "huge_pages", "smt"}

// Differing are the names, in order, of conditions that are not here what they were there, where a promise was measured.
// Where it names none, nothing is known.
func Differing(there, here map[string]string) []string {
	if len(there) == 0 {
		return nil
	}
	all := maps.Clone(there)
	maps.Copy(all, here)
	names := slices.Sorted(maps.Keys(all))
	return slices.DeleteFunc(names, func(name string) bool {
		_, named := there[name]
		return here[name] == there[name] || !named && slices.Contains(later, name)
	})
}

// hold compares the promise of a version that was loaded with this machine.
func (s *Server) hold(v *version) {
	p := v.info.Promise
	if p == nil || s.opt.Conditions == nil {
		return
	}
	here := s.opt.Conditions(v.info.Threads)
	if v.differs = Differing(p.Conditions, here); len(v.differs) == 0 {
		return
	}
	told := make([]string, len(v.differs))
	for i, name := range v.differs {
		told[i] = fmt.Sprintf("%s: %s there, %s here", name, cmp.Or(short(p.Conditions[name]), "none"), cmp.Or(here[name], "none"))
	}
	s.opt.Logger.Warn("the model's latency was measured under other conditions: measure it here with `latency measure --store`",
		"model", v.info.Name, "version", v.info.Version, "differs", strings.Join(told, "; "))
}
