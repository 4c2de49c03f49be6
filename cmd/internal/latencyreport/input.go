package latencyreport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"spos/latency"
)

// Journal is a run's file of measurements.
const Journal = "latency.jsonl"

// ErrInput is wrapped where a file is nothing that a report can draw.
var ErrInput = errors.New("no latency measurements")

// Input is what one file holds; [Read] makes it.
type Input struct {
	name    string
	results []latency.Result
	looks   []latency.Look
	table   *latency.Table
}

// Read recognises a file by what is in it.
func Read(name string, text []byte) (Input, error) {
	in := Input{name: name}
	fail := func(err error) (Input, error) { return Input{}, fmt.Errorf("%s: %w", name, err) }
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // a byte order mark, as some shells write
	trimmed := bytes.TrimSpace(text)
	var err error
	switch {
	case len(trimmed) == 0:
		err = fmt.Errorf("%w: the file is empty", ErrInput)
	case trimmed[0] == '[':
		if err = json.Unmarshal(trimmed, &in.results); err != nil {
			err = fmt.Errorf("%w: a list of results was expected: %w", ErrInput, err)
		}
	case trimmed[0] == '{':
		err = in.object(text)
	default:
		err = fmt.Errorf("%w: it is no JSON: give what spos latency measure --json --samples printed, a latency table, or a %s", ErrInput, Journal)
	}
	if err != nil {
		return fail(err)
	}
	if len(in.results)+len(in.looks) == 0 && in.table == nil {
		return fail(fmt.Errorf("%w: it holds none", ErrInput))
	}
	for i, r := range in.results {
		if err := plausible(r); err != nil {
			return fail(fmt.Errorf("%w: entry %d: %w", ErrInput, i+1, err))
		}
	}
	for _, l := range in.looks {
		if l.P50 <= 0 || !(l.Ratio > 0 && l.Ratio < 1000) || !(l.Allowed >= 0 && l.Allowed < 1) {
			return fail(fmt.Errorf("%w: a look at %s found %v, %v times the first: that is no latency", ErrInput, shorten(l.Sentinel), l.P50, l.Ratio))
		}
	}
	return in, nil
}

// object reads a text of one or more JSON objects, told apart by the fields of
// the first.
func (in *Input) object(text []byte) error {
	var first map[string]json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&first); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	has := func(name string) bool { return first[name] != nil }
	switch {
	case has("look") || has("key") && has("result"):
		return in.journal(text)
	case has("model") && has("p50_ms"):
		var r latency.Result
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("%w: %w", ErrInput, err)
		}
		in.results = []latency.Result{r}
		return nil
	}
	if has("version") && has("measurements") {
		t, err := latency.ParseTable(text)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInput, err)
		}
		in.table = t
		return nil
	}
	names := slices.Sorted(maps.Keys(first))
	if len(names) > 8 {
		names = append(names[:8], "…")
	}
	return fmt.Errorf("%w: it is JSON of something else, with the fields %q", ErrInput, strings.Join(names, " "))
}

// journal reads lines of results and looks; the last result of a key counts,
// at the place of the first.
func (in *Input) journal(text []byte) error {
	records, err := latency.DecodeJournal(bytes.NewReader(text))
	if err != nil {
		return err
	}
	at := map[string]int{}
	for _, r := range records {
		if r.Look != nil {
			in.looks = append(in.looks, *r.Look)
			continue
		}
		if strings.HasPrefix(r.Key, "confirmed") {
			r.Result.Model += " (confirmed)"
		}
		if i, again := at[r.Key]; again {
			in.results[i] = r.Result
			continue
		}
		at[r.Key] = len(in.results)
		in.results = append(in.results, r.Result)
	}
	return nil
}

// plausible refuses what no measurement can have found, so that drawing need
// not think of it.
func plausible(r latency.Result) error {
	switch {
	case r.Model == "":
		return errors.New("it names no model")
	case r.Min <= 0 || r.Low <= 0 || r.Low > r.P50 || r.P50 > r.High || r.P90 < r.Min:
		return fmt.Errorf("%s: its times are no latency: p50 %v, interval %v to %v, p90 %v, min %v", shorten(r.Model), r.P50, r.Low, r.High, r.P90, r.Min)
	case r.Sessions < 1 || r.Runs < r.Sessions:
		return fmt.Errorf("%s: %d sessions of %d runs together", shorten(r.Model), r.Sessions, r.Runs)
	}
	for i, s := range r.Samples {
		if len(s.Runs) == 0 {
			return fmt.Errorf("%s: session %d has no runs", shorten(r.Model), i+1)
		}
		for _, d := range slices.Concat(s.Warmup, s.Runs) {
			if d <= 0 {
				return fmt.Errorf("%s: session %d has a run of %v", shorten(r.Model), i+1, d)
			}
		}
	}
	return nil
}

// shorten is a name that a report has room for.
func shorten(name string) string { return shortenTo(name, 64) }

func shortenTo(text string, most int) string {
	r := []rune(text)
	if len(r) <= most {
		return text
	}
	return string(r[:most/2]) + "…" + string(r[len(r)-most/2:])
}
