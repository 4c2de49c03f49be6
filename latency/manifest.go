package latency

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"spos/internal/ort"
)

// ManifestProtocol is the version of [Manifest] that this package writes and
// reads.
const ManifestProtocol = 1

// Manifest is what a model's file says of its latency: the number that was
// measured, how sure it is, and under which conditions it may be expected
// again. As JSON it is the value of the metadata key spos.latency
// (docs/formats.md); times are milliseconds.
type Manifest struct {
	Protocol int      `json:"protocol"`         // ManifestProtocol
	Device   string   `json:"device,omitempty"` // what it was called; "": where the file was made
	P50      float64  `json:"p50_ms"`
	P90      float64  `json:"p90_ms"`
	Low      float64  `json:"low_ms"` // 95 % interval of P50
	High     float64  `json:"high_ms"`
	Limit    *float64 `json:"limit_ms,omitempty"` // what it was to stay below; nil: nothing
	Mode     Mode     `json:"mode"`
	Batch    int      `json:"batch"`
	// Gap is the idle time before each run of mode paced; 0: a file that does
	// not tell.
	Gap time.Duration `json:"gap_ns,omitempty"`
	// Dims are the free dimensions that were given, by name; others were 1.
	// Nil: a file that does not tell.
	Dims map[string]int64 `json:"dims,omitzero"`
	// Fallback is which part was allowed to run elsewhere than on the provider.
	Fallback float64 `json:"fallback,omitempty"`
	Runs     int     `json:"runs"`
	Sessions int     `json:"sessions"`

	// Fingerprint names Conditions in one short string.
	Fingerprint string `json:"fingerprint"`
	// Conditions are what the latency depends on wherever the model is served:
	// see [Fingerprint.Conditions].
	Conditions map[string]string `json:"conditions"`
	Warnings   []string          `json:"warnings,omitempty"`
}

// NewManifest is the manifest of a model that was measured under p. limit is
// what its latency was to stay below; 0 is no limit.
func NewManifest(r Result, p Protocol, limit time.Duration) Manifest {
	m := Manifest{
		Protocol: ManifestProtocol, P50: Milliseconds(r.P50), P90: Milliseconds(r.P90),
		Low: Milliseconds(r.Low), High: Milliseconds(r.High),
		Mode: r.Mode, Batch: r.Fingerprint.Session.Batch, Runs: r.Runs, Sessions: r.Sessions,
		Conditions: r.Fingerprint.Conditions(), Warnings: r.Warnings,
		Dims: map[string]int64{}, Fallback: p.Fallback,
	}
	maps.Copy(m.Dims, p.Dims)
	if r.Mode == Paced {
		m.Gap = p.Gap
	}
	if limit > 0 {
		m.Limit = new(Milliseconds(limit))
	}
	m.Fingerprint = digest(m.Conditions)
	return m
}

// Verdict says whether the limit was kept, [Undecided] where there was none.
func (m Manifest) Verdict() Verdict {
	if m.Limit == nil {
		return Undecided
	}
	e := Estimate{Low: fromMilliseconds(m.Low), High: fromMilliseconds(m.High)}
	return e.Decide(fromMilliseconds(*m.Limit))
}

// ParseManifest reads the JSON of a manifest. Another protocol than
// [ManifestProtocol], and numbers that are no interval, are errors.
func ParseManifest(text string) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return m, fmt.Errorf("latency manifest: %w", err)
	}
	if m.Protocol != ManifestProtocol {
		return m, fmt.Errorf("latency manifest: protocol %d, this program reads %d", m.Protocol, ManifestProtocol)
	}
	if !(0 < m.Low && m.Low <= m.P50 && m.P50 <= m.High) || m.Limit != nil && !(*m.Limit > 0) {
		return m, errors.New("latency manifest: its numbers are no interval around a median")
	}
	return m, nil
}

