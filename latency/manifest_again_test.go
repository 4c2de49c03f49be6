package latency

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"spos/internal/ort"
)

// manifestOf is what a file says of a measurement under p.
func manifestOf(t *testing.T, p Protocol, change func(*Manifest)) Manifest {
	t.Helper()
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	r := Result{Estimate: Estimate{P50: 2e6, Low: 1e6, High: 3e6}, Mode: p.Mode, Fingerprint: Fingerprint{Session: setting("1", "b", p, nil)}}
	m := NewManifest(r, p, 0)
	change(&m)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseManifest(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return back
}

// TestAgain: what a file promises is measured again under all that its number
// depends on.
func TestAgain(t *testing.T) {
	for name, change := range map[string]func(*Protocol){
		"as ever":    func(*Protocol) {},
		"cold":       func(p *Protocol) { p.Mode, p.Batch = Cold, 8 },
		"paced":      func(p *Protocol) { p.Mode, p.Gap = Paced, 50*time.Millisecond },
		"dimensions": func(p *Protocol) { p.Dims = map[string]int64{"length": 128} },
		"threads":    func(p *Protocol) { p.Threads, p.Session.Spinning = 2, new(false) },
		"spinning":   func(p *Protocol) { p.Threads, p.Session.Spinning = 2, new(true) },
		"a provider": func(p *Protocol) {
			p.Session.Provider, p.Session.ProviderConfig, p.Fallback = "openvino", map[string]string{"device_type": "GPU"}, 0.25
		},
		"a session": func(p *Protocol) {
			p.Session = ort.Options{
				GraphLevel: ort.LevelBasic, InterOp: 2, NoArena: true, NoMemPattern: true, DenormalAsZero: true,
				Config: map[string]string{"session.disable_prepacking": "1"},
			}
		},
	} {
		p := Confirmation()
		change(&p)
		again, err := manifestOf(t, p, func(*Manifest) {}).Again()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(setting("1", "b", p, nil), setting("1", "b", again, nil), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: another session (-then +now):\n%s", name, d)
		}
		if d := cmp.Diff(p.Dims, again.Dims, cmpopts.EquateEmpty()); d != "" || again.Fallback != p.Fallback {
			t.Errorf("%s: dimensions (-then +now) %s, fallback %v and now %v", name, d, p.Fallback, again.Fallback)
		}
	}
}

// TestAgainRefuses: what a file does not tell is not guessed, and it is not
// obeyed in everything.
func TestAgainRefuses(t *testing.T) {
	p := Confirmation()
	p.Mode = Paced
	for want, change := range map[string]func(*Manifest){
		"how long the machine was idle": func(m *Manifest) { m.Gap = 0 },
		"option backend_path=evil.so": func(m *Manifest) {
			m.Conditions["provider"], m.Conditions["option.provider.backend_path"] = "qnn", "evil.so"
		},
		"session entry ep.context_enable=1":   func(m *Manifest) { m.Conditions["option.ep.context_enable"] = "1" },
		"dims: length: -1 is below 1":         func(m *Manifest) { m.Dims["length"] = -1 },
		"fallback: 2 is not a fraction":       func(m *Manifest) { m.Fallback = 2 },
		"graph_level: \"most\" is not one of": func(m *Manifest) { m.Conditions["graph_level"] = "most" },
	} {
		if _, err := manifestOf(t, p, change).Again(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
