package serve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Source is where the models of a running server come from. [Repository] is one. The server calls it from one
// goroutine at a time, but for Load.
type Source interface {
	// Scan lists what there is now, by the names of models.
	Scan(ctx context.Context) (map[string]Listing, error)
	// Load loads one version as it is now.
	Load(ctx context.Context, name, version string) (Model, error)
}

// Listing is one model of a [Source].
type Listing struct {
	// Versions are all there are, each with its revision: a text that differs when other content would be loaded.
	Versions map[string]string
	Options  ModelOptions
	// Err is why the model cannot be understood, such as a mistake in its options. A server leaves what it has of
	// such a model as it is.
	Err error
}

func (l Listing) equal(o Listing) bool {
	return maps.Equal(l.Versions, o.Versions) && l.Options.equal(o.Options) && fmt.Sprint(l.Err) == fmt.Sprint(o.Err)
}

// descending is the versions, the highest first.
func (l Listing) descending() []string {
	return slices.SortedFunc(maps.Keys(l.Versions), func(a, b string) int { return compareVersions(b, a) })
}

// Mode says what a model's runs are laid out for.
type Mode string

const (
	// Throughput gives a run one thread: the most answers a second, and the best tail when many ask.
	Throughput Mode = "throughput"
	// Latency gives a run all cores: the fastest answer to a single client, at the price of the others.
	Latency Mode = "latency"
)

// ModelOptions is how one model is served, and the content of its config.yaml. Zero values mean what the comments say.
type ModelOptions struct {
	Policy  VersionPolicy     `yaml:"version_policy,omitempty"`
	Labels  map[string]string `yaml:"labels,omitempty"`    // further names of versions, such as stable: 3
	Mode    Mode              `yaml:"mode,omitempty"`      // throughput (the default) or latency
	Threads int               `yaml:"threads,omitempty"`   // of one run; 0: what the mode says
	Queue   int               `yaml:"queue,omitempty"`     // requests that may wait; 0: the server's
	Timeout time.Duration     `yaml:"timeout,omitempty"`   // of requests that name none; 0: the server's, which bounds it
	Batch   int               `yaml:"max_batch,omitempty"` // largest first dimension of a request; 0: what fits into a body
	WarmUp  int               `yaml:"warmup,omitempty"`    // runs before the model is ready; 0: 1

	Batching Batching `yaml:"batching,omitempty"` // requests that wait share a run; absent: never
}

// Batching says how requests are put together into one run. Its zero value never does: on processors, small networks
// gain nothing by it.
type Batching struct {
	Max       int           `yaml:"max,omitempty"`       // items of a run; 0 or 1: no batching
	Delay     time.Duration `yaml:"delay,omitempty"`     // how long the first waits for company while cores are free; 0: not
	Preferred []int         `yaml:"preferred,omitempty"` // numbers of items that are not to wait for more, beside Max
}

// VersionPolicy says which versions are served. Its zero value loads the highest that works, and the others when they
// are first asked for. With one member set, only the versions that it names are served, and all of them from the start.
type VersionPolicy struct {
	Latest   int      `yaml:"latest,omitempty"`   // this many of the highest that work
	All      bool     `yaml:"all,omitempty"`      // every version
	Specific []string `yaml:"specific,omitempty"` // these
}

// Validate reports what no server could obey.
func (o *ModelOptions) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(o.Mode != "" && o.Mode != Throughput && o.Mode != Latency, "mode: %q is neither %s nor %s", o.Mode, Throughput, Latency)
	for _, n := range []struct {
		key   string
		value int
	}{{"threads", o.Threads}, {"queue", o.Queue}, {"max_batch", o.Batch}, {"warmup", o.WarmUp}, {"batching.max", o.Batching.Max}, {"version_policy.latest", o.Policy.Latest}} {
		bad(n.value < 0, "%s: %d is negative", n.key, n.value)
	}
	const most = 100
	bad(o.WarmUp > most, "warmup: %d runs are more than %d", o.WarmUp, most)
	const longest = time.Minute
	bad(o.Batching.Delay < 0 || o.Batching.Delay > longest, "batching.delay: %s is not from 0 to %s", o.Batching.Delay, longest)
	bad(o.Batch > 0 && o.Batching.Max > o.Batch, "batching.max: %d is more than max_batch, %d", o.Batching.Max, o.Batch)
	for _, n := range o.Batching.Preferred {
		bad(n < 1 || n > o.Batching.Max, "batching.preferred: %d is not from 1 to batching.max, %d", n, o.Batching.Max)
	}
	bad(o.Timeout < 0, "timeout: %s is negative", o.Timeout)
	set := 0
	for _, is := range []bool{o.Policy.Latest != 0, o.Policy.All, len(o.Policy.Specific) > 0} {
		if is {
			set++
		}
	}
	bad(set > 1, "version_policy: use one of latest, all, specific")
	for _, v := range o.Policy.Specific {
		bad(!isVersion(v), "version_policy.specific: %q is no version", v)
	}
	for _, label := range slices.Sorted(maps.Keys(o.Labels)) {
		bad(label == "" || isNumber(label) || strings.ContainsFunc(label, func(c rune) bool {
			return c > 'z' || !isWord(byte(c)) && c != '-' && c != '.'
		}), "labels: %q is no name of letters, digits, _, - and .", label)
		bad(!isVersion(o.Labels[label]), "labels.%s: %q is no version", label, o.Labels[label])
	}
	return errors.Join(errs...)
}

func (o ModelOptions) equal(p ModelOptions) bool {
	a, b := o, p
	same := maps.Equal(a.Labels, b.Labels) && slices.Equal(a.Policy.Specific, b.Policy.Specific)
	a.Labels, b.Labels, a.Policy.Specific, b.Policy.Specific = nil, nil, nil, nil
	return same && fmt.Sprint(a) == fmt.Sprint(b)
}

// threads is how many cores one run keeps busy.
func (o ModelOptions) threads(cores int) int {
	switch {
	case o.Threads > 0:
		return o.Threads
	case o.Mode == Latency:
		return cores
	}
	return 1
}

// isVersion reports a version of a repository: a number from 1.
func isVersion(s string) bool { return isNumber(s) && s != "0" }

// restricts reports a policy that leaves versions out.
func (p VersionPolicy) restricts() bool { return p.Latest > 0 || p.All || len(p.Specific) > 0 }

// choose walks versions, the highest first, and returns those to keep loaded: what the policy says, and what has a
// label. load reports whether one works.
func (o ModelOptions) choose(versions []string, load func(version string) bool) (kept []string) {
	p, most := o.Policy, len(versions)
	wanted := func(v string) bool { return len(p.Specific) == 0 || slices.Contains(p.Specific, v) }
	if !p.All && len(p.Specific) == 0 {
		most = max(p.Latest, 1)
	}
	labelled := slices.Collect(maps.Values(o.Labels))
	chosen := 0
	for _, v := range versions {
		byPolicy := wanted(v) && chosen < most
		if (byPolicy || slices.Contains(labelled, v)) && load(v) {
			kept = append(kept, v)
			if byPolicy {
				chosen++
			}
		}
	}
	return kept
}
