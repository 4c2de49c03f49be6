package client

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"spos/serve"
	"spos/serve/oippb"
)

type grpcWire struct {
	conn *grpc.ClientConn
	stub oippb.GRPCInferenceServiceClient

	models sync.Map // Model by name and version, of those that were asked to classify
}

func openGRPC(u *url.URL, o Options) (*grpcWire, error) {
	creds := insecure.NewCredentials()
	if u.Scheme == "grpcs" {
		creds = credentials.NewTLS(o.TLS)
		if o.TLS == nil {
			creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
		}
	}
	withToken := func(ctx context.Context, method string, in, out any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if o.Token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+o.Token)
		}
		return translate(call(ctx, method, in, out, conn, opts...))
	}
	conn, err := grpc.NewClient("dns:///"+u.Host, grpc.WithTransportCredentials(creds), grpc.WithUnaryInterceptor(withToken),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, err
	}
	return &grpcWire{conn: conn, stub: oippb.NewGRPCInferenceServiceClient(conn)}, nil
}

// translate makes an [Error] of what a server answered; what never reached one stays an error of its own.
func translate(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	code := map[codes.Code]int{
		codes.InvalidArgument: http.StatusBadRequest, codes.Unauthenticated: http.StatusUnauthorized,
		codes.PermissionDenied: http.StatusForbidden, codes.NotFound: http.StatusNotFound,
		codes.ResourceExhausted: http.StatusRequestEntityTooLarge, codes.Unimplemented: http.StatusNotImplemented,
		codes.DeadlineExceeded: http.StatusGatewayTimeout, codes.Internal: http.StatusInternalServerError,
	}[s.Code()]
	switch {
	case s.Code() == codes.Canceled:
		return context.Canceled
	case s.Code() == codes.Unavailable && strings.HasPrefix(s.Message(), "connection error"):
		return errors.New(s.Message())
	case code == 0:
		code = http.StatusServiceUnavailable
	}
	return &Error{code, s.Message()}
}

func (w *grpcWire) Close() error { return w.conn.Close() }

func (w *grpcWire) Index(ctx context.Context) ([]serve.IndexEntry, error) {
	r, err := w.stub.RepositoryIndex(ctx, &oippb.RepositoryIndexRequest{})
	if err != nil {
		return nil, err
	}
	all := []serve.IndexEntry{}
	for _, m := range r.GetModels() {
		all = append(all, serve.IndexEntry{Name: m.GetName(), Version: m.GetVersion(), State: serve.State(m.GetState()), Reason: m.GetReason()})
	}
	return all, nil
}

func (w *grpcWire) Model(ctx context.Context, name, version string) (Model, error) {
	r, err := w.stub.ModelMetadata(ctx, &oippb.ModelMetadataRequest{Name: name, Version: version})
	if err != nil {
		return Model{}, err
	}
	m := Model{Name: r.GetName(), Versions: r.GetVersions(), Platform: r.GetPlatform()}
	for to, from := range map[*[]serve.TensorInfo][]*oippb.ModelMetadataResponse_TensorMetadata{&m.Inputs: r.GetInputs(), &m.Outputs: r.GetOutputs()} {
		for _, t := range from {
			datatype, ok := serve.ParseDatatype(t.GetDatatype())
			if !ok {
				return Model{}, fmt.Errorf("tensor %q is of the unknown datatype %q", t.GetName(), t.GetDatatype())
			}
			*to = append(*to, serve.TensorInfo{Name: t.GetName(), Type: datatype, Shape: t.GetShape()})
		}
	}
	return m, nil
}

func (w *grpcWire) Infer(ctx context.Context, name, version string, inputs []serve.Tensor) ([]serve.Tensor, error) {
	request := &oippb.ModelInferRequest{ModelName: name, ModelVersion: version}
	for _, in := range inputs {
		request.Inputs = append(request.Inputs, &oippb.ModelInferRequest_InferInputTensor{Name: in.Name, Datatype: in.Type.String(), Shape: in.Shape})
		request.RawInputContents = append(request.RawInputContents, in.Data)
	}
	return w.infer(ctx, request)
}

func (w *grpcWire) infer(ctx context.Context, request *oippb.ModelInferRequest) ([]serve.Tensor, error) {
	r, err := w.stub.ModelInfer(ctx, request)
	if err != nil {
		return nil, err
	}
	raw := r.GetRawOutputContents()
	if len(raw) != len(r.GetOutputs()) {
		return nil, errors.New("the answer holds no bytes of its outputs")
	}
	outputs := make([]serve.Tensor, len(raw))
	for i, o := range r.GetOutputs() {
		datatype, ok := serve.ParseDatatype(o.GetDatatype())
		if !ok {
			return nil, fmt.Errorf("output %q is of the unknown datatype %q", o.GetName(), o.GetDatatype())
		}
		outputs[i] = serve.Tensor{Name: o.GetName(), Type: datatype, Shape: o.GetShape(), Data: raw[i]}
	}
	return outputs, nil
}

// Classify asks for the classification of all classes, since probabilities are of all scores.
func (w *grpcWire) Classify(ctx context.Context, name, version string, picture []byte, top int) ([]Class, error) {
	m, err := w.known(ctx, name, version)
	if err != nil {
		return nil, err
	}
	if len(m.Inputs) != 1 || len(m.Outputs) == 0 {
		return nil, fmt.Errorf("a picture is one input, and the model has %d", len(m.Inputs))
	}
	const all = 1_000_000
	request := &oippb.ModelInferRequest{
		ModelName: name, ModelVersion: version,
		Inputs:           []*oippb.ModelInferRequest_InferInputTensor{{Name: m.Inputs[0].Name, Datatype: "BYTES", Shape: []int64{1}}},
		RawInputContents: [][]byte{append(binary.LittleEndian.AppendUint32(nil, uint32(len(picture))), picture...)},
		Outputs: []*oippb.ModelInferRequest_InferRequestedOutputTensor{{
			Name:       m.Outputs[0].Name,
			Parameters: map[string]*oippb.InferParameter{"classification": {ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: all}}},
		}},
	}
	outputs, err := w.infer(ctx, request)
	if err != nil {
		return nil, err
	}
	words, err := Strings(outputs[0].Data)
	if err != nil {
		return nil, err
	}
	classes, scores := make([]Class, len(words)), make([]float64, len(words))
	for i, word := range words { // score:index[:label]
		score, rest, _ := strings.Cut(word, ":")
		index, label, _ := strings.Cut(rest, ":")
		var err error
		if scores[i], err = strconv.ParseFloat(score, 64); err == nil {
			classes[i].Index, err = strconv.Atoi(index)
		}
		if err != nil {
			return nil, fmt.Errorf("%q is no class of an answer", word)
		}
		classes[i].Label = label
	}
	return softmax(classes, scores, top), nil
}

// known is Model, asked once.
func (w *grpcWire) known(ctx context.Context, name, version string) (Model, error) {
	key := [2]string{name, version}
	if m, ok := w.models.Load(key); ok {
		return m.(Model), nil
	}
	m, err := w.Model(ctx, name, version)
	if err == nil {
		w.models.Store(key, m)
	}
	return m, err
}

// Strings splits the data of a tensor of datatype BYTES.
func Strings(data []byte) ([]string, error) {
	var all []string
	for len(data) > 0 {
		if len(data) < 4 || uint64(len(data)-4) < uint64(binary.LittleEndian.Uint32(data)) {
			return nil, errors.New("a string is longer than its tensor")
		}
		n := binary.LittleEndian.Uint32(data)
		all = append(all, string(data[4:4+n]))
		data = data[4+n:]
	}
	return all, nil
}
