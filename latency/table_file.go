package latency

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/renameio/v2"

	"spos/internal/arch"
)

// TableVersion is the version of a table's file that this package writes and
// reads.
const TableVersion = 1

// ErrTableFile is wrapped by errors about a file that is no table.
var ErrTableFile = errors.New("latency: not a table's file")

// Bounds of a file that is read.
const (
	maxTableFile    = 32 << 20
	maxMeasurements = 20_000
	maxTableSession = 10_000
)

// tableFile is a table as JSON (docs/formats.md). What is fixed, entries,
// audit and cross_validation follow from the rest: they are for other readers,
// and this package computes them anew.
type tableFile struct {
	Version         int               `json:"version"`
	Space           arch.Spec         `json:"space"`
	Digest          string            `json:"digest"` // of space
	Seed            uint64            `json:"seed"`
	Host            Host              `json:"host"`
	Session         Setting           `json:"session"`
	Protocol        Protocol          `json:"protocol"`
	Fit             Fit               `json:"fit"`
	Entries         []Entry           `json:"entries"`
	Audit           Audit             `json:"audit"`
	CrossValidation Audit             `json:"cross_validation"`
	Warnings        []string          `json:"warnings,omitempty"`
	Measurements    []measurementJSON `json:"measurements"`
}

type measurementJSON struct {
	Arch     arch.Arch `json:"arch"`
	Role     Role      `json:"role"`
	P50      float64   `json:"p50_ms"`
	Low      float64   `json:"low_ms"`
	High     float64   `json:"high_ms"`
	Sessions []float64 `json:"sessions_ms"`
}

// digestSpace names a space in one short string.
func digestSpace(spec arch.Spec) (string, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12]), nil
}

// Marshal is the table's file.
func (t *Table) Marshal() ([]byte, error) {
	spec := t.Space.Spec()
	digest, err := digestSpace(spec)
	if err != nil {
		return nil, err
	}
	entries, err := t.Entries()
	if err != nil {
		return nil, err
	}
	f := tableFile{
		Version: TableVersion, Space: spec, Digest: digest, Seed: t.Seed,
		Host: t.Fingerprint.Host, Session: t.Fingerprint.Session, Protocol: t.Protocol,
		Fit: t.Fit, Entries: entries, Audit: t.Audit(), CrossValidation: t.CrossValidation(), Warnings: t.Warnings,
	}
	for _, m := range t.Measurements {
		j := measurementJSON{m.Arch, m.Role, Milliseconds(m.P50), Milliseconds(m.Low), Milliseconds(m.High), nil}
		for _, s := range m.Sessions {
			j.Sessions = append(j.Sessions, Milliseconds(s))
		}
		f.Measurements = append(f.Measurements, j)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err = e.Encode(f)
	return b.Bytes(), err
}

// Write writes the table's file, whole or not at all.
func (t *Table) Write(path string) error {
	text, err := t.Marshal()
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("write table %s: %w", path, err)
	}
	return nil
}

// ReadTable reads what [Table.Write] wrote. A file that is none wraps
// [ErrTableFile].
func ReadTable(path string) (*Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTableFile+1))
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", path, err)
	}
	t, err := ParseTable(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// ParseTable reads the bytes of a table's file.
func ParseTable(text []byte) (*Table, error) {
	t, err := parseTable(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTableFile, err)
	}
	return t, nil
}

func parseTable(text []byte) (*Table, error) {
	if len(text) > maxTableFile {
		return nil, fmt.Errorf("it is larger than %d MiB", maxTableFile>>20)
	}
	var version struct{ Version int }
	if err := json.Unmarshal(text, &version); err != nil {
		return nil, err
	}
	if version.Version != TableVersion {
		return nil, fmt.Errorf("version %d, this program reads %d: make it anew, or use the program that made it", version.Version, TableVersion)
	}
	var f tableFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	digest, err := digestSpace(f.Space)
	if err != nil {
		return nil, err
	}
	if digest != f.Digest {
		return nil, fmt.Errorf("its space is not the one that was measured: digest %s, not %q", digest, f.Digest)
	}
	if err := f.Protocol.Validate(); err != nil {
		return nil, err
	}
	if !f.Fit.valid() {
		return nil, fmt.Errorf("fit: %+v is out of range", f.Fit)
	}
	space, err := arch.NewSpace(f.Space)
	if err != nil {
		return nil, err
	}
	t := &Table{
		Space: space, Seed: f.Seed, Fingerprint: Fingerprint{Host: f.Host, Session: f.Session},
		Protocol: f.Protocol,
	}
	for _, w := range f.Warnings[:min(len(f.Warnings), maxComplaints)] {
		t.Warnings = append(t.Warnings, printable(w))
	}
	if t.Measurements, err = f.measurements(); err != nil {
		return nil, err
	}
	if err := t.build(&f.Fit); err != nil {
		return nil, err
	}
	return t, nil
}

func (f *tableFile) measurements() ([]Measurement, error) {
	if len(f.Measurements) > maxMeasurements {
		return nil, fmt.Errorf("%d measurements, more than %d", len(f.Measurements), maxMeasurements)
	}
	list := make([]Measurement, len(f.Measurements))
	seen := make(map[arch.Arch]bool, len(list))
	for i, m := range f.Measurements {
		bad := func(what string) error { return fmt.Errorf("measurements[%d], net %q: %s", i, m.Arch, what) }
		switch m.Role {
		case InSitu, Correction, Holdout:
		default:
			return nil, bad(fmt.Sprintf("role %q", m.Role))
		}
		if seen[m.Arch] {
			return nil, bad("it is there twice")
		}
		seen[m.Arch] = true
		const day = 24 * 3600 * 1000
		if !(m.Low >= 1e-5 && m.Low <= m.P50 && m.P50 <= m.High && m.High <= day) {
			return nil, bad("its numbers are no interval around a median")
		}
		if len(m.Sessions) < 1 || len(m.Sessions) > maxTableSession {
			return nil, bad(fmt.Sprintf("%d sessions", len(m.Sessions)))
		}
		sessions := make([]time.Duration, len(m.Sessions))
		for k, s := range m.Sessions {
			if !(s >= 1e-5 && s <= day) {
				return nil, bad(fmt.Sprintf("a session of %v ms", s))
			}
			sessions[k] = fromMilliseconds(s)
		}
		list[i] = Measurement{m.Arch, m.Role, fromMilliseconds(m.P50), fromMilliseconds(m.Low), fromMilliseconds(m.High), sessions}
	}
	return list, nil
}
