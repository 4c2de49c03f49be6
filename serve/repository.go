package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode"
	"unicode/utf8"

	"spos/internal/config"
	"spos/internal/ort"
)

const (
	modelFile   = "model.onnx"  // in a version's directory
	optionsFile = "config.yaml" // in a model's directory
)

const (
	maxModel   = 2<<30 - 1 // bytes of a model's file: protobuf ends at 2 GiB
	maxOptions = 64 << 10  // bytes of a model's options
	maxName    = 200       // bytes of a model's name
)

// RepositoryOptions say how models of a [Repository] are run.
type RepositoryOptions struct {
	// Runtime is the opened library. It must not be nil.
	Runtime *ort.Runtime
	// Logger receives why a model could not be loaded. It must not be nil.
	Logger *slog.Logger
	// Session is how every model runs; its zero value is what latencies are measured with. Name and IntraOp are set
	// for each model.
	Session ort.Options
	// Threads are the threads of one run, by model, where they are not left to the model's config.yaml.
	Threads map[string]int
	// Cores is how many threads a model in the mode for latency gets. 0: GOMAXPROCS.
	Cores int
	// MayBeEmpty opens a directory in which nothing works, because models will come later.
	MayBeEmpty bool
}

// Repository is a directory of models, <model>/<version>/model.onnx with numeric versions, and <model>/config.yaml
// where a model needs other options than the defaults. Links that lead out of the directory are not followed. It is a
// [Source], and safe for concurrent use.
type Repository struct {
	root   *os.Root
	opt    RepositoryOptions
	models []Model

	mu     sync.Mutex
	found  map[string]Listing // by the latest Scan
	warned map[string]bool    // directories that hold no model
}

// OpenRepository loads the models in dir, of each the versions that its policy wants. A version that cannot be loaded
// is logged and listed as unavailable; it is an error when that leaves none, unless o.MayBeEmpty. The models belong to
// the server that they are given to.
func OpenRepository(ctx context.Context, dir string, o RepositoryOptions) (_ *Repository, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("serve: open repository: %w", err)
	}
	if o.Cores <= 0 {
		o.Cores = runtime.GOMAXPROCS(0)
	}
	r := &Repository{root: root, opt: o, warned: map[string]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(r.models), root.Close())
		}
	}()
	found, err := r.Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("serve: read repository %s: %w", dir, err)
	}
	if len(found) == 0 && !o.MayBeEmpty {
		return nil, fmt.Errorf("serve: no model in %s: it should hold <model>/<version>/%s with a number as version", dir, modelFile)
	}
	var bad []error
	works := false
	for _, name := range slices.Sorted(maps.Keys(found)) {
		l := found[name]
		if l.Err != nil && len(l.Versions) == 0 {
			o.Logger.Error("model cannot be read", "model", name, "err", l.Err)
			bad = append(bad, l.Err)
		}
		l.Options.choose(l.descending(), func(version string) bool {
			m, err := r.Load(ctx, name, version)
			if err != nil {
				o.Logger.Error("model not loaded", "model", name, "version", version, "err", err)
				bad = append(bad, err)
				m = &unavailable{ModelInfo{Name: name, Version: version, Versions: l.offered(), Revision: l.Versions[version], Options: l.Options}, err}
			}
			r.models = append(r.models, m)
			works = works || err == nil
			return err == nil
		})
	}
	if !works && !o.MayBeEmpty {
		return nil, fmt.Errorf("serve: no model of %s can be served: %w", dir, errors.Join(bad...))
	}
	return r, nil
}

// Models are the loaded ones and those that failed, in the order of their names, for [New].
func (r *Repository) Models() []Model { return r.models }

// Close closes the directory, after which Load fails. The models are the server's to close.
func (r *Repository) Close() error { return r.root.Close() }

