package serve_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"spos/serve"
	"spos/serve/keys"
)

func TestPage(t *testing.T) {
	url := start(t, serve.Options{}, echoModel("m", fp32x3))
	r := send(t, "GET", url+"/", nil, nil)
	if r.code != 200 || r.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("got %d, %s", r.code, r.header.Get("Content-Type"))
	}
	const most = 20 << 10
	if len(r.body) > most {
		t.Errorf("the page has %d bytes, more than %d", len(r.body), most)
	}
	policy := r.header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy lacks %s: %s", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("the policy allows too much: %s", policy)
	}
	if elsewhere := regexp.MustCompile(`(https?:|["'(])//|<(script|link|img)[^>]+src=`).Find(r.body); elsewhere != nil {
		t.Errorf("the page refers to elsewhere: %q", elsewhere)
	}
	if head := send(t, "HEAD", url+"/", nil, nil); head.code != 200 || len(head.body) != 0 || head.header.Get("Content-Security-Policy") != policy {
		t.Errorf("HEAD: %d with %d bytes", head.code, len(head.body))
	}
	without := start(t, serve.Options{NoPage: true}, echoModel("m", fp32x3))
	wantError(t, send(t, "GET", without+"/", nil, nil), 404, "no such path")
}

// colored is the path of a PNG of one color.
func colored(t testing.TB, c color.Color) string {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 64, 48))
	draw.Draw(img, img.Rect, image.NewUniform(c), image.Point{}, draw.Src)
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "picture.png")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPageInBrowser has a person's way with the page: drop, choose and paste a picture, with models beside whose names,
// reasons and properties are markup.
func TestPageInBrowser(t *testing.T) {
	b := openBrowser(t)
	const markup = `<img src="x" onerror="document.title='owned'">`
	hostile := echoModel(markup, fp32x3)
	hostile.info.Properties = map[string]string{"arch": markup, "lineage." + markup: markup}
	broken := serve.Unavailable("broken", "1", errors.New(markup))
	url := start(t, serve.Options{Version: "v9"}, serve.Classifier(), hostile, broken)

	b.call("Page.navigate", map[string]any{"url": url + "/"})
	b.text(`document.querySelector('#status').textContent === '3 models, 2 ready'`)
	var names []string
	b.eval(`[...document.querySelectorAll('.name')].map(n => n.textContent)`, &names)
	if fmt.Sprint(names) != fmt.Sprint([]string{markup, "broken", "c"}) {
		t.Errorf("models %q", names)
	}
	const c = `[...document.querySelectorAll('article')].find(a => a.querySelector('.name').textContent === 'c')`
	for what, want := range map[string]string{
		`document.title`: "spos",
		`document.querySelector('#version').textContent`:                                          "v9",
		`document.querySelectorAll('main img').length`:                                            "0",
		`document.querySelectorAll('article')[0].querySelector('.more code').textContent`:         markup,
		`document.querySelectorAll('article')[0].querySelector('.drop').hidden`:                   "true",
		`document.querySelectorAll('article')[0].querySelector('.only').innerText.slice(0, 39)`:   "This model came without preprocessing: ",
		`document.querySelectorAll('article')[1].querySelector('.whys').textContent.slice(0, 11)`: "version 1: ",
		`document.querySelectorAll('article')[1].querySelector('.state').textContent`:             "unavailable",
		c + `.querySelector('.state').textContent`:                                                "ready",
		c + `.querySelector('.facts').textContent.includes('input  FP32  N×3×4×4')`:               "true",
	} {
		var got any
		if b.eval(what, &got); fmt.Sprint(got) != want {
			t.Errorf("%s is %v, want %q", what, got, want)
		}
	}

	first := func(label string) {
		t.Helper()
		took := b.text(c + `.querySelector('.answer li span').textContent === '` + label + `' && ` + c + `.querySelector('.took').textContent`)
		if !strings.HasPrefix(took, "answered in ") {
			t.Errorf("%s: %s", label, took)
		}
	}
	b.dropOn(".drop:not([hidden])", colored(t, color.RGBA{R: 255, A: 255}))
	first("red")
	b.choose(".drop:not([hidden]) input", colored(t, color.RGBA{G: 255, A: 255}))
	first("green")
	blue, err := os.ReadFile(colored(t, color.RGBA{B: 255, A: 255}))
	if err != nil {
		t.Fatal(err)
	}
	b.eval(`(() => { const d = new DataTransfer(), bytes = Uint8Array.from(atob('`+base64.StdEncoding.EncodeToString(blue)+`'), c => c.charCodeAt(0));
		d.items.add(new File([bytes], 'blue.png', {type: 'image/png'}));
		document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: d})) })()`, nil)
	first("blue")
	b.text(c + `.querySelector('.rate').textContent !== '0 /s'`)
	b.text(c + `.querySelector('.request').textContent !== '–'`)

	b.eval(`document.activeElement.blur()`, nil)
	var reached string
	for range 12 { // by keyboard alone
		b.press("Tab")
		if b.eval(`document.activeElement.type || ''`, &reached); reached == "file" {
			break
		}
	}
	if reached != "file" {
		t.Error("the keyboard does not reach the choice of a file")
	}
	b.look("light", "light", 1100, 900)
	b.look("dark", "dark", 1100, 900)
	b.look("phone", "light", 360, 780)
	b.quiet(url)

	var refused bool
	b.eval(`(() => { try { document.body.innerHTML = '<b>'; return false } catch { return true } })()`, &refused)
	if !refused {
		t.Error("text can become elements")
	}
}

// TestPageWithTokens: the page asks for a token, says what is wrong with one, and keeps it nowhere.
func TestPageWithTokens(t *testing.T) {
	secret, line, err := keys.NewToken("person", keys.Infer)
	if err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url := start(t, serve.Options{Tokens: tokens}, serve.Classifier())
	if r := send(t, "GET", url+"/", nil, nil); r.code != 200 {
		t.Fatalf("the page itself needs a token: %d", r.code)
	}
	b := openBrowser(t)
	b.call("Page.navigate", map[string]any{"url": url + "/"})
	why := `!document.querySelector('#ask').hidden && document.querySelector('#whyask').textContent`
	if got := b.text(why); !strings.HasPrefix(got, "a token is needed") {
		t.Errorf("asks with %q", got)
	}
	use := func(token string) {
		b.eval(`(() => { document.querySelector('#token').value = '`+token+`'; document.querySelector('#ask button').click() })()`, nil)
	}
	use("wrong")
	b.text(why + `.includes('holds no token')`)
	use(secret)
	b.text(`document.querySelector('#status').textContent === '1 model, 1 ready'`)
	b.dropOn(".drop:not([hidden])", colored(t, color.RGBA{R: 255, A: 255}))
	b.text(`document.querySelector('.answer li span').textContent === 'red'`)
	var kept string
	b.eval(`JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.cookie + location.href + document.body.outerHTML`, &kept)
	if strings.Contains(kept, secret) {
		t.Error("the token is kept outside of memory")
	}
}
