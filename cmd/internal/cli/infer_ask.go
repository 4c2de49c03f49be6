package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"spos/internal/npy"
	"spos/serve"
	"spos/serve/client"
)

// target is the model that is asked.
type target struct {
	*client.Client
	o     *inferOptions
	model string
	stdin io.Reader
}

// question is one request, which may be sent any number of times.
type question struct {
	name string // of its file
	ask  func(ctx context.Context) (*answer, error)
}

// answer is what came back.
type answer struct {
	File    string         `json:"file,omitempty"`
	Classes []client.Class `json:"predictions,omitempty"`
	Outputs []outputTensor `json:"outputs,omitempty"`
	MS      float64        `json:"time_ms"`
}

// questions reads all files, so that what is timed is the server.
func (t *target) questions(ctx context.Context, pictures []string) ([]question, error) {
	if len(t.o.tensors) > 0 {
		q, err := t.tensorQuestion(ctx)
		return []question{q}, err
	}
	all := make([]question, len(pictures))
	for i, path := range pictures {
		content, err := t.read(path)
		if err != nil {
			return nil, err
		}
		all[i] = question{path, t.timed(func(ctx context.Context) (*answer, error) {
			classes, err := t.Classify(ctx, t.model, t.o.version, content, t.o.top)
			return &answer{File: path, Classes: classes}, err
		})}
	}
	return all, nil
}

// read is a file's content, or that of standard input, which can be had once.
func (t *target) read(path string) ([]byte, error) {
	if path != "-" {
		return os.ReadFile(path)
	}
	if t.stdin == nil {
		return nil, errors.New("standard input, -, is there once")
	}
	content, err := io.ReadAll(t.stdin)
	t.stdin = nil
	return content, err
}

func (t *target) timed(ask func(context.Context) (*answer, error)) func(context.Context) (*answer, error) {
	return func(ctx context.Context) (*answer, error) {
		ctx, cancel := context.WithTimeout(ctx, t.o.timeout)
		defer cancel()
		began := time.Now()
		a, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		a.MS = float64(time.Since(began)) / 1e6
		return a, nil
	}
}

func (t *target) tensorQuestion(ctx context.Context) (q question, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.o.timeout)
	defer cancel()
	m, err := t.Model(ctx, t.model, t.o.version)
	if err != nil {
		return q, err
	}
	var inputs []serve.Tensor
	for _, spec := range t.o.tensors {
		name, path, named := strings.Cut(spec, "=")
		if !named {
			if len(m.Inputs) != 1 {
				return q, fmt.Errorf("--tensor %s: the model has %d inputs, write NAME=FILE for each: %s", spec, len(m.Inputs), tensorsText(m.Inputs))
			}
			name, path = m.Inputs[0].Name, spec
		}
		at := slices.IndexFunc(m.Inputs, func(in serve.TensorInfo) bool { return in.Name == name })
		if at < 0 {
			return q, fmt.Errorf("--tensor %s: the model has no input %q, it has %s", spec, name, tensorsText(m.Inputs))
		}
		content, err := t.read(path)
		if err != nil {
			return q, err
		}
		in, err := inputTensor(m.Inputs[at], content)
		if err != nil {
			return q, fmt.Errorf("%s: %w", path, err)
		}
		inputs = append(inputs, in)
	}
	return question{t.model, t.timed(func(ctx context.Context) (*answer, error) {
		out, err := t.Infer(ctx, t.model, t.o.version, inputs)
		a := &answer{}
		for _, tensor := range out {
			a.Outputs = append(a.Outputs, outputTensor(tensor))
		}
		return a, err
	})}, nil
}

// npyTypes are the names that NumPy has for datatypes.
var npyTypes = map[serve.Datatype]string{
	serve.Bool: "b1", serve.Uint8: "u1", serve.Uint16: "u2", serve.Uint32: "u4", serve.Uint64: "u8",
	serve.Int8: "i1", serve.Int16: "i2", serve.Int32: "i4", serve.Int64: "i8",
	serve.FP16: "f2", serve.FP32: "f4", serve.FP64: "f8",
}

