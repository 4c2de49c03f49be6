package serve_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"spos/serve"
	"spos/serve/oippb"
)

// rpcBubble is a bubble whose server speaks gRPC as well, and a client of that.
type rpcBubble struct {
	*bubble
	pipes *pipes // of gRPC
	conn  *grpc.ClientConn
}

func newRPCBubble(t *testing.T, o serve.Options, models ...serve.Model) *rpcBubble {
	t.Helper()
	b := &rpcBubble{pipes: newPipes()}
	o.GRPCListener = b.pipes
	b.bubble = newBubble(t, o, models...)
	b.conn = dial(t, "passthrough:///pipes", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return b.pipes.dial(ctx, "", "")
	}))
	synctest.Wait()
	return b
}

// finish stops the server, which must end well and hold nothing.
func (b *rpcBubble) finish() {
	b.t.Helper()
	b.bubble.finish()
	if err := b.conn.Close(); err != nil {
		b.t.Error(err)
	}
	synctest.Wait()
}

// infer calls the model and returns where the outcome will be.
func (b *rpcBubble) infer(ctx context.Context, timeout int) <-chan error {
	c := make(chan error, 1)
	q := rawRequest(floats(1, 2, 3), 1, 3)
	if timeout > 0 {
		q.Parameters = map[string]*oippb.InferParameter{"timeout": parameter(timeout)}
	}
	go func() {
		_, err := client(b.conn).ModelInfer(ctx, q)
		c <- err
	}()
	return c
}

func TestRPCFullQueueRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newRPCBubble(t, serve.Options{Cores: 2, Queue: 3}, m)
		defer b.finish()
		var accepted []<-chan error
		for range 5 {
			accepted = append(accepted, b.infer(t.Context(), 0))
		}
		synctest.Wait()
		before := time.Now()
		for range 10 {
			wantCode(t, <-b.infer(t.Context(), 0), codes.Unavailable, "queue is full")
		}
		if waited := time.Since(before); waited != 0 {
			t.Errorf("refusals took %v", waited)
		}
		close(m.gate)
		for _, c := range accepted {
			if err := <-c; err != nil {
				t.Errorf("an accepted request: %v", err)
			}
		}
		if most := m.most.Load(); most != 2 {
			t.Errorf("%d ran at once on 2 cores", most)
		}
	})
}

func TestRPCDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newRPCBubble(t, serve.Options{Cores: 1, Timeout: time.Minute}, m)
		defer b.finish()
		before := time.Now()
		running := b.infer(t.Context(), 0)
		synctest.Wait()
		wantCode(t, <-b.infer(t.Context(), 2_000_000), codes.DeadlineExceeded, "in the queue")
		if waited := time.Since(before); waited != 2*time.Second {
			t.Errorf("the queue let go after %v", waited)
		}
		wantCode(t, <-running, codes.DeadlineExceeded, "while the model computed")
		if waited := time.Since(before); waited != time.Minute {
			t.Errorf("the run ended after %v", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		wantCode(t, <-b.infer(ctx, 0), codes.DeadlineExceeded, "")
		synctest.Wait()
		if n := m.running.Load(); n != 0 {
			t.Errorf("%d still run after the call's own deadline", n)
		}
	})
}

func TestRPCClientThatLeavesFreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newRPCBubble(t, serve.Options{Cores: 1, Queue: 1}, m)
		defer b.finish()
		first, leaveFirst := context.WithCancel(t.Context())
		second, leaveSecond := context.WithCancel(t.Context())
		running := b.infer(first, 0)
		synctest.Wait()
		queued := b.infer(second, 0)
		synctest.Wait()
		leaveSecond()
		wantCode(t, <-queued, codes.Canceled, "")
		leaveFirst()
		wantCode(t, <-running, codes.Canceled, "")
		synctest.Wait()
		if n := m.running.Load(); n != 0 {
			t.Errorf("%d still run", n)
		}
		close(m.gate)
		if err := <-b.infer(t.Context(), 0); err != nil || m.runs.Load() != 2 {
			t.Errorf("afterwards: %v and %d runs", err, m.runs.Load())
		}
	})
}

func TestRPCStopLosesNoAcceptedRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newRPCBubble(t, serve.Options{Cores: 2, DrainDelay: 5 * time.Second}, m)
		watch, err := grpc_health_v1.NewHealthClient(b.conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := watch.Recv(); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Fatalf("health: %v, %v", r, err)
		}
		idle, err := client(b.conn).ModelStreamInfer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		busy, err := client(b.conn).ModelStreamInfer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := busy.Send(rawRequest(floats(1, 2, 3), 1, 3)); err != nil {
				t.Fatal(err)
			}
		}
		lists, err := grpc_reflection_v1.NewServerReflectionClient(b.conn).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var accepted []<-chan error
		for range 20 {
			accepted = append(accepted, b.infer(t.Context(), 0))
		}
		synctest.Wait()
		b.stop()
		if r, err := watch.Recv(); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
			t.Errorf("health while stopping: %v, %v", r, err)
		}
		if r, err := client(b.conn).ServerReady(t.Context(), &oippb.ServerReadyRequest{}); err != nil || r.GetReady() {
			t.Errorf("ready while stopping: %v, %v", r, err)
		}
		time.Sleep(6 * time.Second) // the bubble's clock: past the delay
		if err := <-b.infer(t.Context(), 0); status.Code(err) != codes.Unavailable {
			t.Errorf("a late request: %v", err)
		}
		if _, err := watch.Recv(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the watch ended with %v", err)
		}
		_, err = idle.Recv()
		wantCode(t, err, codes.Unavailable, "stopped")
		if _, err := lists.Recv(); err == nil {
			t.Error("the reflection did not end")
		}
		if m.closed.Load() {
			t.Error("the model was closed under its requests")
		}
		close(m.gate)
		for _, c := range accepted {
			if err := <-c; err != nil {
				t.Errorf("an accepted request: %v", err)
			}
		}
		for i := range 3 {
			if r, err := busy.Recv(); err != nil || r.GetErrorMessage() != "" {
				t.Errorf("request %d of a stream: %v, %v", i, r, err)
			}
		}
		_, err = busy.Recv()
		wantCode(t, err, codes.Unavailable, "stopped")
		b.finish()
		if !m.closed.Load() || m.late.Load() {
			t.Errorf("closed %v, run after close %v", m.closed.Load(), m.late.Load())
		}
	})
}

func TestRPCStopCutsWhatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRPCBubble(t, serve.Options{Cores: 1, Timeout: time.Hour, DrainTimeout: 10 * time.Second}, newGated())
		running, queued := b.infer(t.Context(), 0), b.infer(t.Context(), 0)
		silent, err := b.pipes.dial(t.Context(), "", "") // a connection that never says what it speaks
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.stop()
		for _, c := range []<-chan error{running, queued} {
			wantCode(t, <-c, codes.Unavailable, "stopped")
		}
		if err := <-b.done; err == nil || !strings.Contains(err.Error(), "10s") {
			t.Errorf("Run: %v", err)
		}
		if err := errors.Join(silent.Close(), b.conn.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestRPCStream answers in order whatever ends first, goes on after errors, and keeps to the cores.
func TestRPCStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		slow := echoModel("slow", fp32x3)
		slow.run = func(ctx context.Context, in, out []serve.Tensor) error {
			if in[0].Data[0] != 0 {
				<-m.gate
			}
			return echo(ctx, in, out)
		}
		b := newRPCBubble(t, serve.Options{Cores: 2}, m, slow)
		defer b.finish()
		stream, err := client(b.conn).ModelStreamInfer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		requests := []*oippb.ModelInferRequest{
			rpcRequest("slow", [][]byte{{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}, rpcInput("x", "FP32", 1, 3)),
			rpcRequest("slow", [][]byte{floats(0, 2, 3)}, rpcInput("x", "FP32", 1, 3)),
			rpcRequest("nope", [][]byte{bytes.Repeat([]byte("x"), 1<<20)}, rpcInput("x", "FP32", 1, 3)),
			rpcRequest("slow", nil, rpcInput("x", "FP32", 1, 3)),
			rawRequest(floats(4, 5, 6), 1, 3), rawRequest(floats(4, 5, 6), 1, 3), rawRequest(floats(4, 5, 6), 1, 3),
		}
		for i, q := range requests {
			q.Id = string(rune('a' + i))
		}
		go func() {
			for _, q := range requests {
				if err := stream.Send(q); err != nil {
					t.Error(err)
				}
			}
		}()
		synctest.Wait()
		close(m.gate)
		for i, want := range []string{"", "", `unknown model "nope"`, "no contents", "", "", ""} {
			r, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got := r.GetInferResponse().GetId(); got != string(rune('a'+i)) {
				t.Errorf("answer %d is for %q", i, got)
			}
			if text := r.GetErrorMessage(); text != want && !strings.Contains(text, want) || text != "" && want == "" {
				t.Errorf("answer %d: %q, want %q", i, text, want)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the stream ended with %v", err)
		}
		if most := m.most.Load(); most > 2 {
			t.Errorf("%d ran at once on 2 cores", most)
		}
	})
}

