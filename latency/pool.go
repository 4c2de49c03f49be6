package latency

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Member is a device of a [Pool] and its name.
type Member struct {
	Device
	Name string
}

// Pool is several devices of one kind as one: as many tasks are timed at once
// as there are members. It refuses members that differ in anything but which
// of their processors they bind to.
type Pool struct {
	members []Member
	free    chan int
}

// NewPool makes a pool; members are asked what they are when it is used.
func NewPool(members ...Member) *Pool {
	p := &Pool{members: members, free: make(chan int, len(members))}
	for i := range members {
		p.free <- i
	}
	return p
}

// Width is how many tasks are timed at once.
func (p *Pool) Width() int { return len(p.members) }

// Time implements [Runner]: the next member that is free does it.
func (p *Pool) Time(ctx context.Context, t Task) (Sample, error) {
	fp, err := p.Fingerprint(ctx, t.Model, t.Protocol)
	if err != nil {
		return Sample{}, err
	}
	var i int
	select {
	case i = <-p.free:
	case <-ctx.Done():
		return Sample{}, context.Cause(ctx)
	}
	defer func() { p.free <- i }()
	s, err := p.members[i].Time(ctx, t)
	if err != nil {
		return Sample{}, err
	}
	if len(p.members) > 1 {
		s.Started = time.Time{} // clocks of several devices order nothing
	}
	s.Fingerprint.Session = bindingOf(s.Fingerprint, fp).Session
	if err := fp.Comparable(s.Fingerprint); err != nil {
		return Sample{}, fmt.Errorf("device %s has changed: %w", p.members[i].Name, err)
	}
	return s, nil
}

// affinityOption is where a pool's fingerprint says which processors its
// members bind to, where that differs.
const affinityOption = "affinity"

// Fingerprint implements [Describer]: what the members have in common. Members
// that differ are an error that wraps [ErrIncomparable] and says in what.
func (p *Pool) Fingerprint(ctx context.Context, model []byte, protocol Protocol) (Fingerprint, error) {
	var all []Fingerprint
	var bindings []string
	for _, m := range p.members {
		fp, err := m.Fingerprint(ctx, model, protocol)
		if err != nil {
			return Fingerprint{}, err
		}
		all = append(all, fp)
		if b := fmt.Sprint(fp.Session.Affinity); !slices.Contains(bindings, b) {
			bindings = append(bindings, b)
		}
	}
	common := all[0]
	if len(bindings) > 1 {
		slices.Sort(bindings) // whatever the order of the members
		common.Session.Affinity = nil
		common.Session.Options = with(common.Session.Options, affinityOption, strings.Join(bindings, " or "))
	}
	for i, fp := range all {
		same := len(fp.Session.Affinity) == len(all[0].Session.Affinity)
		if err := common.Comparable(bindingOf(fp, common)); err != nil || !same {
			if err == nil {
				err = all[0].Comparable(fp)
			}
			return Fingerprint{}, fmt.Errorf("%s and %s are no pool: %w", p.members[0].Name, p.members[i].Name, err)
		}
	}
	return common, nil
}

// bindingOf is a member's fingerprint with the pool's words for what it binds
// to.
func bindingOf(member, pool Fingerprint) Fingerprint {
	if words, ok := pool.Session.Options[affinityOption]; ok {
		member.Session.Affinity = nil
		member.Session.Options = with(member.Session.Options, affinityOption, words)
	}
	return member
}

func with(m map[string]string, key, value string) map[string]string {
	c := map[string]string{}
	maps.Copy(c, m)
	c[key] = value
	return c
}