// Load loads one version, which must have been there at the latest Scan, with the options that its model has now.
func (r *Repository) Load(ctx context.Context, name, version string) (Model, error) {
	r.mu.Lock()
	l, known := r.found[name]
	r.mu.Unlock()
	// Only names that a Scan has found become part of a path.
	if _, ok := l.Versions[version]; !known || !ok {
		return nil, fmt.Errorf("%w: the repository has no version %q of %q", ErrUnavailable, version, name)
	}
	options, stamp, err := r.readOptions(name)
	if err != nil {
		return nil, err
	}
	data, revision, err := r.read(path.Join(name, version, modelFile), maxModel)
	if err != nil {
		return nil, err
	}
	o := r.opt.Session
	o.Name = name + " version " + version
	if o.IntraOp = r.opt.Threads[name]; o.IntraOp < 1 {
		o.IntraOp = options.threads(r.opt.Cores)
	}
	if o.IntraOp > 1 && o.Spinning == nil {
		o.Spinning = new(false) // waiting threads would take the cores of other requests
	}
	session, err := r.opt.Runtime.NewSession(data, o)
	if err != nil {
		return nil, err
	}
	m, err := NewONNX(ctx, session, name, version)
	if err != nil {
		return nil, err
	}
	for range options.WarmUp - 1 {
		if err := m.warm(ctx); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	l.Options = options
	m.info.Versions, m.info.Options, m.info.Revision, m.info.Bytes = l.offered(), options, revision+stamp, int64(len(data))
	return m, nil
}

// offered is the versions that may be loaded when asked for, ascending.
func (l Listing) offered() []string {
	if l.Options.Policy.restricts() {
		return nil
	}
	vs := l.descending()
	slices.Reverse(vs)
	return vs
}

// Scan finds the versions and options of all models.
func (r *Repository) Scan(context.Context) (map[string]Listing, error) {
	entries, err := fs.ReadDir(r.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	found := map[string]Listing{}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.warned, func(name string, _ bool) bool {
		return !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	})
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		info, err := r.root.Stat(name)
		_, failed := errors.AsType[syscall.Errno](err) // a link that leads out is refused without a call
		switch {
		case failed && !errors.Is(err, fs.ErrNotExist) && badName(name) == "":
			found[name] = Listing{Err: err} // what cannot be looked at now is not gone
			continue
		case err != nil || !info.IsDir():
			continue
		}
		if why := badName(name); why != "" {
			r.warn("directory cannot be a model: its name "+why, name)
			continue
		}
		l := r.list(name)
		if l.Err == nil && len(l.Versions) == 0 {
			r.warn("directory without a numbered version", name)
			continue
		}
		delete(r.warned, name)
		found[name] = l
	}
	r.found = found
	return found, nil
}

// warn logs once what would be logged at every Scan.
func (r *Repository) warn(why, name string) {
	if !r.warned[name] {
		r.warned[name] = true
		r.opt.Logger.Warn("no model", "reason", why, "model", short(name))
	}
}

// badName says why a directory's name could not be asked for or counted; empty: it can.
func badName(name string) string {
	switch {
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case len(name) > maxName:
		return fmt.Sprintf("has more than %d bytes", maxName)
	case strings.ContainsFunc(name, func(c rune) bool { return c == '\\' || !unicode.IsPrint(c) }):
		return "has characters that cannot be seen, or a backslash"
	}
	return ""
}

// list reads one model's directory.
func (r *Repository) list(name string) Listing {
	l := Listing{Versions: map[string]string{}}
	dirs, err := fs.ReadDir(r.root.FS(), name)
	if err != nil {
		l.Err = err
		return l
	}
	options, stamp, err := r.readOptions(name)
	if err != nil {
		l.Err = err
	}
	l.Options = options
	for _, d := range dirs {
		if !isVersion(d.Name()) {
			continue
		}
		revision := "none"
		if info, err := r.root.Stat(path.Join(name, d.Name(), modelFile)); err == nil {
			revision = stampOf(info)
		}
		l.Versions[d.Name()] = revision + stamp
	}
	return l
}

// readOptions reads a model's config.yaml, and is the zero value where there is none.
func (r *Repository) readOptions(name string) (o ModelOptions, stamp string, err error) {
	text, stamp, err := r.read(path.Join(name, optionsFile), maxOptions)
	if errors.Is(err, fs.ErrNotExist) {
		return ModelOptions{}, "", nil
	}
	if err != nil {
		return ModelOptions{}, "", err
	}
	o, err = config.Read(strings.NewReader(string(text)), optionsFile, ModelOptions{}, nil)
	return o, "+" + stamp, err
}

// read reads a regular file inside the repository, and the stamp of what it read. A file that another program writes
// to meanwhile is an error.
func (r *Repository) read(name string, most int64) (_ []byte, stamp string, err error) {
	// Opening a pipe would wait for its writer.
	f, err := r.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	before, err := f.Stat()
	switch {
	case err != nil:
		return nil, "", err
	case !before.Mode().IsRegular():
		return nil, "", fmt.Errorf("%s is not a regular file", path.Base(name))
	case before.Size() == 0 || before.Size() > most:
		return nil, "", fmt.Errorf("%s has %d bytes, 1 to %d are possible", path.Base(name), before.Size(), most)
	}
	data := make([]byte, before.Size())
	if _, err = io.ReadFull(f, data); err != nil {
		return nil, "", fmt.Errorf("read %s: %w", path.Base(name), err)
	}
	after, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	if stamp = stampOf(before); stamp != stampOf(after) {
		return nil, "", fmt.Errorf("%s was written to while it was read", path.Base(name))
	}
	return data, stamp, nil
}