// Conditions are the parts of a fingerprint that a server of the model can be
// held to, by name: the machine, and the settings of the session. How it was
// measured (binding, priority, mode, dimensions) and the model itself are not
// among them.
// What the system does not show is left out.
func (f Fingerprint) Conditions() map[string]string {
	h, s := f.Host, f.Session
	c := map[string]string{
		"cpu": h.CPU, "cpu_flags": h.Flags, "cores": strconv.Itoa(h.Cores), "system": h.Arch, "kernel": h.Kernel,
		"governor": h.Governor, "turbo": h.Turbo, "quota": h.Quota,
		"runtime": s.Runtime, "build": s.Build, "huge_pages": h.HugePages, "smt": h.SMT, "provider": s.Provider, "graph_level": string(s.GraphLevel), "threads": strconv.Itoa(s.Threads),
	}
	for k, v := range s.Options {
		if !strings.HasPrefix(k, "dim.") && k != affinityOption {
			c[optionCondition+k] = v
		}
	}
	maps.DeleteFunc(c, func(_, v string) bool { return v == "" })
	return c
}

// optionCondition begins the names of conditions that are options.
const optionCondition = "option."

// Again is how the manifest's number is measured again, at the care that a
// promise deserves. Where the manifest does not tell, or tells options that a
// file may not give to this machine, it is an error.
func (m Manifest) Again() (Protocol, error) {
	p := Confirmation()
	p.Mode, p.Batch, p.Dims, p.Fallback = m.Mode, max(m.Batch, 1), m.Dims, m.Fallback
	if p.Mode == Paced {
		if p.Gap = m.Gap; p.Gap == 0 {
			return p, errors.New("it does not say how long the machine was idle between runs")
		}
	}
	if n, err := strconv.Atoi(m.Conditions["threads"]); err == nil {
		p.Threads = n
	}
	p.Session = optionsOf(m.Conditions)
	if err := p.Session.CheckForeign(); err != nil {
		return p, fmt.Errorf("%w: a file is not obeyed in what may name a file, a library or memory of this machine", err)
	}
	return p, p.Validate()
}

// optionsOf is what [setting] made conditions of.
func optionsOf(conditions map[string]string) ort.Options {
	o := ort.Options{
		Provider: conditions["provider"], GraphLevel: ort.GraphLevel(conditions["graph_level"]),
		ProviderConfig: map[string]string{}, Config: map[string]string{},
	}
	for name, v := range conditions {
		k, ok := strings.CutPrefix(name, optionCondition)
		if !ok {
			continue
		}
		switch provider, ok := strings.CutPrefix(k, providerOption); {
		case ok:
			o.ProviderConfig[provider] = v
		case k == "spinning":
			o.Spinning = new(v == "true")
		case k == "inter_op":
			o.InterOp, _ = strconv.Atoi(v)
		case k == "denormal_as_zero":
			o.DenormalAsZero = v == "true"
		case k == "no_arena":
			o.NoArena = v == "true"
		case k == "no_mem_pattern":
			o.NoMemPattern = v == "true"
		case k != affinityOption:
			o.Config[k] = v
		}
	}
	return o
}

// digest is equal for equal maps.
func digest(c map[string]string) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(h, "%q=%q\n", k, c[k])
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// Write prints the manifest for people. Text out of a file is cleared of
// control characters.
func (m Manifest) Write(w io.Writer) error {
	limit := ""
	if m.Limit != nil {
		limit = fmt.Sprintf(", limit %g ms %v", *m.Limit, m.Verdict())
	}
	c := func(key string) string { return printable(cmp.Or(m.Conditions[key], "unknown")) }
	device := ""
	if m.Device != "" {
		device = printable(m.Device) + ": "
	}
	_, err := fmt.Fprintf(w, "latency      p50 %.4g ms, 95 %% interval %.4g–%.4g, at batch %d%s; %d runs in %d sessions, %q\nmeasured on  %s%s, %s cores, %s; ONNX Runtime %s, %s, threads %s\n",
		m.P50, m.Low, m.High, m.Batch, limit, m.Runs, m.Sessions, m.Mode,
		device, c("cpu"), c("cores"), c("system"), c("runtime"), c("provider"), c("threads"))
	return err
}
