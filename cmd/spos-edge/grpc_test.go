package main

import (
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"spos/serve/oippb"
)

// TestStopUnderCalls ends the process while calls over several connections keep its cores busy: every call is answered,
// or was never taken.
func TestStopUnderCalls(t *testing.T) {
	p := begin(t, newPlace(t).command(t, "", "--grpc", "127.0.0.1:0"))
	var address string
	for _, line := range p.seen {
		if _, rest, ok := strings.Cut(line, `"grpc":"`); ok {
			address, _, _ = strings.Cut(rest, `"`)
		}
	}
	request := &oippb.ModelInferRequest{ModelName: "addsub"}
	for _, name := range []string{"INPUT0", "INPUT1"} {
		request.Inputs = append(request.Inputs, &oippb.ModelInferRequest_InferInputTensor{Name: name, Datatype: "INT32", Shape: []int64{1, 16}})
		data := binary.LittleEndian.AppendUint32(make([]byte, 60), 7)
		request.RawInputContents = append(request.RawInputContents, data)
	}
	var answered atomic.Int64
	var workers sync.WaitGroup
	enough := make(chan struct{})
	for range 4 {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 4 {
			workers.Go(func() {
				for {
					r, err := oippb.NewGRPCInferenceServiceClient(conn).ModelInfer(t.Context(), request)
					if err != nil {
						if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "while dialing") {
							t.Errorf("a call was lost: %v", err)
						}
						return
					}
					if sum := binary.LittleEndian.Uint32(r.GetRawOutputContents()[0][60:]); sum != 14 {
						t.Errorf("7 + 7 is %d", sum)
					}
					if answered.Add(1) == 200 {
						close(enough)
					}
				}
			})
		}
	}
	<-enough
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	workers.Wait()
	p.end(t)
}
