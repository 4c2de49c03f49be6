package serve_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"spos/serve"
	"spos/serve/keys/keystest"
)

// slowly is a model of one version, and what loads the second of it in twice the time.
func slowly(pause time.Duration) (first *fake, load func(context.Context, string, string) (serve.Model, error)) {
	info := serve.TensorInfo{Name: "x", Type: serve.Uint8, Shape: []int64{-1}}
	first = echoModel("m", info)
	first.info.Versions = []string{"1", "2"}
	return first, func(context.Context, string, string) (serve.Model, error) {
		time.Sleep(2 * pause)
		second := echoModel("m", info)
		second.info.Version, second.info.Versions = "2", first.info.Versions
		return second, nil
	}
}

// TestBodyAfterASlowLoad sends a body that waits for a load, for longer than a body may pause.
func TestBodyAfterASlowLoad(t *testing.T) {
	const pause = 10 * time.Second
	body := make([]byte, 2<<20) // more than HTTP/2 takes before it is read
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := keystest.NewAuthority(t, "ca")
				files := secrets(t, ca)
				files.ClientCA = ""
				m, load := slowly(pause)
				b := newBubble(t, serve.Options{TLS: files, BodyIdleTimeout: pause, Load: load}, m)
				defer b.finish()
				client := secure(t, ca, protocol)
				client.Transport.(*contract).next.(*http.Transport).DialContext = b.pipes.dial
				defer client.CloseIdleConnections()
				r, err := http.NewRequestWithContext(t.Context(), "POST", "https://localhost/v2/models/m/versions/2/infer", bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set(lengthHeader, "0")
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(resp.Body)
				if err := errors.Join(err, resp.Body.Close()); err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != 200 || !bytes.HasSuffix(text, body) {
					t.Errorf("%d %.200q", resp.StatusCode, text)
				}
			})
		})
	}
}

// TestCallAfterASlowLoad is the same for a call.
func TestCallAfterASlowLoad(t *testing.T) {
	const pause = 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		m, load := slowly(pause)
		b := newRPCBubble(t, serve.Options{BodyIdleTimeout: pause, Load: load}, m)
		defer b.finish()
		body := make([]byte, 2<<20)
		q := rpcRequest("m", [][]byte{body}, rpcInput("x", "UINT8", int64(len(body))))
		q.ModelVersion = "2"
		answer, err := client(b.conn).ModelInfer(t.Context(), q)
		if err != nil || !bytes.Equal(answer.GetRawOutputContents()[0], body) {
			t.Errorf("got %v", err)
		}
	})
}
