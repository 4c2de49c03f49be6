package load_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"spos/serve/internal/load"
)

const tiny = "../../testdata/picture.onnx"

// TestTermination sends SIGTERM to a server in the middle of its work. Whatever it answered, a client has got: what it
// logged as answered and what came to clients is the same.
func TestTermination(t *testing.T) {
	library(t)
	p := serving(t, repositoryOf(t, tiny))
	input := pixels()
	var answered, refused atomic.Int64
	var clients sync.WaitGroup
	enough := make(chan struct{})
	for _, dial := range []load.Dial{raw(p.HTTP(), input), raw(p.HTTP(), input), viaGRPC(p.GRPC(), input), classify(p.HTTP(), picture(t))} {
		for range 4 {
			clients.Go(func() {
				c, err := dial()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				for {
					o, err := c.Do()
					switch {
					case err != nil: // the server is gone
						return
					case o == load.Refused:
						refused.Add(1)
						return
					}
					if answered.Add(1) == 300 {
						close(enough)
					}
				}
			})
		}
	}
	<-enough
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	clients.Wait()
	if err := p.Wait(); err != nil {
		t.Errorf("the server ended with %v: %s", err, p.Log())
	}
	if logged := p.Logged("200") + p.Logged("OK"); logged != int(answered.Load()) {
		t.Errorf("the server answered %d requests, the clients have %d answers", logged, answered.Load())
	}
	for _, status := range []string{"499", "500", "504", "Canceled", "Internal"} {
		if n := p.Logged(status); n != 0 {
			t.Errorf("%d requests ended with %s", n, status)
		}
	}
	t.Logf("%d answered, %d refused", answered.Load(), refused.Load())
}

// TestOverload offers a server a multiple of what it can do. It must go on doing it, for few at a time, and send the
// others away. What it can do is measured before and after, because other programs take their share of the machine.
func TestOverload(t *testing.T) {
	if !*measure {
		t.Skip("make bench-serve runs it: what a server can do is as steady as its machine")
	}
	library(t)
	repository, _ := shuffle(t)
	const queue = 20
	p := serving(t, repository, "--queue", "20")
	dial := classify(p.HTTP(), picture(t))
	peak := func() load.Result {
		r := load.Closed(t.Context(), dial, 4, time.Second)
		if r.Count["answered"] == 0 || r.Err != "" {
			t.Fatalf("%+v", r)
		}
		return r
	}
	before := peak()
	_, held, err := p.Memory()
	if err != nil {
		t.Fatal(err)
	}
	for _, times := range []float64{2, 10} {
		r := load.Open(t.Context(), dial, times*before.Rate, 1500*time.Millisecond, 200, rand.New(rand.NewPCG(1, 1)))
		after := peak()
		least := min(before.Rate, after.Rate)
		if r.Err != "" || r.Count["refused"] == 0 {
			t.Errorf("at %g times: %+v", times, r)
		}
		// A server that lets all in loses three fifths of its rate, and answers when nobody waits any more.
		if r.Rate < least/2 {
			t.Errorf("at %g times: %.0f answers a second, of %.0f without overload", times, r.Rate, least)
		}
		if limit := 3 * (queue + 4) / least * 1e3; r.Latency.P50 > limit {
			t.Errorf("at %g times: answers took %v ms, a full queue is done in a third of %.0f", times, r.Latency, limit)
		}
		t.Logf("at %g times: %.0f answers/s of %.0f before and %.0f after; latency %v ms, refusals %v ms, sent late by %v ms",
			times, r.Rate, before.Rate, after.Rate, r.Latency, r.Refusal, r.Late)
	}
	_, most, err := p.Memory()
	if err != nil {
		t.Fatal(err)
	}
	if grown := most - held; grown > 128<<20 {
		t.Errorf("the server grew by %d MiB", grown>>20)
	}
}

// TestManyRequests looks for memory that requests leave behind, native memory included: what the server holds must not
// go on growing.
func TestManyRequests(t *testing.T) {
	library(t)
	p := serving(t, repositoryOf(t, "../../testdata/addsub.onnx"))
	numbers := "1" + strings.Repeat(",2", 15)
	body := fmt.Sprintf(`{"inputs":[{"name":"INPUT0","datatype":"INT32","shape":[1,16],"data":[%s]},{"name":"INPUT1","datatype":"INT32","shape":[1,16],"data":[%s]}]}`, numbers, numbers)
	dial := load.HTTP(p.HTTP(), "/v2/models/shuffle/infer", http.Header{}, []byte(body))
	const parts = 20
	var held [parts]int64
	for part := range parts {
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				c, err := dial()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				for range *requests / parts / 4 {
					if o, err := c.Do(); o != load.Answered {
						t.Errorf("outcome %d, %v", o, err)
						return
					}
				}
			})
		}
		clients.Wait()
		var err error
		if held[part], _, err = p.Memory(); err != nil {
			t.Fatal(err)
		}
	}
	early, late := slices.Max(held[parts/4:parts/2]), slices.Min(held[3*parts/4:])
	t.Logf("%d requests; MiB held: %d", *requests, inMiB(held[:]))
	if late > early+4<<20 {
		t.Errorf("memory grew from %d KiB to %d KiB", early>>10, late>>10)
	}
}

func inMiB(bytes []int64) []int64 {
	all := slices.Clone(bytes)
	for i := range all {
		all[i] >>= 20
	}
	return all
}
