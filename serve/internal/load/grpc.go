package load

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// grpcClient sends the same message again and again over one connection.
type grpcClient struct {
	conn    *grpc.ClientConn
	request mem.BufferSlice
}

// Bytes is a field of a message that ModelInfer takes, or of one inside it.
func Bytes[T string | []byte](field protowire.Number, content T) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), []byte(content))
}

// GRPC is a client that calls ModelInfer with an encoded ModelInferRequest.
func GRPC(addr string, request []byte) Dial {
	return func() (Client, error) {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(verbatim{})))
		if err != nil {
			return nil, err
		}
		return &grpcClient{conn, mem.BufferSlice{mem.SliceBuffer(request)}}, nil
	}
}

func (c *grpcClient) Do() (Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := c.conn.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", c.request, nil)
	switch status.Code(err) {
	case codes.OK:
		return Answered, nil
	case codes.Unavailable:
		return Refused, nil
	}
	return Failed, fmt.Errorf("gRPC: %w", err)
}

func (c *grpcClient) Close() error { return c.conn.Close() }

// verbatim sends bytes as they are and looks at none that come.
type verbatim struct{}

func (verbatim) Marshal(v any) (mem.BufferSlice, error) { return v.(mem.BufferSlice), nil }
func (verbatim) Unmarshal(mem.BufferSlice, any) error   { return nil }
func (verbatim) Name() string                           { return "proto" }
