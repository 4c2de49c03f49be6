package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"spos/serve"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 30

const headerLength = "Inference-Header-Content-Length"

type httpWire struct {
	base   string // without a slash at its end
	token  string
	client http.Client
}

func openHTTP(u *url.URL, o Options) *httpWire {
	transport := http.DefaultTransport.(*http.Transport).Clone() // proxies of the environment, and HTTP/2
	transport.TLSClientConfig = o.TLS
	transport.MaxIdleConnsPerHost = o.Conns
	transport.DisableCompression = true // costs more time than a network of today
	return &httpWire{
		base: strings.TrimRight(u.String(), "/"), token: o.Token,
		client: http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

func (w *httpWire) Close() error {
	w.client.CloseIdleConnections()
	return nil
}

// do sends a request and returns the answer's header and body.
func (w *httpWire) do(ctx context.Context, method, path string, header map[string]string, body []byte) (http.Header, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, w.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if w.token != "" {
		r.Header.Set("Authorization", "Bearer "+w.token)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	resp, err := w.client.Do(r)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil { // without method and URL, which callers know
			err = inner
		}
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, &Error{resp.StatusCode, messageOf(resp.Status, text)}
	}
	return resp.Header, text, nil
}

// messageOf is what an answer says went wrong.
func messageOf(status string, body []byte) string {
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &e) == nil && e.Error != "" {
		return e.Error
	}
	const most = 200
	if text := strings.TrimSpace(string(body)); text != "" && len(text) <= most {
		return status + ": " + text
	}
	return status
}

// ask is do with an answer in JSON.
func (w *httpWire) ask(ctx context.Context, method, path string, header map[string]string, body []byte, into any) error {
	_, text, err := w.do(ctx, method, path, header, body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("the answer is not the protocol's: %w", err)
	}
	return nil
}

func pathOf(name, version string) string {
	path := "/v2/models/" + url.PathEscape(name)
	if version != "" {
		path += "/versions/" + url.PathEscape(version)
	}
	return path
}

func (w *httpWire) Index(ctx context.Context) (all []serve.IndexEntry, err error) {
	err = w.ask(ctx, http.MethodPost, "/v2/repository/index", nil, nil, &all)
	return all, err
}

func (w *httpWire) Model(ctx context.Context, name, version string) (m Model, err error) {
	err = w.ask(ctx, http.MethodGet, pathOf(name, version), nil, nil, &m)
	return m, err
}

func (w *httpWire) Classify(ctx context.Context, name, version string, picture []byte, top int) ([]Class, error) {
	var a struct {
		Predictions []Class `json:"predictions"`
	}
	err := w.ask(ctx, http.MethodPost, pathOf(name, version)+"/classify?k="+strconv.Itoa(top),
		map[string]string{"Content-Type": "application/octet-stream"}, picture, &a)
	return a.Predictions, err
}

// tensorJSON is an input or output whose data is behind the JSON.
type tensorJSON struct {
	Name       string         `json:"name"`
	Type       serve.Datatype `json:"datatype"`
	Shape      []int64        `json:"shape"`
	Parameters struct {
		Size *int `json:"binary_data_size"`
	} `json:"parameters"`
}

func (w *httpWire) Infer(ctx context.Context, name, version string, inputs []serve.Tensor) ([]serve.Tensor, error) {
	request := struct {
		Inputs     []tensorJSON    `json:"inputs"`
		Parameters map[string]bool `json:"parameters"`
	}{Parameters: map[string]bool{"binary_data_output": true}}
	size := 0
	for _, in := range inputs {
		size += len(in.Data)
		t := tensorJSON{Name: in.Name, Type: in.Type, Shape: in.Shape}
		t.Parameters.Size = new(len(in.Data))
		request.Inputs = append(request.Inputs, t)
	}
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	body := append(make([]byte, 0, len(text)+size), text...)
	for _, in := range inputs {
		body = append(body, in.Data...)
	}
	header, answer, err := w.do(ctx, http.MethodPost, pathOf(name, version)+"/infer", map[string]string{
		"Content-Type": "application/octet-stream", headerLength: strconv.Itoa(len(text)),
	}, body)
	if err != nil {
		return nil, err
	}
	return readOutputs(header.Get(headerLength), answer)
}

// readOutputs splits an answer into its JSON, of the given length, and the tensors behind it.
func readOutputs(length string, answer []byte) ([]serve.Tensor, error) {
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 || n > len(answer) {
		return nil, fmt.Errorf("the answer is not the protocol's: its header %s is %q", headerLength, length)
	}
	var a struct {
		Outputs []tensorJSON `json:"outputs"`
	}
	if err := json.Unmarshal(answer[:n], &a); err != nil {
		return nil, fmt.Errorf("the answer is not the protocol's: %w", err)
	}
	rest := answer[n:]
	outputs := make([]serve.Tensor, len(a.Outputs))
	for i, o := range a.Outputs {
		size := o.Parameters.Size
		if size == nil || *size < 0 || *size > len(rest) {
			return nil, fmt.Errorf("the answer is not the protocol's: no bytes of output %q", o.Name)
		}
		outputs[i] = serve.Tensor{Name: o.Name, Type: o.Type, Shape: o.Shape, Data: rest[:*size]}
		rest = rest[*size:]
	}
	return outputs, nil
}
