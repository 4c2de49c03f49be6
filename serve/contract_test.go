package serve_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"spos/serve"
)

// Every exchange of this package's tests is held against the OpenAPI document: the status, the headers and the body of
// an answer must be declared, and a request that was answered with success must be one that the document allows.

func TestMain(m *testing.M) {
	for _, kind := range []string{"image/jpeg", "image/png", "text/html"} {
		openapi3filter.RegisterBodyDecoder(kind, openapi3filter.FileBodyDecoder)
	}
	http.DefaultTransport = &contract{next: http.DefaultTransport}
	os.Exit(m.Run())
}

// document is the parsed document.
var document = sync.OnceValues(func() (*openapi3.T, error) {
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	return doc, doc.Validate(context.Background())
})

// contract is a transport whose exchanges are checked. A breach is its error.
type contract struct {
	next http.RoundTripper
	seen sync.Map // of what was checked, by hash
	seed maphash.Seed
	once sync.Once
}

func (c *contract) CloseIdleConnections() {
	if t, ok := c.next.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

func (c *contract) RoundTrip(r *http.Request) (*http.Response, error) {
	sent, known := bodyOf(r)
	resp, err := c.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, readErr := io.ReadAll(resp.Body)
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{readErr}))
	if readErr != nil || c.checked(r, sent, resp, body) {
		return resp, nil //nolint:nilerr // whoever reads the body meets the error
	}
	if err := checkExchange(r, sent, known, resp, body); err != nil {
		return nil, fmt.Errorf("%s %s, answered with %d %.300s, breaks the OpenAPI document: %w", r.Method, r.URL.Path, resp.StatusCode, body, err)
	}
	return resp, nil
}

// failing ends with an error, or with the end where it is nil.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// bodyOf is what a request will send, where that can be known without taking it away.
func bodyOf(r *http.Request) (body []byte, known bool) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, true
	}
	if r.GetBody == nil || r.Header.Get("Content-Encoding") != "" {
		return nil, false
	}
	again, err := r.GetBody()
	if err != nil {
		return nil, false
	}
	defer again.Close()
	body, err = io.ReadAll(again)
	return body, err == nil
}

// checked reports an exchange that was checked before: some tests repeat one by the thousand.
func (c *contract) checked(r *http.Request, sent []byte, resp *http.Response, body []byte) bool {
	c.once.Do(func() { c.seed = maphash.MakeSeed() })
	var h maphash.Hash
	h.SetSeed(c.seed)
	fmt.Fprint(&h, r.Method, r.URL, r.Header, resp.StatusCode, slices.Sorted(maps.Keys(resp.Header)), resp.Header["Content-Type"])
	_, _ = h.Write(sent)
	_, _ = h.Write(body)
	_, seen := c.seen.LoadOrStore(h.Sum64(), nil)
	return seen
}

func checkExchange(r *http.Request, sent []byte, known bool, resp *http.Response, body []byte) error {
	doc, err := document()
	if err != nil {
		return err
	}
	if resp.Header.Get("X-Request-Id") == "" {
		return fromNetHTTP(resp)
	}
	if strings.HasPrefix(r.URL.Path, "/debug/pprof") {
		return nil // of the operators' listener, which the document does not describe
	}
	if body, err = unpacked(resp.Header.Get("Content-Encoding"), body); err != nil {
		return err
	}
	path, params := findPath(doc, r.URL.EscapedPath())
	item := doc.Paths.Value(path)
	op := (*openapi3.Operation)(nil)
	if item != nil {
		op = item.Operations()[r.Method]
	}
	switch {
	case item == nil:
		return checkUndeclared(doc, resp, body, 403, 404)
	case op == nil && r.Method == http.MethodOptions:
		return checkOptions(doc, resp, body)
	case op == nil && r.Method == http.MethodHead && item.Get != nil:
		return checkHead(item.Get, resp, body)
	case op == nil:
		return checkUndeclared(doc, resp, body, 403, 405)
	}
	in := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, QueryParams: r.URL.Query(),
		Route:   &routers.Route{Spec: doc, Path: path, PathItem: item, Method: r.Method, Operation: op},
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true},
	}
	if known && resp.StatusCode < 300 {
		if err := checkRequest(in, sent); err != nil {
			return fmt.Errorf("the request: %w", err)
		}
	}
	return checkAnswer(in, resp, body)
}

// fromNetHTTP accepts what net/http answers before the server has seen the request.
func fromNetHTTP(resp *http.Response) error {
	if slices.Contains([]int{400, 431, 501, 505}, resp.StatusCode) || resp.Request.RequestURI == "*" {
		return nil
	}
	return errors.New("no X-Request-Id")
}

