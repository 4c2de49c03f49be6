package serve

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"spos/serve/keys"
	"spos/serve/oippb"
)

const (
	// streamWindow is what a client may send before anybody reads it: the least that there is, for a call that is
	// refused has sent that in vain.
	streamWindow = 64 << 10
	connWindow   = 4 << 20
	readBuffer   = 64 << 10
	// maxControl bounds the messages of calls without tensors.
	maxControl = 256 << 10
	// A client may ask whether the server is alive this often, the server asks a silent client that often.
	minPing, pingAfter, pingTimeout = 10 * time.Second, time.Minute, 20 * time.Second
)

// rpcServer answers the protocol's gRPC form, beside the health and reflection services.
type rpcServer struct {
	oippb.UnimplementedGRPCInferenceServiceServer
	s        *Server
	grpc     *grpc.Server
	health   *health.Server
	routes   map[string]string // by full method name; the only source of labels
	whenCut  after             // calls when requests are cut
	whenIdle after             // calls when streams that wait for nothing end
	drain    context.CancelFunc
	conns    connSet
	open     atomic.Int64 // calls
	watches  atomic.Int64 // those of them that are streams of other services
}

// after is context.AfterFunc of a context.
type after func(do func()) (stop func() bool)

func afterDone(ctx context.Context) after {
	return func(do func()) func() bool { return context.AfterFunc(ctx, do) }
}

// rpc is what is known of a call beyond grpc.
type rpc struct {
	call
	method string // as the client wrote it
	start  time.Time
	cancel context.CancelCauseFunc // of the call's context
	sent   int64                   // bytes of its answer
}

type rpcKey struct{}

// rpcOf is the call that a context belongs to.
func rpcOf(ctx context.Context) *rpc { return ctx.Value(rpcKey{}).(*rpc) }

// newRPC makes the server. Calls are cancelled when work is done.
func newRPC(work context.Context, s *Server) *rpcServer {
	draining, drain := context.WithCancel(work)
	g := &rpcServer{
		s: s, health: health.NewServer(), routes: map[string]string{}, whenCut: afterDone(work), whenIdle: afterDone(draining), drain: drain,
	}
	g.setServing(false)
	g.grpc = grpc.NewServer(g.options()...)
	g.grpc.RegisterService(g.observed(inferenceService()), g)
	g.grpc.RegisterService(g.observed(&grpc_health_v1.Health_ServiceDesc), g.health)
	reflection.Register(g.grpc)
	for service, info := range g.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			full := "/" + service + "/" + m.Name
			g.routes[full] = strings.TrimPrefix(full[1:], oippb.GRPCInferenceService_ServiceDesc.ServiceName+"/")
		}
	}
	return g
}

// options are the limits, and the one place for credentials.
func (g *rpcServer) options() []grpc.ServerOption {
	o := &g.s.opt
	creds := insecure.NewCredentials()
	if g.s.certs != nil {
		creds = credentials.NewTLS(g.s.certs.Config(true, "h2"))
	}
	return []grpc.ServerOption{
		grpc.Creds(rpcCredentials{creds}),
		grpc.InTapHandle(g.admit),
		grpc.StreamInterceptor(g.stream),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return errMethod }),
		grpc.ForceServerCodecV2(replyCodec{encoding.GetCodecV2("proto")}),
		grpc.MaxRecvMsgSize(int(min(o.MaxBody, maxControl))),
		grpc.ReadBufferSize(readBuffer),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.ConnectionTimeout(o.HeaderTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: o.IdleTimeout, Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	}
}

// rpcCredentials note the connection beside what else is known of the other side.
type rpcCredentials struct {
	credentials.TransportCredentials
}

type rpcPeer struct {
	credentials.AuthInfo
	conn net.Conn
}

func (c rpcCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	return conn, rpcPeer{info, raw}, err
}

func (c rpcCredentials) Clone() credentials.TransportCredentials {
	return rpcCredentials{c.TransportCredentials.Clone()}
}

// peerOf is who sent a call.
func peerOf(ctx context.Context) (addr string, p rpcPeer) {
	if who, ok := peer.FromContext(ctx); ok {
		addr = who.Addr.String()
		p, _ = who.AuthInfo.(rpcPeer)
	}
	return addr, p
}

