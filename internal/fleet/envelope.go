package fleet

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Headers in which envelopes travel; bodies are the payload, as they are.
const (
	jobHeader    = "Spos-Job"
	answerHeader = "Spos-Answer"
)

// jobEnvelope describes a job or a question.
type jobEnvelope struct {
	Version int    `json:"v"`
	ID      string `json:"id,omitempty"`
	Blob    string `json:"blob,omitempty"` // hash of the attachment
	Size    int    `json:"size,omitempty"` // of the attachment, in bytes
}

// answerEnvelope describes an answer.
type answerEnvelope struct {
	Version int    `json:"v"`
	ID      string `json:"id,omitempty"`
	Worker  string `json:"worker"` // which of the workers that had the name
	Error   string `json:"error,omitempty"`
	Skew    bool   `json:"skew,omitempty"` // the worker does not speak the job's version
}

// Errors that callers tell apart.
var (
	ErrDeviceTaken = errors.New("fleet: the device's name is taken by another worker that is alive")
	ErrRefused     = errors.New("fleet: the broker refuses the token or key")
	ErrTLS         = errors.New("fleet: no agreement on TLS with the broker")
	ErrNoBroker    = errors.New("fleet: no broker answers")
	ErrDenied      = errors.New("fleet: the broker does not allow that with this token or key")
	ErrClosed      = errors.New("fleet: the connection is closed")
)

// RemoteError is an error that happened on the device. It is an answer like
// any other: asking again with the same ID returns it again.
type RemoteError struct {
	Text string
}

func (e *RemoteError) Error() string { return e.Text }

// VersionError is a device whose program speaks another version than ours.
type VersionError struct {
	Device       string
	Theirs, Ours int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("fleet: device %s speaks version %d of the fleet's protocol, this program %d: install the same release on both", e.Device, e.Theirs, e.Ours)
}

func setEnvelope(m *nats.Msg, header string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	m.Header.Set(header, string(text))
	return nil
}

func readEnvelope(m *nats.Msg, header string, v any) error {
	if err := json.Unmarshal([]byte(m.Header.Get(header)), v); err != nil {
		return fmt.Errorf("fleet: message on %s is none of ours: header %s: %w", m.Subject, header, err)
	}
	return nil
}

// readAnswer is what an answer says to who asked.
func readAnswer(device string, m *nats.Msg) ([]byte, error) {
	var a answerEnvelope
	if err := readEnvelope(m, answerHeader, &a); err != nil {
		return nil, err
	}
	switch {
	case a.Version != version || a.Skew:
		return nil, &VersionError{device, a.Version, version}
	case a.Error != "":
		return nil, &RemoteError{a.Error}
	}
	return m.Data, nil
}
