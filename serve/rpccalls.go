package serve

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"spos/serve/oippb"
)

// The calls without tensors. Those of shared memory, traces and logging stay as generated: not implemented.

func (g *rpcServer) ServerLive(context.Context, *oippb.ServerLiveRequest) (*oippb.ServerLiveResponse, error) {
	return &oippb.ServerLiveResponse{Live: true}, nil
}

func (g *rpcServer) ServerReady(context.Context, *oippb.ServerReadyRequest) (*oippb.ServerReadyResponse, error) {
	return &oippb.ServerReadyResponse{Ready: g.s.ready.Load()}, nil
}

// ModelReady says false for a model that is known and cannot answer, and is an error for one that is not known.
func (g *rpcServer) ModelReady(ctx context.Context, r *oippb.ModelReadyRequest) (*oippb.ModelReadyResponse, error) {
	_, err := g.find(ctx, r.GetName(), r.GetVersion())
	if e := answer(err, ""); err != nil && e.code != http.StatusServiceUnavailable {
		return nil, err
	}
	return &oippb.ModelReadyResponse{Ready: err == nil && g.s.ready.Load()}, nil
}

func (g *rpcServer) ServerMetadata(context.Context, *oippb.ServerMetadataRequest) (*oippb.ServerMetadataResponse, error) {
	return &oippb.ServerMetadataResponse{Name: g.s.opt.Name, Version: g.s.opt.Version, Extensions: extensions}, nil
}

func (g *rpcServer) ModelMetadata(ctx context.Context, r *oippb.ModelMetadataRequest) (*oippb.ModelMetadataResponse, error) {
	v, err := g.find(ctx, r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	d := g.s.describe(v)
	return &oippb.ModelMetadataResponse{
		Name: d.Name, Versions: d.Versions, Platform: d.Platform,
		Inputs: rpcTensors(v.info.Inputs), Outputs: rpcTensors(v.info.Outputs), Properties: d.Properties,
	}, nil
}

func (g *rpcServer) ModelConfig(ctx context.Context, r *oippb.ModelConfigRequest) (*oippb.ModelConfigResponse, error) {
	v, err := g.find(ctx, r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	m := &oippb.ModelConfig{}
	return &oippb.ModelConfigResponse{Config: m}, convert(g.s.configOf(v), m)
}

func (g *rpcServer) ModelStatistics(_ context.Context, r *oippb.ModelStatisticsRequest) (*oippb.ModelStatisticsResponse, error) {
	all, err := g.s.Stats(r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	m := &oippb.ModelStatisticsResponse{}
	return m, convert(map[string]any{"model_stats": all}, m)
}

func (g *rpcServer) RepositoryIndex(ctx context.Context, r *oippb.RepositoryIndexRequest) (*oippb.RepositoryIndexResponse, error) {
	if r.GetRepositoryName() != "" {
		return nil, errRepository
	}
	all, err := g.s.Index(ctx, r.GetReady())
	if err != nil {
		return nil, err
	}
	m := &oippb.RepositoryIndexResponse{}
	return m, convert(map[string]any{"models": all}, m)
}

func (g *rpcServer) RepositoryModelLoad(ctx context.Context, r *oippb.RepositoryModelLoadRequest) (*oippb.RepositoryModelLoadResponse, error) {
	err := g.change(r, g.s.loadParameter)
	if err == nil {
		err = g.s.Load(ctx, r.GetModelName())
	}
	return &oippb.RepositoryModelLoadResponse{}, err
}

func (g *rpcServer) RepositoryModelUnload(ctx context.Context, r *oippb.RepositoryModelUnloadRequest) (*oippb.RepositoryModelUnloadResponse, error) {
	err := g.change(r, g.s.unloadParameter)
	if err == nil {
		err = g.s.Unload(ctx, r.GetModelName())
	}
	return &oippb.RepositoryModelUnloadResponse{}, err
}

// change checks a request to load or unload a model.
func (g *rpcServer) change(r interface {
	GetRepositoryName() string
	GetModelName() string
	GetParameters() map[string]*oippb.ModelRepositoryParameter
}, parameter func(key string) error,
) error {
	if r.GetRepositoryName() != "" {
		return errRepository
	}
	if err := g.s.mayChange(r.GetModelName()); err != nil {
		return err
	}
	for key := range r.GetParameters() {
		if err := parameter(key); err != nil {
			return err
		}
	}
	return nil
}

// find is lookup for a call about one model, which it holds until the call is over.
func (g *rpcServer) find(ctx context.Context, name, ver string) (*version, error) {
	r := rpcOf(ctx)
	r.model, r.version = name, ver
	v, err := g.s.lookup(ctx, name, ver)
	r.found = v
	return v, err
}

func rpcTensors(ts []TensorInfo) []*oippb.ModelMetadataResponse_TensorMetadata {
	var all []*oippb.ModelMetadataResponse_TensorMetadata
	for _, t := range listed(ts) {
		all = append(all, &oippb.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Type.String(), Shape: t.Shape})
	}
	return all
}

// convert makes a message of what has the same form in JSON.
func convert(from any, to proto.Message) error {
	b, err := json.Marshal(from)
	if err == nil {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, to)
	}
	if err != nil {
		return errors.Join(errors.New("serve: convert to protobuf"), err)
	}
	return nil
}
