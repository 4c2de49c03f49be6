package serve_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// browser is a page of a headless Chromium, spoken to in the DevTools protocol over a pair of pipes: messages are
// JSON, each ended by a zero byte.
type browser struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	last    int
	session string

	requests []string // URLs of all that the page asked for
	errors   []string // of its console, and exceptions
}

type devtools struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// openBrowser skips the test where there is no browser.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	var path string
	for _, name := range []string{os.Getenv("SPOS_BROWSER"), "chromium", "chromium-browser", "google-chrome", "chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no browser: install chromium, or set SPOS_BROWSER to one of its family")
	}
	args := []string{
		"--headless=new", "--remote-debugging-pipe", "--user-data-dir=" + t.TempDir(), "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-gpu", "--disable-dev-shm-usage",
	}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // which does not work for root
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Skipf("%s: %v", path, err)
	}
	theirIn.Close()
	theirOut.Close()
	b := &browser{t: t, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		b.session = ""
		b.call("Browser.close", nil)
		cmd.Wait()
		in.Close()
		out.Close()
	})
	var target struct{ TargetID, SessionID string }
	b.callFor(&target, "Target.createTarget", map[string]any{"url": "about:blank"})
	b.callFor(&target, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true})
	b.session = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network", "DOM"} {
		b.call(domain+".enable", nil)
	}
	return b
}

// call sends a command and notes the events that come before its answer.
func (b *browser) call(method string, params map[string]any) json.RawMessage {
	b.t.Helper()
	b.last++
	m := map[string]any{"id": b.last, "method": method}
	if params != nil {
		m["params"] = params
	}
	if b.session != "" {
		m["sessionId"] = b.session
	}
	text, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(text, 0)); err != nil {
		b.t.Fatalf("the browser is gone: %v", err)
	}
	for {
		text, err := b.out.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("the browser is gone: %v", err)
		}
		var m devtools
		if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
			b.t.Fatal(err)
		}
		switch {
		case m.ID == 0:
			b.note(&m)
		case m.ID == b.last && m.Error != nil:
			b.t.Fatalf("%s: %s", method, m.Error)
		case m.ID == b.last:
			return m.Result
		}
	}
}

func (b *browser) callFor(result any, method string, params map[string]any) {
	b.t.Helper()
	if err := json.Unmarshal(b.call(method, params), result); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) note(m *devtools) {
	var p struct {
		Type    string
		Request struct{ URL string }
		Entry   struct{ Level, Text, URL string }
	}
	if json.Unmarshal(m.Params, &p) != nil {
		return // an event of another form, which nobody waits for
	}
	switch m.Method {
	case "Network.requestWillBeSent":
		b.requests = append(b.requests, p.Request.URL)
	case "Runtime.exceptionThrown":
		b.errors = append(b.errors, string(m.Params))
	case "Runtime.consoleAPICalled":
		if p.Type == "error" || p.Type == "warning" || p.Type == "assert" {
			b.errors = append(b.errors, string(m.Params))
		}
	case "Log.entryAdded":
		if p.Entry.Level == "error" || p.Entry.Level == "warning" {
			b.errors = append(b.errors, p.Entry.Text+" "+p.Entry.URL)
		}
	}
}

// eval is the value of an expression, awaited where it is a promise.
func (b *browser) eval(expression string, into any) {
	b.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.callFor(&r, "Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true})
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, r.ExceptionDetails)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(r.Result.Value, into); err != nil {
		b.t.Fatalf("%s: %s: %v", expression, r.Result.Value, err)
	}
}

// text waits until an expression is true and returns it as a string.
func (b *browser) text(expression string) string {
	b.t.Helper()
	const patience = 60 * time.Second // for a page that never gets there
	var got struct{ Value, Page string }
	b.eval(fmt.Sprintf(`new Promise(done => { const give = Date.now() + %d, look = () => {
		const value = (() => { try { return %s } catch { return null } })();
		if (value) done({value: String(value)});
		else if (Date.now() > give) done({page: document.body.innerText});
		else setTimeout(look, 20);
	}; look() })`, patience.Milliseconds(), expression), &got)
	if got.Value == "" {
		b.t.Fatalf("never came true: %s\nthe page says:\n%s\nits console: %q", expression, got.Page, b.errors)
	}
	return got.Value
}

// look emulates a screen and keeps what it shows among the test's artifacts.
func (b *browser) look(name, scheme string, width, height int) {
	b.t.Helper()
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}})
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
	var shot struct{ Data string }
	b.callFor(&shot, "Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true})
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.t.ArtifactDir(), name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
	var wide int
	if b.eval("document.documentElement.scrollWidth", &wide); wide > width {
		b.t.Errorf("%s: the page is %d pixels wide on a screen of %d", name, wide, width)
	}
}

// dropOn drops a file on the element of a selector, as a person does.
func (b *browser) dropOn(selector, file string) {
	b.t.Helper()
	var at struct{ X, Y float64 }
	b.eval(fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.scrollIntoView({block: 'center'});
		const r = e.getBoundingClientRect(); return {x: r.x + r.width / 2, y: r.y + r.height / 2} })()`, selector), &at)
	for _, step := range []string{"dragEnter", "dragOver", "drop"} {
		b.call("Input.dispatchDragEvent", map[string]any{
			"type": step, "x": at.X, "y": at.Y,
			"data": map[string]any{"items": []any{}, "files": []string{file}, "dragOperationsMask": 1},
		})
	}
}

// choose gives a file to an input, as its dialog does.
func (b *browser) choose(selector, file string) {
	b.t.Helper()
	var object struct{ Result struct{ ObjectID string } }
	b.callFor(&object, "Runtime.evaluate", map[string]any{"expression": fmt.Sprintf("document.querySelector(%q)", selector)})
	b.call("DOM.setFileInputFiles", map[string]any{"files": []string{file}, "objectId": object.Result.ObjectID})
}

func (b *browser) press(key string) {
	b.t.Helper()
	for _, step := range []string{"rawKeyDown", "keyUp"} {
		code := map[string]int{"Tab": 9}[key]
		b.call("Input.dispatchKeyEvent", map[string]any{"type": step, "key": key, "code": key, "windowsVirtualKeyCode": code})
	}
}

// quiet wants that the page asked nobody but the server at url, and that nothing went wrong in it.
func (b *browser) quiet(url string) {
	b.t.Helper()
	for _, r := range b.requests {
		if !strings.HasPrefix(r, url+"/") && !strings.HasPrefix(r, "blob:"+url+"/") && !strings.HasPrefix(r, "data:") {
			b.t.Errorf("the page asked for %s", r)
		}
	}
	for _, e := range b.errors {
		b.t.Errorf("the page's console: %s", e)
	}
}