func unpacked(coding string, body []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch coding {
	case "":
		return body, nil
	case "gzip":
		r, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		r, err = zlib.NewReader(bytes.NewReader(body))
	default:
		return nil, fmt.Errorf("Content-Encoding %q", coding)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// findPath finds the template that a path fits, by the most of its segments.
func findPath(doc *openapi3.T, escaped string) (path string, params map[string]string) {
	have := strings.Split(escaped, "/")
	most := -1
	for template := range doc.Paths.Map() {
		want := strings.Split(template, "/")
		if len(want) != len(have) {
			continue
		}
		same, vars := 0, map[string]string{}
		for i := range want {
			name, isVar := strings.CutPrefix(want[i], "{")
			value, err := url.PathUnescape(have[i])
			switch {
			case isVar && err == nil && value != "":
				vars[strings.TrimSuffix(name, "}")] = value
			case want[i] == have[i]:
				same++
			default:
				same = -len(want)
			}
		}
		if same >= 0 && same > most {
			path, params, most = template, vars, same
		}
	}
	return path, params
}

// checkUndeclared checks the answer to a path or method that the document does not have.
func checkUndeclared(doc *openapi3.T, resp *http.Response, body []byte, codes ...int) error {
	allow := resp.Header.Get("Allow")
	if !slices.Contains(codes, resp.StatusCode) || (resp.StatusCode == 405) != (allow != "") {
		return fmt.Errorf("it is not declared, and Allow is %q", allow)
	}
	if resp.Request.Method == http.MethodHead {
		return nil
	}
	return visit(doc, "Error", body)
}

func checkOptions(doc *openapi3.T, resp *http.Response, body []byte) error {
	if resp.StatusCode == 403 {
		return visit(doc, "Error", body)
	}
	if resp.StatusCode != 204 || resp.Header.Get("Allow") == "" || len(body) > 0 {
		return errors.New("OPTIONS is answered with 204 and Allow")
	}
	return nil
}

func checkHead(get *openapi3.Operation, resp *http.Response, body []byte) error {
	if get.Responses.Status(resp.StatusCode) == nil || len(body) > 0 {
		return errors.New("HEAD is answered as GET, without a body")
	}
	return nil
}

// visit checks JSON against a schema of the document.
func visit(doc *openapi3.T, schema string, body []byte) error {
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: &http.Request{Method: "GET"},
			Route:   &routers.Route{Spec: doc, Operation: &openapi3.Operation{Responses: answersOf(doc.Components.Schemas[schema])}},
		},
		Status: 200, Header: http.Header{"Content-Type": {"application/json"}},
	}
	return openapi3filter.ValidateResponse(context.Background(), in.SetBodyBytes(body))
}

func answersOf(schema *openapi3.SchemaRef) *openapi3.Responses {
	return openapi3.NewResponses(openapi3.WithStatus(200, &openapi3.ResponseRef{
		Value: openapi3.NewResponse().WithDescription("").WithJSONSchemaRef(schema),
	}))
}

// bare are the words that the protocol's clients write and read where JSON has no number.
var bare = regexp.MustCompile(`([\[,]\s*)(?:NaN|-?Infinity)\b`)

func plainJSON(b []byte) []byte { return bare.ReplaceAll(b, []byte("${1}0")) }

// head is the JSON in front of tensors. It is nil where there are no tensors.
func head(h http.Header, body []byte) ([]byte, error) {
	text := h.Get(lengthHeader)
	if text == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n > len(body) {
		return nil, fmt.Errorf("%s is %q in front of %d bytes", lengthHeader, text, len(body))
	}
	return body[:n], nil
}

// checkRequest checks a request that was answered with success. Its Content-Type is made one that the document has: the
// server looks at the bytes, as the document says.
func checkRequest(in *openapi3filter.RequestValidationInput, sent []byte) error {
	r := in.Request.Clone(context.Background())
	text, err := head(r.Header, sent)
	if err != nil {
		return err
	}
	kind := r.Header.Get("Content-Type")
	if want := in.Route.Operation.RequestBody; want != nil && (kind == "" || want.Value.Content.Get(kind) == nil) {
		r.Header.Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/classify") || text != nil {
			r.Header.Set("Content-Type", "application/octet-stream")
		}
	}
	in.Request = r
	if len(text) > 0 { // the JSON must be what it would be alone
		alone := r.Clone(context.Background())
		alone.Header.Set("Content-Type", "application/json")
		in.Request = alone
		sent = text
	}
	if strings.HasPrefix(in.Request.Header.Get("Content-Type"), "application/json") {
		sent = plainJSON(sent)
	}
	in.Request.GetBody = nil
	in.Request.Body, in.Request.ContentLength = io.NopCloser(bytes.NewReader(sent)), int64(len(sent))
	return openapi3filter.ValidateRequest(context.Background(), in)
}

