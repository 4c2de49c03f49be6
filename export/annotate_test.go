package export_test

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"spos/export"
)

// TestSetMetadata: a value is added or replaced, and nothing else of the file changes, also what this program does
// not know of.
func TestSetMetadata(t *testing.T) {
	n := everyKind()
	plain := bytesOf(t, n, export.Random(n, seed), export.Options{})
	foreign := protowire.AppendVarint(protowire.AppendTag(plain, 900, protowire.VarintType), 7)
	once, err := export.SetMetadata(foreign, export.KeyLatency, `{"protocol":1}`)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(once, foreign) {
		t.Error("the file's own bytes changed")
	}
	twice, err := export.SetMetadata(once, export.KeyLatency, `{"protocol":1,"p50_ms":2}`)
	if err != nil {
		t.Fatal(err)
	}
	s, err := export.Inspect(twice)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Metadata[export.KeyLatency]; got != `{"protocol":1,"p50_ms":2}` {
		t.Errorf("the value is %q", got)
	}
	if s.Net == nil || !s.Net.Agrees || s.Metadata[export.KeyArch] != string(n.Arch) {
		t.Errorf("the rest of the metadata: %v", s.Metadata)
	}
	if len(twice) != len(once)+len(`,"p50_ms":2`) {
		t.Errorf("%d bytes after %d: the first value is still there", len(twice), len(once))
	}
}

func TestSetMetadataOfGarbage(t *testing.T) {
	for name, file := range map[string][]byte{
		"text":         []byte("not a model"),
		"cut":          {0x0a, 0x7f, 1},
		"broken entry": protowire.AppendBytes(protowire.AppendTag(nil, 14, protowire.BytesType), []byte{0x0a, 0x7f}),
	} {
		if _, err := export.SetMetadata(file, "k", "v"); !errors.Is(err, export.ErrNotONNX) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
