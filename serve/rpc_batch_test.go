package serve_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"spos/serve"
	"spos/serve/oippb"
)

// member is a request that may be batched with others.
type member struct {
	over    string // HTTP, gRPC or stream
	at      int    // ms
	rows    int
	bad     bool
	timeout int // ms; 0: none
	leave   int // ms after at; 0: stays
	code    codes.Code
}

// ask sends the n-th request and says what is wrong with its answer, with a status where that is a failure.
func (m *member) ask(ctx context.Context, b *rpcBubble, n int) error {
	if m.over == "HTTP" {
		request, answer := rowsOf(n, m.rows)
		if o := <-b.do(ctx, "POST", "/v2/models/m/infer", request); o.code != 200 || !strings.Contains(o.body, answer) {
			return fmt.Errorf("%+v, want %s", o, answer)
		}
		return nil
	}
	xs := make([]float32, 3*m.rows)
	for i := range xs {
		xs[i] = float32(1000*n + i)
		if m.bad {
			xs[i] = -1
		}
	}
	q := rawRequest(floats(xs...), int64(m.rows), 3)
	if m.timeout > 0 {
		q.Parameters = map[string]*oippb.InferParameter{"timeout": parameter(1000 * m.timeout)}
	}
	r, err := m.call(ctx, b, q)
	if err != nil {
		return err
	}
	shape, got := r.GetOutputs()[0].GetShape(), r.GetRawOutputContents()[0]
	if shape[0] != int64(m.rows) || !bytes.Equal(got, floats(xs...)) {
		return fmt.Errorf("%v %x, want %d rows, %x", shape, got, m.rows, floats(xs...))
	}
	return nil
}

func (m *member) call(ctx context.Context, b *rpcBubble, q *oippb.ModelInferRequest) (*oippb.ModelInferResponse, error) {
	if m.over == "gRPC" {
		return client(b.conn).ModelInfer(ctx, q)
	}
	stream, err := client(b.conn).ModelStreamInfer(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(q); err != nil {
		return nil, err
	}
	s, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if text := s.GetErrorMessage(); text != "" {
		return nil, status.Error(codes.Internal, text)
	}
	return s.GetInferResponse(), stream.CloseSend()
}

// TestBatchingOverBothProtocols has requests of both in one batch: each gets what it gets by itself.
func TestBatchingOverBothProtocols(t *testing.T) {
	four := serve.Batching{Max: 4}
	mixed := []member{{over: "HTTP", rows: 1}, {over: "gRPC", at: 1, rows: 1}, {over: "HTTP", at: 2, rows: 2}, {over: "stream", at: 3, rows: 1}}
	for name, tt := range map[string]struct {
		options serve.Batching
		members []member
		runs    string
	}{
		"off":                 {serve.Batching{}, mixed, "0+1 10+1 20+2 30+1"},
		"together":            {four, mixed, "0+1 10+4"},
		"waits for company":   {serve.Batching{Max: 4, Delay: 5e6}, []member{{over: "gRPC", rows: 1}, {over: "HTTP", at: 3, rows: 2}}, "5+3"},
		"larger than a batch": {four, []member{{over: "gRPC", rows: 9}, {over: "HTTP", at: 1, rows: 1}, {over: "stream", at: 2, rows: 3}}, "0+9 10+4"},
		"one is bad": {four, []member{
			{over: "HTTP", rows: 1}, {over: "gRPC", at: 1, rows: 1, bad: true, code: codes.Internal}, {over: "HTTP", at: 2, rows: 1},
			{over: "stream", at: 3, rows: 1, bad: true, code: codes.Internal},
		}, "0+1 10+3 20+1 30+1 40+1"},
		"times out in the queue": {four, []member{
			{over: "HTTP", rows: 1}, {over: "gRPC", at: 1, rows: 1, timeout: 5, code: codes.DeadlineExceeded}, {over: "HTTP", at: 2, rows: 1},
		}, "0+1 10+1"},
		"times out at work": {four, []member{
			{over: "HTTP", rows: 1}, {over: "gRPC", at: 1, rows: 1, timeout: 14, code: codes.DeadlineExceeded}, {over: "HTTP", at: 2, rows: 1},
		}, "0+1 10+2"},
		"leaves the queue": {four, []member{
			{over: "HTTP", rows: 1}, {over: "gRPC", at: 1, rows: 1, leave: 4, code: codes.Canceled}, {over: "HTTP", at: 2, rows: 2},
		}, "0+1 10+2"},
		"all leave at work": {four, []member{
			{over: "HTTP", rows: 1}, {over: "gRPC", at: 1, rows: 1, leave: 12, code: codes.Canceled},
			{over: "stream", at: 2, rows: 2, leave: 12, code: codes.Canceled}, {over: "HTTP", at: 16, rows: 1},
		}, "0+1 10+3 16+1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newSteady(tt.options)
				b := newRPCBubble(t, serve.Options{Cores: 1}, m)
				defer b.finish()
				m.start = time.Now()
				var requests sync.WaitGroup
				for i, member := range tt.members {
					requests.Go(func() {
						time.Sleep(time.Duration(member.at) * time.Millisecond)
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						if member.leave > 0 {
							defer time.AfterFunc(time.Duration(member.leave)*time.Millisecond, cancel).Stop()
						}
						if err := member.ask(ctx, b, i+1); status.Code(err) != member.code {
							t.Errorf("request %d: %v, want %v", i, err, member.code)
						}
					})
				}
				requests.Wait()
				synctest.Wait()
				if runs := strings.Join(m.log, " "); runs != tt.runs {
					t.Errorf("runs %s, want %s", runs, tt.runs)
				}
			})
		})
	}
}
