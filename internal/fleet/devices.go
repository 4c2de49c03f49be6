package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// State is what a device does.
type State string

// States of a device.
const (
	Idle   State = "idle"
	Busy   State = "busy"
	Away   State = "away"          // it was there, and has not spoken for a while
	Unseen State = "never seen"    // somebody waits for a device of the name
	Skewed State = "other version" // its program cannot work with this one
)

// Presence is what is known of a device.
type Presence struct {
	Name  string          `json:"name"`
	State State           `json:"state"`
	Info  json.RawMessage `json:"info,omitempty"` // what the worker says of itself
	Seen  time.Time       `json:"seen,omitzero"`  // when it last spoke, by the broker's clock
	Age   time.Duration   `json:"age_ns"`         // since then, by the broker's clock
	Queue int             `json:"queue"`          // jobs that wait, the one in work among them
	Job   string          `json:"job,omitempty"`  // ID of the one in work
}

// Devices lists what the broker knows, by name: every device that was there in
// the last [AnswersKept], and those that somebody waits for.
func (c *Conn) Devices(ctx context.Context) ([]Presence, error) {
	var list []Presence
	err := c.persist(ctx, "list devices", "$JS.API.STREAM.LIST", func(ctx context.Context) error {
		list = nil
		streams := c.js.ListStreams(ctx, jetstream.WithStreamListSubject("spos.job.>"))
		for info := range streams.Info() {
			name, ok := strings.CutPrefix(info.Config.Name, jobsStream(""))
			if !ok || CheckDevice(name) != nil {
				continue
			}
			p, err := c.presence(ctx, name, info.TimeStamp)
			if err != nil {
				return err
			}
			p.Queue = int(info.State.Msgs)
			list = append(list, p)
		}
		return streams.Err()
	})
	slices.SortFunc(list, func(a, b Presence) int { return cmp.Compare(a.Name, b.Name) })
	return list, err
}

// presence reads what a device last said; now is the broker's time.
func (c *Conn) presence(ctx context.Context, device string, now time.Time) (Presence, error) {
	p := Presence{Name: device, State: Unseen}
	m, err := c.last(ctx, keptStream(device), presenceSubject(device))
	if errors.Is(err, errNone) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	if p.Seen, err = time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp")); err != nil {
		return p, fmt.Errorf("presence of %s: %w", device, err)
	}
	p.Age = now.Sub(p.Seen)
	var s said
	if err := json.Unmarshal(m.Data, &s); err != nil || s.Version != version {
		p.State = Skewed
		return p, nil //nolint:nilerr // what cannot be read is of another version
	}
	p.Info = s.Info
	switch {
	case s.Gone || p.Age.Abs() > leaseTime: // below zero: the broker's clock was set back
		p.State = Away
	case s.Job != "":
		p.State, p.Job = Busy, s.ID
	default:
		p.State = Idle
	}
	return p, nil
}

// noteState logs when a device that a job waits for goes away, and when it is
// back.
func (c *Conn) noteState(ctx context.Context, device string) {
	s, err := c.js.Stream(ctx, jobsStream(device))
	if err != nil {
		return // the caller meets it as well
	}
	p, err := c.presence(ctx, device, s.CachedInfo().TimeStamp)
	if err != nil {
		return
	}
	if p.State == Busy {
		p.State = Idle
	}
	c.mu.Lock()
	before := cmp.Or(c.states[device], Idle)
	c.states[device] = p.State
	c.mu.Unlock()
	switch {
	case p.State == before:
	case p.State == Idle:
		c.log.Info("the device is back", "device", device)
	default:
		c.log.Warn("a job waits for a device", "device", device, "state", p.State)
	}
}

// Ask puts a question to a device outside its queue, for what is told while it
// works. It asks until an answer comes or ctx ends, waiting ever longer; a
// question may reach the device more than once.
func (c *Conn) Ask(ctx context.Context, device string, body []byte) ([]byte, error) {
	if err := CheckDevice(device); err != nil {
		return nil, err
	}
	m := nats.NewMsg(askSubject(device))
	m.Data = body
	if err := setEnvelope(m, jobHeader, jobEnvelope{Version: version}); err != nil {
		return nil, err
	}
	if limit := c.nc.MaxPayload() - 4096; int64(len(body)) > limit {
		return nil, fmt.Errorf("fleet: ask %s: a question of %d bytes is more than the broker takes (%d)", device, len(body), limit)
	}
	var answer *nats.Msg
	patience := requestTimeout / 4
	err := c.insist(ctx, "ask "+device, m.Subject, func(ctx context.Context) error {
		patience *= 2
		actx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		var err error
		answer, err = c.nc.RequestMsgWithContext(actx, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	return readAnswer(device, answer)
}

// sequence is a message's number in its stream.
func sequence(m *nats.Msg) (uint64, error) {
	n, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("fleet: message on %s has no number: %w", m.Subject, err)
	}
	return n, nil
}
