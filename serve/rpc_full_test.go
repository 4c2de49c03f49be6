package serve_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"spos/serve"
	"spos/serve/oippb"
)

// inferWithout opens a call of ModelInfer and sends no message. It returns what the server says of it.
func (b *rpcBubble) inferWithout(ctx context.Context) error {
	b.t.Helper()
	stream, err := b.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, oippb.GRPCInferenceService_ModelInfer_FullMethodName)
	if err != nil {
		b.t.Fatal(err)
	}
	return stream.RecvMsg(new(emptypb.Empty))
}

// TestRPCFullQueueTakesNoMessage: a call is refused by its header alone where every queue is full, and only there.
func TestRPCFullQueueTakesNoMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy, other := newGated(), newGated()
		other.info.Name = "other"
		b := newRPCBubble(t, serve.Options{Cores: 1, Queue: 1}, busy, other)
		defer b.finish()
		accepted := []<-chan error{b.infer(t.Context(), 0), b.infer(t.Context(), 0)}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan error, 1)
		go func() { waiting <- b.inferWithout(ctx) }()
		synctest.Wait()
		select {
		case err := <-waiting:
			t.Errorf("the other model has room, and a call that may be for it got %v", err)
		default:
		}
		cancel()
		<-waiting
		close(other.gate)
		q := rawRequest(floats(1, 2, 3), 1, 3)
		q.ModelName = "other"
		for range 2 { // whose run waits for the core
			done := make(chan error, 1)
			accepted = append(accepted, done)
			go func() {
				_, err := client(b.conn).ModelInfer(t.Context(), q)
				done <- err
			}()
		}
		synctest.Wait()
		wantCode(t, b.inferWithout(t.Context()), codes.Unavailable, "queue is full")
		close(busy.gate)
		for _, c := range accepted {
			if err := <-c; err != nil {
				t.Errorf("an accepted request: %v", err)
			}
		}
	})
}

// TestRPCFullQueueIsNoModels: a call that is refused by its header may be for a model that is not there, and is counted
// for none.
func TestRPCFullQueueIsNoModels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newRPCBubble(t, serve.Options{Cores: 1, Queue: 1}, m)
		defer b.finish()
		accepted := []<-chan error{b.infer(t.Context(), 0), b.infer(t.Context(), 0)}
		synctest.Wait()
		q := rawRequest(floats(1, 2, 3), 1, 3)
		q.ModelName = "unknown"
		_, err := client(b.conn).ModelInfer(t.Context(), q)
		wantCode(t, err, codes.Unavailable, "every model's queue is full")
		for _, want := range []string{
			`spos_serve_requests_total{code="Unavailable",model="",route="ModelInfer",version=""} 1`,
			`spos_serve_rejected_total{model="",reason="queue_full",version=""} 1`,
		} {
			if text := b.metrics(); !strings.Contains(text, want+"\n") {
				t.Errorf("no %s in\n%s", want, text)
			}
		}
		close(m.gate)
		for _, c := range accepted {
			if err := <-c; err != nil {
				t.Errorf("an accepted request: %v", err)
			}
		}
		stats, err := client(b.conn).ModelStatistics(t.Context(), &oippb.ModelStatisticsRequest{Name: "m"})
		if err != nil {
			t.Fatal(err)
		}
		if s := stats.ModelStats[0].InferenceStats; s.Success.Count != 2 || s.Fail.Count != 0 {
			t.Errorf("%d succeeded and %d failed, want 2 and none", s.Success.Count, s.Fail.Count)
		}
		_, err = client(b.conn).ModelInfer(t.Context(), q)
		wantCode(t, err, codes.NotFound, "unknown model")
	})
}

// TestRPCRefusalsHaveAnID: what a call's header gets is known by the id of the request, as every answer is.
func TestRPCRefusalsHaveAnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newRPCBubble(t, serve.Options{Cores: 1, Queue: 1, Tokens: tokensFile(t)}, m)
		defer b.finish()
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+inferSecret, "x-request-id", "mine-7")
		accepted := []<-chan error{b.infer(ctx, 0), b.infer(ctx, 0)}
		synctest.Wait()
		for code, ctx := range map[codes.Code]context.Context{
			codes.Unavailable:     ctx,
			codes.Unauthenticated: metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "mine-7"),
		} {
			s := status.Convert(<-b.infer(ctx, 0))
			if s.Code() != code || len(s.Details()) != 1 {
				t.Fatalf("%v with the details %v, want %v", s, s.Details(), code)
			}
			if info, ok := s.Details()[0].(*errdetails.RequestInfo); !ok || info.GetRequestId() != "mine-7" {
				t.Errorf("%v says of the request %v", code, s.Details()[0])
			}
		}
		close(m.gate)
		for _, c := range accepted {
			if err := <-c; err != nil {
				t.Errorf("an accepted request: %v", err)
			}
		}
	})
}
