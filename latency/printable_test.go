package latency_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"spos/internal/fleet"
	"spos/internal/ort"
	"spos/latency"
)

// rude is a courier to a device that fills every text with a terminal's commands.
type rude struct{ sample latency.Sample }

func (r rude) Do(context.Context, fleet.Job) ([]byte, error) {
	return json.Marshal(map[string]any{"sample": r.sample})
}

func (r rude) Ask(context.Context, string, []byte) ([]byte, error) {
	return json.Marshal(map[string]any{"fingerprint": r.sample.Fingerprint})
}

func (rude) Devices(context.Context) ([]fleet.Presence, error) { return nil, nil }

// TestRemoteIsPrintable: no text of a device that is elsewhere, in whichever
// field, has characters that a terminal would obey.
func TestRemoteIsPrintable(t *testing.T) {
	const command = "a\x1b[2J\r\n\u009bb"
	var s latency.Sample
	fill(reflect.ValueOf(&s).Elem(), command)
	s.Placement = &ort.Placement{
		Provider: command, Shares: map[string]ort.Use{command: {Nodes: 1, Time: 1}},
		Elsewhere: []ort.Stray{{Op: command, Provider: command}},
	}
	for i := range s.Runs {
		s.Runs[i] = 1e6
	}
	r := &latency.Remote{Courier: rude{s}, Name: "pi5", Version: "v1", Log: slog.New(slog.DiscardHandler)}
	task := latency.Task{Model: []byte("100"), Protocol: brief()}
	fp, err := r.Fingerprint(t.Context(), task.Model, task.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Time(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	for what, x := range map[string]any{"fingerprint": fp, "sample": got} {
		text, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		if said := string(text); strings.Count(said, "a [2J   b") < 5 || strings.ContainsAny(said, "\u009b\\") {
			t.Errorf("%s: %q", what, said)
		}
	}
}

// fill puts text into every string, and one element into every slice and map.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), text)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(text), reflect.ValueOf(text))
	}
}