// inferenceService is the service as generated, but for the two calls that carry tensors: grpc would read a whole
// message into memory before anybody could refuse it.
func inferenceService() *grpc.ServiceDesc {
	d := oippb.GRPCInferenceService_ServiceDesc
	d.Methods, d.Streams = nil, []grpc.StreamDesc{
		{StreamName: "ModelInfer", ServerStreams: true, Handler: func(srv any, ss grpc.ServerStream) error { return srv.(*rpcServer).modelInfer(ss) }},
		{StreamName: "ModelStreamInfer", ServerStreams: true, ClientStreams: true, Handler: func(srv any, ss grpc.ServerStream) error { return srv.(*rpcServer).modelStreamInfer(ss) }},
	}
	for _, m := range oippb.GRPCInferenceService_ServiceDesc.Methods {
		if m.MethodName != "ModelInfer" {
			d.Methods = append(d.Methods, m)
		}
	}
	return &d
}

// admit sees a call before anything else does, on the goroutine that reads its connection.
func (g *rpcServer) admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	r := &rpc{method: info.FullMethodName, start: time.Now(), call: call{route: "unknown"}}
	r.id = cleanID(strings.Join(info.Header.Get("x-request-id"), ","))
	if route, ok := g.routes[info.FullMethodName]; ok {
		r.route = route
	}
	ctx = context.WithValue(ctx, rpcKey{}, r)
	g.traceCall(ctx, r, info.Header)
	var err error
	r.token, err = g.s.access.authorize(g.scopeOf(r.route), info.Header.Get("authorization"))
	if err == nil && r.route == "ModelInfer" {
		err = g.s.full()
	}
	if err != nil {
		g.account(ctx, &r.call, err, 0, time.Since(r.start))
		g.traceRPC(&r.call, err)
		return nil, refusal(err, r.id)
	}
	ctx, r.cancel = context.WithCancelCause(ctx)
	return ctx, nil
}

// refusal is the answer to a call of which nothing but the header was read. grpc sends no metadata with it, only a
// status: the request's id is in the status' details.
func refusal(err error, id string) error {
	s := status.Convert(err)
	if with, err := s.WithDetails(&errdetails.RequestInfo{RequestId: id}); err == nil {
		s = with
	}
	return s.Err()
}

// scopeOf is what a call needs: the same as what it is called over HTTP.
func (g *rpcServer) scopeOf(route string) keys.Scope {
	switch {
	case route == "ServerLive" || route == "ServerReady" || strings.HasPrefix(route, grpc_health_v1.Health_ServiceDesc.ServiceName+"/"):
		route = "ready"
	case route == "RepositoryModelLoad" || route == "RepositoryModelUnload":
		route = "load"
	}
	return g.s.access.scopeOf(route)
}

// observed makes the calls of a service that take one message and give one pass observe, from before the message on:
// an interceptor would be called after it.
func (g *rpcServer) observed(service *grpc.ServiceDesc) *grpc.ServiceDesc {
	d := *service
	d.Methods = slices.Clone(d.Methods)
	for i := range d.Methods {
		handle := d.Methods[i].Handler
		d.Methods[i].Handler = func(srv any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (answer any, err error) {
			r := rpcOf(ctx)
			if err := grpc.SetHeader(ctx, metadata.Pairs("x-request-id", r.id)); err != nil {
				return nil, err
			}
			err = g.observe(ctx, r, func() (err error) {
				answer, err = handle(srv, ctx, func(m any) error { return g.hurry(r, func() error { return receive(m) }) }, nil)
				return err
			})
			return answer, err
		}
	}
	return &d
}

// hurry ends a call whose message does not come.
func (g *rpcServer) hurry(r *rpc, receive func() error) error {
	slow := time.AfterFunc(g.s.opt.BodyIdleTimeout, func() { r.cancel(errSlow) })
	defer slow.Stop()
	return receive()
}

// maxWatches bounds the streams of other services than inference, which may stay open for ever.
const maxWatches = 64

func (g *rpcServer) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx := ss.Context()
	r := rpcOf(ctx)
	if err := ss.SetHeader(metadata.Pairs("x-request-id", r.id)); err != nil {
		return err
	}
	return g.observe(ctx, r, func() error {
		if r.route != "ModelInfer" && r.route != "ModelStreamInfer" {
			// Such as a watch of the health, which would hold up a server that stops.
			defer g.whenIdle(func() { r.cancel(errStop) })()
			defer g.watches.Add(-1)
			if g.watches.Add(1) > maxWatches {
				return errWatches
			}
			ss = &hurried{ServerStream: ss, g: g, r: r}
		}
		return handle(srv, ss)
	})
}

