package serve

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
)

// versionsOf is the versions of a name that can be asked for, ascending.
func (s *Server) versionsOf(name string) []string {
	if e := (*s.catalog.Load())[name]; e != nil {
		return e.list()
	}
	return []string{}
}

// labelsOf is the labels of a name and the versions that they stand for.
func (s *Server) labelsOf(name string) map[string]string {
	if e := (*s.catalog.Load())[name]; e != nil {
		return e.labels
	}
	return nil
}

// Index lists every version of every model, those that are ready where readyOnly is set. Where clients may load
// models, it also names those that are in the repository and were never loaded.
func (s *Server) Index(ctx context.Context, readyOnly bool) ([]IndexEntry, error) {
	all := []IndexEntry{}
	c := *s.catalog.Load()
	for _, name := range c.sorted() {
		for _, sl := range c[name].sorted() {
			state, reason := sl.status()
			if !readyOnly || state == StateReady {
				all = append(all, IndexEntry{name, sl.version, state, reason})
			}
		}
	}
	if readyOnly || s.opt.Source == nil || !s.opt.ModelControl {
		return all, nil
	}
	found, err := s.opt.Source.Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the repository: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if c[name] == nil {
			all = append(all, IndexEntry{Name: name})
		}
	}
	slices.SortStableFunc(all, func(a, b IndexEntry) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Stats are the statistics of one version, of every version of a name when version is empty, or of all models when
// both are.
func (s *Server) Stats(name, version string) ([]ModelStats, error) {
	all := []ModelStats{}
	c := *s.catalog.Load()
	if name == "" {
		for _, name := range c.sorted() {
			for _, sl := range c[name].sorted() {
				all = append(all, sl.readStats())
			}
		}
		return all, nil
	}
	e := c[name]
	if e == nil {
		return nil, failf(http.StatusNotFound, "unknown model %q", short(name))
	}
	if version == "" {
		for _, sl := range e.sorted() {
			all = append(all, sl.readStats())
		}
		return all, nil
	}
	sl := e.find(version)
	if sl == nil {
		return nil, failf(http.StatusNotFound, "model %q has no version %q, it has %v", short(name), short(version), e.list())
	}
	return append(all, sl.readStats()), nil
}

func (sl *slot) readStats() ModelStats {
	m := sl.stats.read()
	m.Name, m.Version = sl.name, sl.version
	if v := sl.live.Load(); v != nil && v.info.Bytes > 0 {
		m.Memory = []MemoryUsage{{"CPU", 0, uint64(v.info.Bytes)}}
	}
	return m
}

// Config is how a version is served, in Triton's form. An empty version is the default one.
func (s *Server) Config(ctx context.Context, name, version string) (*ModelConfig, error) {
	v, err := s.lookup(ctx, name, version)
	if err != nil {
		return nil, err
	}
	defer v.release()
	return s.configOf(v), nil
}

func (s *Server) configOf(v *version) *ModelConfig {
	info := &v.info
	c := &ModelConfig{
		Name: info.Name, Platform: info.Platform, Backend: "onnxruntime", VersionPolicy: info.Options.Policy.published(),
		MaxBatch: s.maxBatch(info), Inputs: []ConfigInput{}, Outputs: []ConfigOutput{},
		Instances: []ConfigInstance{{info.Name, "KIND_CPU", int64(s.opt.Cores) / v.gate.weight}},
	}
	if v.batcher != nil {
		c.Batching = &ConfigBatching{v.batcher.preferred, uint64(v.batcher.delay.Microseconds())}
	}
	dims := func(t TensorInfo) []int64 {
		shape := listed([]TensorInfo{t})[0].Shape
		if c.MaxBatch > 0 {
			shape = shape[1:]
		}
		return shape
	}
	for _, in := range info.Inputs {
		format := "FORMAT_NONE"
		if info.Recipe != nil {
			format = "FORMAT_NCHW"
		}
		c.Inputs = append(c.Inputs, ConfigInput{Name: in.Name, Type: in.Type.config(), Format: format, Dims: dims(in)})
	}
	for i, out := range info.Outputs {
		o := ConfigOutput{Name: out.Name, Type: out.Type.config(), Dims: dims(out)}
		if i == 0 && info.Labels != nil {
			o.LabelFile = "labels.txt"
		}
		c.Outputs = append(c.Outputs, o)
	}
	return c
}

// config is the name of a datatype in a ModelConfig.
func (d Datatype) config() string {
	if d == Bytes {
		return "TYPE_STRING"
	}
	return "TYPE_" + d.String()
}

func (p VersionPolicy) published() ConfigPolicy {
	switch {
	case p.All:
		return ConfigPolicy{All: &struct{}{}}
	case len(p.Specific) > 0:
		c := &ConfigSpecific{Versions: []int64{}}
		for _, v := range p.Specific {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				c.Versions = append(c.Versions, n)
			}
		}
		return ConfigPolicy{Specific: c}
	}
	return ConfigPolicy{Latest: &ConfigLatest{int64(max(p.Latest, 1))}}
}

// maxBatch is the largest batch that a request can have: the model's own limit, or what a body holds. It is 0 for a
// model whose tensors do not all begin with a free dimension.
func (s *Server) maxBatch(info *ModelInfo) int64 {
	const most = 1024
	if !info.batched() {
		return 0
	}
	item := int64(0)
	for _, in := range info.Inputs {
		n := int64(max(in.Type.Size(), 1))
		for _, d := range in.Shape[1:] {
			n = min(n*max(d, 1), s.opt.MaxBody)
		}
		item += n
	}
	return cmp.Or(int64(info.Options.Batch), min(max(s.opt.MaxBody/max(item, 1), 1), most))
}
