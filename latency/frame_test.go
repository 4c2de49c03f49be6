package latency

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"testing"
	"time"
)

func frame(t testing.TB, header any, blob []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeFrame(&b, header, blob); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFrame(t *testing.T) {
	want := request{Protocol: Confirmation(), Version: "v1"}
	text := append(frame(t, want, []byte("model")), frame(t, want, nil)...)
	r := bytes.NewReader(text)
	for _, model := range []string{"model", ""} {
		var got request
		blob, err := readFrame(r, &got)
		if err != nil || string(blob) != model || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v with %q, %v", got, blob, err)
		}
	}
	var q request
	if _, err := readFrame(r, &q); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
	for n := 1; n < len(text)/2; n++ {
		if _, err := readFrame(bytes.NewReader(text[:n]), &q); err == nil || errors.Is(err, io.EOF) {
			t.Fatalf("the first %d bytes: %v, want an error that is not the end", n, err)
		}
	}
	if _, err := readFrame(bytes.NewReader([]byte{0, 0, 0, 255}), &q); !errors.Is(err, errFrame) {
		t.Errorf("4 GB announced: %v, want errFrame", err)
	}
}

// What a child or an agent says is read without trust in it: nothing panics,
// and what is taken is written again as it was.
func FuzzReply(f *testing.F) {
	f.Add(frame(f, reply{Sample: &Sample{Runs: []time.Duration{1, 2}, Notes: []string{"n"}}}, nil))
	f.Add(frame(f, reply{Fault: &fault{Reason: Crash, Text: "SIGSEGV"}}, nil))
	f.Add(frame(f, reply{Fingerprint: &Fingerprint{Host: Host{CPU: "x"}}}, []byte("blob")))
	f.Add([]byte{0, 0, 0, 255})
	f.Add([]byte("\x02\x00\x00\x00{}\x00\x00\x00\x10"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got reply
		blob, err := readFrame(bytes.NewReader(b), &got)
		if err != nil {
			return
		}
		if got.Fault != nil && got.Fault.err() == nil {
			t.Error("a fault that is no error")
		}
		var again reply
		blob2, err := readFrame(bytes.NewReader(frame(t, got, blob)), &again)
		a, _ := json.Marshal(got)
		c, _ := json.Marshal(again)
		if err != nil || !bytes.Equal(a, c) || !bytes.Equal(blob, blob2) {
			t.Errorf("%s became %s, %v", a, c, err)
		}
	})
}
