package serve_test

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"spos/serve"
)

// logged starts a server that logs JSON and returns its address and what reads the lines of requests,
// of which there are to be so many: an answer leaves before its line is written.
func logged(t *testing.T, o serve.Options, models ...serve.Model) (url string, lines func(want int) []map[string]any) {
	t.Helper()
	var text lockedBuffer
	o.Logger = slog.New(slog.NewJSONHandler(&text, nil))
	url = start(t, o, models...)
	return url, func(want int) []map[string]any {
		t.Helper()
		for until := time.Now().Add(10 * time.Second); strings.Count(text.String(), `"msg":"request"`) < want && time.Now().Before(until); {
			runtime.Gosched()
		}
		var all []map[string]any
		sc := bufio.NewScanner(strings.NewReader(text.String()))
		for sc.Scan() {
			var line map[string]any
			if err := json.Unmarshal(sc.Bytes(), &line); err != nil {
				t.Fatalf("%q: %v", sc.Text(), err)
			}
			if line["msg"] == "request" {
				all = append(all, line)
			}
		}
		return all
	}
}

func TestAccessLog(t *testing.T) {
	url, lines := logged(t, serve.Options{Tokens: tokensFile(t)}, echoModel("m", fp32x3), serve.Classifier())
	header := map[string]string{"Authorization": "Bearer " + inferSecret, "X-Request-Id": "abc-1", "User-Agent": "tests/1"}
	body := []byte(jsonBody("[1,3]", "[1,2,3]"))
	answer := send(t, "POST", url+"/v2/models/m/versions/1/infer", header, body)
	picture := serve.SeedImages(t)["image/png"]
	send(t, "POST", url+"/v2/models/c/classify?k=1", header, picture)
	send(t, "GET", url+"/v2/health/live", nil, nil)
	send(t, "POST", url+"/v2/models/m/infer", map[string]string{"Authorization": "Bearer " + adminSecret}, body)
	all := lines(3)
	if len(all) != 3 {
		t.Fatalf("%d lines, want those of 2 inferences and a refusal: %v", len(all), all)
	}
	want := map[string]any{
		"level": "INFO", "msg": "request", "request_id": "abc-1", "method": "POST", "path": "/v2/models/m/versions/1/infer", "route": "infer",
		"status": 200.0, "model": "m", "version": "1", "bytes_in": float64(len(body)), "bytes_out": float64(len(answer.body)),
		"token": "name-of-infer", "user_agent": "tests/1",
	}
	for key, value := range want {
		if all[0][key] != value {
			t.Errorf("%s is %v, want %v", key, all[0][key], value)
		}
	}
	for _, line := range all[:2] {
		keys := slices.Sorted(maps.Keys(line))
		if got := strings.Join(keys, " "); got != "bytes_in bytes_out compute_ms input_ms level method model msg path queue_ms remote request_id route status time token took_ms user_agent version" {
			t.Errorf("fields %s", got)
		}
	}
	if all[1]["bytes_in"] != float64(len(picture)) || all[1]["input_ms"] == 0.0 {
		t.Errorf("the picture's line: %v", all[1])
	}
	if all[2]["status"] != 403.0 || all[2]["token"] != "name-of-admin" || all[2]["model"] != nil {
		t.Errorf("the refusal's line: %v", all[2])
	}
}

// TestLogInjection sends what would end a line, move a cursor, or fill a disk.
func TestLogInjection(t *testing.T) {
	url, lines := logged(t, serve.Options{}, echoModel("m", fp32x3))
	for _, header := range []map[string]string{
		{"X-Request-Id": "a b"}, {"X-Request-Id": "\u202etxt"}, {"X-Request-Id": strings.Repeat("x", 10<<10)},
		{"User-Agent": "a\u009b2J\u202e\xff\ttab"}, {"User-Agent": strings.Repeat("x", 10<<10)},
	} {
		send(t, "POST", url+"/v2/models/m/infer", header, nil)
	}
	for _, path := range []string{"a%0alevel=ERROR", "%1b%5b2J", "%e2%80%ae", strings.Repeat("x", 8<<10), "%00", "%ff"} {
		send(t, "GET", url+"/v2/models/"+path, nil, nil)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, strings.Repeat("M", 2000)+" /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	all := lines(12)
	if len(all) != 12 {
		t.Fatalf("%d lines for 12 requests", len(all))
	}
	for _, line := range all {
		for key, value := range line {
			text, _ := value.(string)
			if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r != '…' }); i >= 0 {
				t.Errorf("%s holds %q", key, text)
			}
			if len(text) > 200 {
				t.Errorf("%s has %d bytes", key, len(text))
			}
		}
	}
}
