package serve_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"spos/serve"
)

// TestVanishingFreesTheCore: a run of hundreds of operators ends within a few of them when its client leaves, over
// either protocol. Another client's answer tells when the only core was free. On a busy
// machine an attempt may fail for other reasons; one that succeeds shows that the run was stopped.
func TestVanishingFreesTheCore(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a slow model")
	}
	rt := library(t)
	dir := repository(t, map[string]string{"m/1": ortModels + "/slow.onnx", "quick/1": "testdata/picture.onnx"})
	repo, err := serve.OpenRepository(t.Context(), dir, serve.RepositoryOptions{Runtime: rt, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { repo.Close() })
	conn, url := startRPC(t, serve.Options{Cores: 1}, repo.Models()...)
	zeros := make([]byte, 4*384*384)
	running := func() bool {
		return strings.Contains(string(send(t, "GET", url+"/metrics", nil, nil).body), `spos_serve_running{model="m",version="1"} 1`)
	}
	start := time.Now()
	if r := send(t, "POST", url+"/v2/models/m/infer", map[string]string{lengthHeader: "0"}, zeros); r.code != 200 {
		t.Fatalf("%d %s", r.code, r.body)
	}
	whole := time.Since(start)
	for name, ask := range map[string]func() (leave func()){
		"HTTP": func() func() {
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(httpRequest("/v2/models/m/infer", lengthHeader+": 0\r\n", zeros, false))); err != nil {
				t.Fatal(err)
			}
			return func() { conn.Close() }
		},
		"gRPC": func() func() {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				_, _ = client(conn).ModelInfer(ctx, rawRequest(zeros, 384, 384))
			}()
			return cancel
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 10 {
				leave := ask()
				for tries := 0; !running(); tries++ {
					if tries == 10_000 {
						t.Fatal("the run does not begin")
					}
				}
				left := time.Now()
				leave()
				r := send(t, "POST", url+"/v2/models/quick/infer", map[string]string{lengthHeader: "0"}, make([]byte, 4*3*224*224))
				if r.code != 200 {
					t.Fatalf("%d %s", r.code, r.body)
				}
				if took := time.Since(left); took < whole/4 {
					t.Logf("a whole run takes %v, the core was free after %v", whole, took)
					return
				}
			}
			t.Errorf("the core was not free before a quarter of the time of a run, %v, had gone", whole)
		})
	}
}