// frames is a client that speaks HTTP/2 frame by frame.
type frames struct {
	*http2.Framer
	conn net.Conn
}

func (b *rpcBubble) frames() *frames {
	b.t.Helper()
	conn, err := b.pipes.dial(b.t.Context(), "", "")
	if err != nil {
		b.t.Fatal(err)
	}
	f := &frames{http2.NewFramer(conn, conn), conn}
	go func() { // a pipe has no memory
		_, err := io.WriteString(conn, http2.ClientPreface)
		if err == nil {
			err = f.WriteSettings()
		}
		if err != nil {
			b.t.Error(err)
		}
	}()
	return f
}

// call opens a call. Its frames are read by whoever calls rest.
func (f *frames) call(t *testing.T, id uint32, method string) {
	t.Helper()
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, h := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/inference.GRPCInferenceService/" + method},
		{Name: ":authority", Value: "s"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	} {
		if err := enc.WriteField(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
}

// message is a message as the wire has it.
func message(t *testing.T, q proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// rest reads what the server sends, opening no window, until a stream ends or the connection does, and returns the
// status of the stream, the last error code, and the bytes of its data.
func (f *frames) rest(acks bool) (grpcStatus, text string, data int) {
	dec := hpack.NewDecoder(4096, func(h hpack.HeaderField) {
		switch h.Name {
		case "grpc-status":
			grpcStatus = h.Value
		case "grpc-message":
			text = h.Value
		}
	})
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return grpcStatus, text, data
		}
		switch frame := frame.(type) {
		case *http2.PingFrame:
			if acks && !frame.IsAck() {
				go func() { _ = f.WritePing(true, frame.Data) }()
			}
		case *http2.DataFrame:
			data += len(frame.Data())
		case *http2.HeadersFrame:
			if _, err := dec.Write(frame.HeaderBlockFragment()); err != nil || frame.StreamEnded() {
				return grpcStatus, text, data
			}
		case *http2.RSTStreamFrame:
			return "reset", frame.ErrCode.String(), data
		}
	}
}

// TestRPCSlowClients writes as slowly as hostile clients do; the server must let go at its deadlines, and hold little.
func TestRPCSlowClients(t *testing.T) {
	whole := func(t *testing.T) []byte { return message(t, rawRequest(make([]byte, 12<<20), 1<<20, 3)) }
	for name, tt := range map[string]struct {
		sent  int
		drip  int // every 3 seconds
		limit time.Duration
	}{
		"no message":      {0, 0, 10 * time.Second},
		"half a header":   {3, 0, 10 * time.Second},
		"a header":        {5, 0, 10 * time.Second},
		"half a message":  {1000, 0, 10 * time.Second},
		"a dripping tail": {60000, 10, 10 * time.Second},
		"a slow tensor":   {64, 16 << 10, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRPCBubble(t, serve.Options{BodyTimeout: time.Minute}, echoModel("m", fp32x3))
				defer b.finish()
				f := b.frames()
				msg := whole(t)
				start := time.Now()
				var writer sync.WaitGroup
				writer.Go(func() {
					synctest.Wait()
					f.call(t, 1, "ModelInfer")
					for rest := msg[:tt.sent]; len(rest) > 0; {
						n := min(len(rest), 16<<10)
						if f.WriteData(1, false, rest[:n]) != nil {
							return
						}
						rest = rest[n:]
					}
					for at := tt.sent; tt.drip > 0; at += tt.drip {
						time.Sleep(3 * time.Second)
						if n := serve.Held(b.server); n > 5<<20 {
							t.Errorf("%d bytes are held for what was announced", n)
						}
						if f.WriteData(1, false, msg[at:at+tt.drip]) != nil {
							return
						}
					}
				})
				code, text, _ := f.rest(true)
				if code != "4" || !strings.Contains(text, "in time") {
					t.Errorf("status %q %q", code, text)
				}
				if took := time.Since(start); took > tt.limit+time.Second || took < tt.limit {
					t.Errorf("let go after %v, the limit is %v", took, tt.limit)
				}
				if err := f.conn.Close(); err != nil {
					t.Error(err)
				}
				writer.Wait()
			})
		})
	}
}