// hurried is a stream whose first message must come.
type hurried struct {
	grpc.ServerStream
	g   *rpcServer
	r   *rpc
	had bool
}

func (h *hurried) RecvMsg(m any) error {
	if h.had {
		return h.ServerStream.RecvMsg(m)
	}
	h.had = true
	return h.g.hurry(h.r, func() error { return h.ServerStream.RecvMsg(m) })
}

// observe is what every call passes: limits, panics, errors, metrics and the log.
func (g *rpcServer) observe(ctx context.Context, r *rpc, do func() error) (err error) {
	s := g.s
	s.met.inFlight.Inc()
	defer s.met.inFlight.Dec()
	defer g.whenCut(func() { r.cancel(errStop) })()
	defer g.open.Add(-1)
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(p, r.id)
		}
		if e, ok := errors.AsType[*httpError](context.Cause(ctx)); ok && status.Code(err) == codes.Canceled {
			err = e // why we cancelled it
		}
		err = g.answer(&r.call, err)
		if r.route != "ModelStreamInfer" || err != nil { // whose requests are accounted for one by one
			g.account(ctx, &r.call, err, r.sent, time.Since(r.start))
		}
		g.traceRPC(&r.call, err)
		if r.found != nil {
			r.found.release()
		}
	}()
	// What a call may hold beside the memory that is counted is what it was asked for.
	if g.open.Add(1) > max(s.opt.Memory/mostPiece, 16) {
		return errMemory
	}
	return do()
}

// answer makes any error one that the client may read, and logs the reason of one that it may not.
func (g *rpcServer) answer(c *call, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		return err // ours, or that of grpc and its own services
	}
	e := answer(err, c.id)
	if e.code >= 500 {
		g.s.opt.Logger.Error("request failed", "request_id", c.id, "model", short(c.model), "err", err)
	}
	return e
}

// account logs and counts a call that is over, or a request of a stream.
func (g *rpcServer) account(ctx context.Context, c *call, err error, sent int64, took time.Duration) {
	code := status.Code(err)
	g.s.met.of(c.found).count(c.route, code.String(), took)
	level, inference := slog.LevelInfo, c.route == "ModelInfer" || c.route == "ModelStreamInfer"
	if !inference && (code == codes.OK || code == codes.Canceled) {
		level = slog.LevelDebug
	}
	var who caller
	var p rpcPeer
	who.remote, p = peerOf(ctx)
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		who.certificates = info.State.PeerCertificates
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		who.agent = strings.Join(md.Get("user-agent"), ",")
	}
	g.s.log(ctx, level, c, inference, took, sent, who,
		slog.String("method", "gRPC"), slog.String("path", printable(rpcOf(ctx).method)), slog.String("route", c.route), slog.String("status", code.String()))
}

// setServing is what the health service says of the server and of the inference service.
func (g *rpcServer) setServing(yes bool) {
	state := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if yes {
		state = grpc_health_v1.HealthCheckResponse_SERVING
	}
	g.health.SetServingStatus("", state)
	g.health.SetServingStatus(oippb.GRPCInferenceService_ServiceDesc.ServiceName, state)
}

// Serve, Shutdown and Close are those of http.Server.

func (g *rpcServer) Serve(ln net.Listener) error {
	err := g.grpc.Serve(g.conns.of(ln))
	if err == nil || errors.Is(err, grpc.ErrServerStopped) {
		err = http.ErrServerClosed
	}
	return err
}

func (g *rpcServer) Shutdown(ctx context.Context) error {
	g.drain()
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.grpc.GracefulStop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *rpcServer) Close() error {
	g.conns.close() // also those that have not said a word, for which grpc would wait
	g.grpc.Stop()
	return nil
}
