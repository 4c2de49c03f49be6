package serve

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// smallReply is copied and forgotten; a larger one is lent to grpc, and the call waits until it is sent.
	smallReply = 16 << 10
	replyPiece = 64 << 10
)

// reply is an encoded message.
type reply struct {
	head []byte // all of a small one
	raw  []lent // the tensors of a larger one, in pieces
	size int64
	sent sending
}

// lent is memory of the request's arena, or the field's head before it.
type lent struct {
	data  []byte
	arena bool
}

// replyCodec passes replies on as they are.
type replyCodec struct{ encoding.CodecV2 }

func (c replyCodec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*reply); ok {
		return r.buffers(), nil
	}
	return c.CodecV2.Marshal(v)
}

// encode makes a ModelInferResponse, or the ModelStreamInferResponse that holds one.
func (v *version) encode(req *inferRequest, out []Tensor, stream bool) (*reply, error) {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), v.info.Name)
	b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), v.info.Version)
	if req.id != "" {
		b = protowire.AppendString(protowire.AppendTag(b, 3, protowire.BytesType), req.id)
	}
	var text, dims []byte
	total := 0
	for _, t := range out {
		dims = dims[:0]
		for _, d := range t.Shape {
			dims = protowire.AppendVarint(dims, uint64(d))
		}
		text = protowire.AppendString(protowire.AppendTag(text[:0], 1, protowire.BytesType), t.Name)
		text = protowire.AppendString(protowire.AppendTag(text, 2, protowire.BytesType), t.Type.String())
		text = protowire.AppendBytes(protowire.AppendTag(text, 3, protowire.BytesType), dims)
		b = protowire.AppendBytes(protowire.AppendTag(b, 5, protowire.BytesType), text)
		total += 1 + protowire.SizeBytes(len(t.Data))
	}
	const most = 1<<31 - 1 // of a protobuf message
	if total > most-len(b) {
		return nil, fmt.Errorf("an answer of %d bytes", total)
	}
	if stream {
		whole := protowire.AppendTag(nil, 2, protowire.BytesType)
		b = append(protowire.AppendVarint(whole, uint64(len(b)+total)), b...)
	}
	size := len(b) + total
	r := lend(b, out, size <= smallReply)
	r.size = int64(size)
	return r, nil
}

// lend appends the raw outputs to a reply.
func lend(b []byte, out []Tensor, small bool) *reply {
	r := &reply{}
	for _, t := range out {
		b = protowire.AppendVarint(protowire.AppendTag(b, 6, protowire.BytesType), uint64(len(t.Data)))
		d := t.Data
		for !small && len(d) >= 2*1024 { // grpc counts the users of no less
			n := min(len(d), replyPiece)
			r.raw = append(r.raw, lent{b, false}, lent{d[:n:n], true})
			b, d = nil, d[n:]
		}
		b = append(b, d...)
	}
	if r.raw == nil {
		r.head = b
	} else if len(b) > 0 {
		r.raw = append(r.raw, lent{b, false})
	}
	return r
}

// buffers is the reply as grpc takes it. It is called once.
func (r *reply) buffers() mem.BufferSlice {
	if r.raw == nil {
		return mem.BufferSlice{mem.SliceBuffer(r.head)}
	}
	r.sent.note = make(chan struct{}, 1)
	var bufs mem.BufferSlice
	for i := range r.raw {
		switch p := &r.raw[i]; {
		case p.arena:
			r.sent.left.Add(1)
			bufs = append(bufs, mem.NewBuffer(&p.data, &r.sent))
		case len(p.data) > 0:
			bufs = append(bufs, mem.SliceBuffer(p.data))
		}
	}
	return bufs
}

// sending counts the pieces that grpc still holds. It is the pool that they go back to.
type sending struct {
	left atomic.Int64
	note chan struct{}
}

func (s *sending) Get(n int) *[]byte { b := make([]byte, n); return &b }

func (s *sending) Put(*[]byte) {
	s.left.Add(-1)
	select {
	case s.note <- struct{}{}:
	default:
	}
}

// wait returns when grpc holds nothing any more, and false when no piece has left it for the idle time.
func (s *sending) wait(ctx context.Context, idle time.Duration) (ok bool) {
	if s.note == nil {
		return true
	}
	slow := time.NewTimer(idle)
	defer slow.Stop()
	for s.left.Load() > 0 {
		select {
		case <-s.note:
			slow.Reset(idle)
		case <-slow.C:
			return false
		case <-ctx.Done():
			return true
		}
	}
	return true
}

// send sends a reply whose outputs are in the arena. They are not touched again before grpc is done with them.
func (s *Server) send(ss grpc.ServerStream, r *reply, a *arena) error {
	err := ss.SendMsg(r)
	if err == nil && !r.sent.wait(ss.Context(), s.opt.WriteIdleTimeout) {
		// The end of a call queues behind its answer; what frees both is the end of the connection.
		if _, p := peerOf(ss.Context()); p.conn != nil {
			_ = p.conn.Close()
		}
		err = errGone
	}
	if r.sent.left.Load() > 0 {
		a.abandon()
		err = errGone
	}
	if err != nil {
		return errGone
	}
	return nil
}