// TestRPCClientThatDoesNotRead never opens a window for its answer, whose memory must come back all the same.
func TestRPCClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := echoModel("m", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1}})
		b := newRPCBubble(t, serve.Options{WriteIdleTimeout: 20 * time.Second}, big)
		f := b.frames()
		msg := message(t, rawRequest(make([]byte, 256<<10), 64<<10))
		go func() {
			synctest.Wait()
			f.call(t, 1, "ModelInfer")
			for rest := msg; len(rest) > 0; {
				synctest.Wait() // for the window to be open again
				n := min(len(rest), 16<<10)
				if err := f.WriteData(1, n == len(rest), rest[:n]); err != nil {
					t.Error(err)
				}
				rest = rest[n:]
			}
		}()
		start := time.Now()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			code, text, data := f.rest(true)
			if code == "0" || data == 0 || data > 70<<10 {
				t.Errorf("status %q %q after %d bytes", code, text, data)
			}
		}()
		time.Sleep(time.Second)
		if serve.Held(b.server) == 0 {
			t.Error("the answer's memory is not counted while it is sent")
		}
		<-ended
		if took := time.Since(start); took < 20*time.Second || took > 25*time.Second {
			t.Errorf("let go after %v", took)
		}
		synctest.Wait()
		if n := serve.Held(b.server); n != 0 {
			t.Errorf("%d bytes are held", n)
		}
		if err := f.conn.Close(); err != nil {
			t.Error(err)
		}
		b.finish()
	})
}

// TestRPCManyStalledCalls opens more calls that say nothing than the memory limit has windows for.
func TestRPCManyStalledCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRPCBubble(t, serve.Options{Memory: 1 << 20}, echoModel("m", fp32x3))
		defer b.finish()
		desc := &grpc.StreamDesc{ClientStreams: true}
		ended := make(chan codes.Code, 20)
		for range 20 {
			s, err := b.conn.NewStream(t.Context(), desc, "/inference.GRPCInferenceService/ModelInfer")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				ended <- status.Code(s.RecvMsg(&oippb.ModelInferResponse{}))
			}()
			synctest.Wait()
		}
		if len(ended) != 4 {
			t.Errorf("%d of 20 were refused at once", len(ended))
		}
		for range len(ended) {
			if code := <-ended; code != codes.Unavailable {
				t.Errorf("refused with %v", code)
			}
		}
		time.Sleep(11 * time.Second)
		if err := <-b.infer(t.Context(), 0); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestRPCConnectionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRPCBubble(t, serve.Options{MaxConns: 1, IdleTimeout: time.Minute}, echoModel("m", fp32x3))
		if err := <-b.infer(t.Context(), 0); err != nil { // its connection stays open
			t.Fatal(err)
		}
		start := time.Now()
		second, err := b.pipes.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited < time.Minute || waited > 2*time.Minute {
			t.Errorf("a second connection was accepted after %v", waited)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		b.finish()
	})
}