// inputTensor makes a tensor of a file: an array with its shape, or bytes that fill the shape that the model states, in
// which one extent may be open.
func inputTensor(in serve.TensorInfo, content []byte) (serve.Tensor, error) {
	t := serve.Tensor{Name: in.Name, Type: in.Type, Shape: slices.Clone(in.Shape), Data: content}
	if npy.Is(content) {
		a, err := npy.Parse(content)
		if err != nil {
			return t, err
		}
		if want := npyTypes[in.Type]; a.Type != want {
			return t, fmt.Errorf("input %q takes %s, which NumPy calls %s, and the file holds %s", in.Name, in.Type, want, a.Type)
		}
		t.Shape, t.Data = a.Shape, a.Data
		return t, nil
	}
	size, open := int64(in.Type.Size()), -1
	if size == 0 {
		return t, fmt.Errorf("input %q takes %s, of which a file is no form", in.Name, in.Type)
	}
	for i, d := range in.Shape {
		switch {
		case d >= 0:
			size *= d
		case open >= 0:
			return t, fmt.Errorf("bare bytes do not say the shape %v of input %q: save a .npy file", in.Shape, in.Name)
		default:
			open = i
		}
	}
	have := int64(len(content))
	if size <= 0 || have == 0 || have%size != 0 || open < 0 && have != size {
		return t, fmt.Errorf("%d bytes do not fill input %q: %s%v takes %d", have, in.Name, in.Type, in.Shape, size)
	}
	if open >= 0 {
		t.Shape[open] = have / size
	}
	return t, nil
}

// forEach calls do for 0 … n−1, at most so many at once, and returns the error of each.
func forEach(ctx context.Context, n, atOnce int, do func(ctx context.Context, i int) error) []error {
	errs := make([]error, n)
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(atOnce, n) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if errs[i] = context.Cause(ctx); errs[i] == nil {
					errs[i] = do(ctx, i)
				}
			}
		})
	}
	group.Wait()
	return errs
}

// show prints answers, and writes output tensors where that was asked for. Those of requests that failed are nil.
func (o *inferOptions) show(cmd *cobra.Command, answers []*answer) error {
	answers = slices.DeleteFunc(answers, func(a *answer) bool { return a == nil })
	if o.output != "" {
		for _, a := range answers {
			if err := save(o.output, a.Outputs); err != nil {
				return err
			}
		}
	}
	if o.json {
		return PrintJSON(cmd, answers)
	}
	if len(answers) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	if len(o.tensors) > 0 {
		fmt.Fprintln(w, "OUTPUT\tDATATYPE\tSHAPE\tVALUES\tTIME")
		for _, a := range answers {
			for _, t := range a.Outputs {
				fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%.2f ms\n", t.Name, t.Type, t.Shape, t.brief(), a.MS)
			}
		}
		return w.Flush()
	}
	fmt.Fprintln(w, "FILE\tLABEL\tPROBABILITY\tTIME")
	for _, a := range answers {
		file, took := a.File, fmt.Sprintf("%.2f ms", a.MS)
		for _, c := range a.Classes {
			label := c.Label
			if label == "" {
				label = fmt.Sprintf("class %d", c.Index)
			}
			fmt.Fprintf(w, "%s\t%s\t%.2f %%\t%s\n", file, label, 100*c.Probability, took)
			file, took = "", ""
		}
	}
	return w.Flush()
}

// save writes each tensor to a file of its name.
func save(dir string, outputs []outputTensor) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, t := range outputs {
		kind, ok := npyTypes[t.Type]
		if !ok {
			return fmt.Errorf("output %q is of datatype %s, for which NumPy has no form", t.Name, t.Type)
		}
		if t.Name == "" || filepath.Base(t.Name) != t.Name || strings.HasPrefix(t.Name, ".") {
			return fmt.Errorf("output %q has no name that a file can have", t.Name)
		}
		var b bytes.Buffer
		if err := npy.Write(&b, npy.Array{Type: kind, Shape: t.Shape, Data: t.Data}); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, t.Name+".npy"), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