func checkAnswer(in *openapi3filter.RequestValidationInput, resp *http.Response, body []byte) error {
	h := resp.Header.Clone()
	text, err := head(h, body)
	if err != nil {
		return err
	}
	if binary := h.Get("Content-Type") == "application/octet-stream"; binary != (text != nil) {
		return fmt.Errorf("Content-Type %q, %s %q", h.Get("Content-Type"), lengthHeader, h.Get(lengthHeader))
	}
	if text != nil {
		h.Set("Content-Type", "application/json")
		body = text
	}
	if h.Get("Content-Type") == "application/json" {
		if body = plainJSON(body); !json.Valid(body) {
			return errors.New("no JSON")
		}
	}
	answer := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: resp.StatusCode, Header: h,
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	return openapi3filter.ValidateResponse(context.Background(), answer.SetBodyBytes(body))
}

// TestDocumentAndRoutesAgree: every route is described, and nothing else is.
func TestDocumentAndRoutesAgree(t *testing.T) {
	doc, err := document()
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	names := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			described[method+" "+strings.NewReplacer("{model}", "{m}", "{version}", "{v}", "{repository}", "{r}").Replace(path)] = true
			if op.OperationID == "" || names[op.OperationID] {
				t.Errorf("%s %s: the name %q is missing or used twice", method, path, op.OperationID)
			}
			names[op.OperationID] = true
		}
	}
	for _, route := range serve.Routes() {
		if !described[route] {
			t.Errorf("%s is not described", route)
		}
		delete(described, route)
	}
	for route := range described {
		t.Errorf("%s is described, and no route", route)
	}
}

// TestDocumentIsServed also holds the contract itself to its task: it must find what breaks the document.
func TestDocumentIsServed(t *testing.T) {
	url := start(t, serve.Options{}, echoModel("m", fp32x3))
	want, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if r := send(t, "GET", url+"/v2/openapi.json", nil, nil); r.code != 200 || !bytes.Equal(r.body, want) {
		t.Errorf("%d, %d bytes", r.code, len(r.body))
	}
	if r := send(t, "GET", url+"/v2", nil, nil); r.header.Get("Link") != `</v2/openapi.json>; rel="service-desc"` {
		t.Errorf("Link %q", r.header.Get("Link"))
	}
	if r := send(t, "GET", url+"/", nil, nil); !strings.Contains(string(r.body), `href="v2/openapi.json"`) {
		t.Error("the page does not lead to it")
	}
	answer := func(code int, header map[string]string, body string) *contract {
		return &contract{next: transport(func(r *http.Request) (*http.Response, error) {
			h := http.Header{"X-Request-Id": {"1"}, "Content-Type": {"application/json"}}
			for k, v := range header {
				h.Set(k, v)
			}
			return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})}
	}
	const good = `{"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1,NaN]}]}`
	for name, tt := range map[string]struct {
		c    *contract
		path string
		body string
		ok   bool
	}{
		"as it should be":       {answer(200, nil, good), "m/infer", jsonBody("[1,3]", "[1,NaN,3]"), true},
		"another key":           {answer(200, nil, strings.Replace(good, `"data"`, `"date"`, 1)), "m/infer", `{"inputs":[]}`, false},
		"no JSON":               {answer(200, nil, good+"}"), "m/infer", `{"inputs":[]}`, false},
		"another datatype":      {answer(200, nil, strings.Replace(good, "FP32", "FLOAT", 1)), "m/infer", `{"inputs":[]}`, false},
		"undeclared status":     {answer(418, nil, `{"error":"x"}`), "m/infer", "", false},
		"undeclared type":       {answer(200, map[string]string{"Content-Type": "text/html"}, good), "m/infer", `{"inputs":[]}`, false},
		"no Retry-After":        {answer(503, nil, `{"error":"x"}`), "m/infer", "", false},
		"error in another form": {answer(400, nil, `{"detail":"x"}`), "m/infer", "", false},
		"a wrong length":        {answer(200, map[string]string{lengthHeader: "999", "Content-Type": "application/octet-stream"}, good), "m/infer", `{"inputs":[]}`, false},
		"a request that is not": {answer(200, nil, good), "m/infer", `{"id":7,"inputs":[]}`, false},
		"200 where no path is":  {answer(200, nil, "{}"), "m/nothing", "", false},
		"405 without Allow":     {answer(405, nil, `{"error":"x"}`), "m/ready", "", false},
		"no id":                 {answer(200, map[string]string{"X-Request-Id": ""}, good), "m/infer", `{"inputs":[]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "POST", "http://s/v2/models/"+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := tt.c.RoundTrip(r)
			if err == nil {
				err = resp.Body.Close()
			}
			if (err == nil) != tt.ok {
				t.Errorf("%v", err)
			}
		})
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
