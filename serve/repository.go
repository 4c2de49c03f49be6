package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"

	"spos/internal/ort"
)

// modelFile is the name of the file in a version's directory.
const modelFile = "model.onnx"

// maxModel bounds a model's file: protobuf ends at 2 GiB.
const maxModel = 2<<30 - 1

// RepositoryOptions say how models of a [Repository] are run.
type RepositoryOptions struct {
	// Runtime is the opened library. It must not be nil.
	Runtime *ort.Runtime
	// Logger receives why a model could not be loaded. It must not be nil.
	Logger *slog.Logger
	// Session is how every model runs; its zero value is what latencies are measured with. Name and IntraOp are set
	// for each model.
	Session ort.Options
	// Threads gives models more than one thread a Run, by name: the lowest latency of a single request, at the price
	// of throughput. 0 and absent: 1.
	Threads map[string]int
}

// Repository is a directory of models, <model>/<version>/model.onnx with numeric versions. The highest version of
// each name is loaded, others when asked for. Links that lead out of the directory are not followed.
type Repository struct {
	root     *os.Root
	opt      RepositoryOptions
	versions map[string][]string // ascending
	models   []Model
}

// OpenRepository loads the highest version of every model in dir. A model that cannot be loaded is logged and listed
// as unavailable; it is an error when that leaves none. The models belong to the server that they are given to.
func OpenRepository(ctx context.Context, dir string, o RepositoryOptions) (_ *Repository, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("serve: open repository: %w", err)
	}
	r := &Repository{root: root, opt: o, versions: map[string][]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(r.models), root.Close())
		}
	}()
	if err := r.scan(); err != nil {
		return nil, fmt.Errorf("serve: read repository %s: %w", dir, err)
	}
	if len(r.versions) == 0 {
		return nil, fmt.Errorf("serve: no model in %s: it should hold <model>/<version>/%s with a number as version", dir, modelFile)
	}
	var bad []error
	for _, name := range r.names() {
		latest := r.versions[name][len(r.versions[name])-1]
		m, err := r.Load(ctx, name, latest)
		if err != nil {
			o.Logger.Error("model not loaded", "model", name, "version", latest, "err", err)
			bad = append(bad, err)
			m = Unavailable(name, latest, err)
		}
		r.models = append(r.models, m)
	}
	if len(bad) == len(r.models) {
		return nil, fmt.Errorf("serve: no model of %s can be served: %w", dir, errors.Join(bad...))
	}
	return r, nil
}

// Models are the loaded ones and those that failed, in the order of their names, for [New].
func (r *Repository) Models() []Model { return r.models }

// Close closes the directory, after which Load fails. The models are the server's to close.
func (r *Repository) Close() error { return r.root.Close() }

// Load loads one version, for [Options].Load.
func (r *Repository) Load(ctx context.Context, name, version string) (Model, error) {
	if !slices.Contains(r.versions[name], version) {
		return nil, fmt.Errorf("%w: the repository has no version %q of %q", ErrUnavailable, version, name)
	}
	data, err := r.read(path.Join(name, version, modelFile))
	if err != nil {
		return nil, err
	}
	o := r.opt.Session
	o.Name = name + " version " + version
	o.IntraOp = max(r.opt.Threads[name], 1)
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
	m.info.Versions = r.versions[name]
	return m, nil
}

// scan finds the versions of all models.
func (r *Repository) scan() error {
	names, err := fs.ReadDir(r.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range names {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		if info, err := r.root.Stat(name); err != nil || !info.IsDir() {
			continue
		}
		dirs, err := fs.ReadDir(r.root.FS(), name)
		if err != nil {
			return err
		}
		var versions []string
		for _, d := range dirs {
			if v := d.Name(); isNumber(v) && v != "0" {
				versions = append(versions, v)
			}
		}
		if len(versions) == 0 {
			r.opt.Logger.Warn("directory without a numbered version", "model", name)
			continue
		}
		slices.SortFunc(versions, compareVersions)
		r.versions[name] = versions
	}
	return nil
}

func (r *Repository) names() []string {
	var names []string
	for n := range r.versions {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// read reads a regular file inside the repository.
func (r *Repository) read(name string) ([]byte, error) {
	info, err := r.root.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	case info.Size() == 0 || info.Size() > maxModel:
		return nil, fmt.Errorf("%s has %d bytes, a model has 1 to %d", name, info.Size(), int64(maxModel))
	}
	f, err := r.root.Open(name)
	if err != nil {
		return nil, err
	}
	data := make([]byte, info.Size())
	_, err = io.ReadFull(f, data)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}
