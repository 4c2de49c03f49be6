package serve

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
)

// rpcRequest is an inference request on its way through the server. Its memory and its model are held until close.
type rpcRequest struct {
	s   *Server
	c   *call
	mem arena
	req inferRequest
}

func (s *Server) request(c *call) *rpcRequest {
	return &rpcRequest{s: s, c: c, mem: arena{m: &s.memory}}
}

// receive reads the message that in has come to, of which src is the content.
func (q *rpcRequest) receive(ctx context.Context, in *inbound, src io.Reader) error {
	r := rpcReader{src: src, requestParts: requestParts{mem: &q.mem}}
	r.find = func(model, version string) (*ModelInfo, error) {
		q.c.model, q.c.version = model, version
		v, sl, err := q.s.loaded(model, version)
		if sl != nil {
			in.slow.Stop() // a load may take longer than a message may pause
			v, err = q.s.loadLazily(ctx, sl)
			in.slow.Reset(q.s.opt.BodyIdleTimeout)
		}
		if err != nil {
			return nil, err
		}
		q.c.found = v
		return &v.info, v.gate.refuse()
	}
	err := r.read()
	q.req = r.req
	return err
}

// compute makes the reply.
func (q *rpcRequest) compute(ctx context.Context, stream bool) (*reply, error) {
	v := q.c.found
	out, err := q.s.compute(ctx, v, &q.req, &q.mem, &q.c.spans)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	r, err := v.encode(&q.req, out, stream)
	q.c.spans.end = time.Now()
	q.c.spans.output = q.c.spans.end.Sub(begun)
	return r, err
}

// count ends the statistics of the request.
func (q *rpcRequest) count(err error) {
	if q.c.found != nil {
		q.c.found.stats.request(&q.c.spans, err)
	}
}

// modelInfer answers one request.
func (g *rpcServer) modelInfer(ss grpc.ServerStream) (err error) {
	ctx := ss.Context()
	in, err := g.inbound(ctx)
	if err != nil {
		return err
	}
	defer in.slow.Stop()
	in.slow.Reset(g.s.opt.BodyIdleTimeout)
	src, err := in.next()
	if errors.Is(err, io.EOF) {
		return badRequest("a call without a message")
	}
	if err != nil {
		return err
	}
	q := g.s.request(&in.call.call)
	defer func() { q.c.body.read = in.read }()
	defer q.mem.free()
	defer func() { q.count(err) }()
	if err := q.receive(ctx, in, src); err != nil {
		return err
	}
	if err := in.finish(); err != nil {
		return err
	}
	if err := in.last(); err != nil {
		return err
	}
	r, err := q.compute(ctx, false)
	if err != nil {
		return err
	}
	in.call.sent = r.size
	return g.s.send(ss, r, &q.mem)
}

// pending is a request of a stream and, when done is closed, what to answer.
type pending struct {
	start time.Time
	call  call
	q     *rpcRequest
	reply *reply
	err   error
	done  chan struct{}
}

// modelStreamInfer answers every request of a stream, in their order. It reads on while it computes: as many requests
// as there are cores are at work for one stream.
func (g *rpcServer) modelStreamInfer(ss grpc.ServerStream) error {
	ctx := ss.Context()
	in, err := g.inbound(ctx)
	if err != nil {
		return err
	}
	defer in.slow.Stop()
	idle := newIdleCancel(in.call.cancel, g.s.opt.IdleTimeout)
	defer idle.timer.Stop()
	defer g.whenIdle(idle.stop)()
	queue := make(chan *pending, g.s.opt.Cores-1)
	var sendErr error
	var sender sync.WaitGroup
	sender.Go(func() {
		for p := range queue {
			<-p.done
			if err := g.deliver(ss, p); err != nil && sendErr == nil {
				sendErr = err
				in.call.cancel(errGone)
			}
			idle.leave()
		}
	})
	err = g.accept(ctx, in, idle, queue)
	close(queue)
	sender.Wait()
	if errors.Is(err, io.EOF) {
		return sendErr
	}
	return err
}

// accept reads requests and sets them to work until the client has sent its last, or the server stops.
func (g *rpcServer) accept(ctx context.Context, in *inbound, idle *idleCancel, queue chan<- *pending) error {
	for {
		if idle.stopped() {
			return errStop
		}
		src, err := in.next()
		if err != nil {
			return err
		}
		idle.enter()
		p := &pending{start: time.Now(), call: call{id: in.call.id, route: in.call.route}, done: make(chan struct{})}
		g.traceMessage(&in.call.call, &p.call)
		p.q = g.s.request(&p.call)
		before := in.read
		p.err = g.s.guarded(p.call.id, func() error { return p.q.receive(ctx, in, src) })
		err = in.finish()
		p.call.body.read = in.read - before
		if p.err == nil {
			p.err = err
		}
		if p.err == nil {
			go func() {
				defer close(p.done)
				p.err = g.s.guarded(p.call.id, func() (err error) {
					p.reply, err = p.q.compute(ctx, true)
					return err
				})
			}()
		} else {
			close(p.done)
		}
		queue <- p
		if err != nil {
			return err
		}
	}
}

// deliver sends the answer to a request of a stream, and counts it.
func (g *rpcServer) deliver(ss grpc.ServerStream, p *pending) (err error) {
	defer func() {
		p.q.mem.free()
		if p.call.found != nil {
			p.call.found.release()
		}
	}()
	p.q.count(p.err)
	p.err = g.answer(&p.call, p.err)
	if p.err != nil {
		p.reply = streamError(p.err.Error(), p.q.req.id)
	}
	err = g.s.send(ss, p.reply, &p.q.mem)
	g.account(ss.Context(), &p.call, p.err, p.reply.size, time.Since(p.start))
	g.traceRPC(&p.call, p.err)
	return err
}

// streamError is a ModelStreamInferResponse with an error, and the id of the request that it answers.
func streamError(text, id string) *reply {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), text)
	var inner []byte
	if id != "" {
		inner = protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), id)
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), inner)
	return &reply{head: b, size: int64(len(b))}
}

// idleCancel cancels a stream that has no request, when it is told to stop or has had none for long.
type idleCancel struct {
	cancel context.CancelCauseFunc
	limit  time.Duration
	timer  *time.Timer

	mu      sync.Mutex
	busy    int
	stopNow bool
}

func newIdleCancel(cancel context.CancelCauseFunc, limit time.Duration) *idleCancel {
	i := &idleCancel{cancel: cancel, limit: limit}
	i.timer = time.AfterFunc(limit, func() { i.end(errIdle) })
	return i
}

// end cancels the stream unless it has a request.
func (i *idleCancel) end(cause error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy == 0 {
		i.cancel(cause)
	}
}

func (i *idleCancel) enter() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.busy++
}

func (i *idleCancel) leave() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy--; i.busy == 0 {
		i.timer.Reset(i.limit)
		if i.stopNow {
			i.cancel(errStop)
		}
	}
}

func (i *idleCancel) stop() {
	i.mu.Lock()
	i.stopNow = true
	i.mu.Unlock()
	i.end(errStop)
}

func (i *idleCancel) stopped() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stopNow
}
