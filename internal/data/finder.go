package data

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// Where Fashion-MNIST comes from: the Debian package and the folder it fills,
// and the data set's public home.
const (
	fashionPackage = "dataset-fashion-mnist"
	fashionSystem  = "/usr/share/datasets/fashion-mnist"
	fashionHome    = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
)

// remoteFile is a gzipped file to download. The hash and the size are of what
// is inside: packers compress it anew.
type remoteFile struct {
	name   string
	size   int64
	sha256 string
}

var fashionFiles = [...]remoteFile{
	{"train-images-idx3-ubyte.gz", 47040016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"},
	{"train-labels-idx1-ubyte.gz", 60008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"},
	{"t10k-images-idx3-ubyte.gz", 7840016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"},
	{"t10k-labels-idx1-ubyte.gz", 10008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"},
}

// Finder finds Fashion-MNIST on this machine or brings it there.
type Finder struct {
	Dir   string // the user's answer (--data). If set, nothing else is tried
	Env   string // the value of $SPOS_DATA: the files, or a folder fashion-mnist with them
	Cache string // folder that downloads may fill: fashion-mnist below it is used
	Log   *slog.Logger
	// Progress is told of a download's bytes, now and then. Nil: nobody is.
	Progress func(file string, done, total int64)
	// Client downloads. Nil: one with a time limit.
	Client *http.Client

	system, home string       // of tests. Empty: the real ones
	files        []remoteFile // likewise
	install      func(ctx context.Context, name string, arg ...string) error
	pause        time.Duration // before the second try, doubled for the third
}

// Obtain is the folder that holds the four files, from the first of: Dir, Env,
// the Debian package's folder, an earlier download, the Debian package
// installed now (see [Finder.MayInstall]), a download now. The error, which
// wraps [ErrNotFound], says why each failed and what to do.
func (f *Finder) Obtain(ctx context.Context) (string, error) {
	dir, err := f.Find()
	if err == nil || f.Dir != "" {
		return dir, err
	}
	if f.MayInstall() {
		ierr := f.Install(ctx)
		if ierr == nil {
			if dir, ierr = f.Find(); ierr == nil {
				return dir, nil
			}
		}
		err = errors.Join(err, ierr)
	}
	dir, derr := f.Download(ctx)
	if derr == nil {
		return dir, nil
	}
	return "", fmt.Errorf("%w\n%w\nput the files %s, … into a folder and name it with --data, or on Debian run: apt-get install %s",
		err, derr, fashionFiles[0].name, fashionPackage)
}

// Find looks where the files may be already, and touches nothing.
func (f *Finder) Find() (string, error) {
	places := []string{f.Dir, filepath.Join(f.Dir, "fashion-mnist")}
	if f.Dir == "" {
		places = []string{f.systemDir(), filepath.Join(f.Cache, "fashion-mnist")}
		if f.Env != "" {
			places = append([]string{f.Env, filepath.Join(f.Env, "fashion-mnist")}, places...)
		}
	}
	for _, p := range places {
		if hasIDX(p) {
			return p, nil
		}
	}
	return "", fmt.Errorf("fashion-mnist: no train-images-idx3-ubyte(.gz) and its three companions in %q: %w", places, ErrNotFound)
}

func (f *Finder) systemDir() string {
	if f.system != "" {
		return f.system
	}
	return fashionSystem
}

// MayInstall reports whether [Finder.Install] can do anything: this is Debian
// or a descendant, and the user is root.
func (f *Finder) MayInstall() bool {
	if f.install != nil {
		return true
	}
	_, err := exec.LookPath("apt-get")
	_, debian := os.Stat("/etc/debian_version")
	return err == nil && debian == nil && os.Geteuid() == 0
}

// Install installs the Debian package with apt-get, refreshing the package
// lists if that is what it takes.
func (f *Finder) Install(ctx context.Context) error {
	run := f.install
	if run == nil {
		run = aptGet
	}
	install := []string{"install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", fashionPackage}
	f.Log.InfoContext(ctx, "installing a Debian package", "package", fashionPackage)
	err := run(ctx, "apt-get", install...)
	if err == nil {
		return nil
	}
	f.Log.InfoContext(ctx, "refreshing the package lists", "err", err)
	if err := run(ctx, "apt-get", "update"); err != nil {
		return fmt.Errorf("install %s: refresh the package lists: %w", fashionPackage, err)
	}
	if err := run(ctx, "apt-get", install...); err != nil {
		return fmt.Errorf("install %s: %w", fashionPackage, err)
	}
	return nil
}

func aptGet(ctx context.Context, name string, arg ...string) error {
	c := exec.CommandContext(ctx, name, arg...)
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := c.CombinedOutput()
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w: …%s", name, arg[0], err, out[max(0, len(out)-400):])
}

// Download brings the files from the data set's home into the cache: each is
// tried three times, checked against its known hash, and appears whole or not
// at all. Files that an earlier, interrupted download completed are kept.
func (f *Finder) Download(ctx context.Context) (string, error) {
	if f.Cache == "" {
		return "", errors.New("download fashion-mnist: no cache folder")
	}
	dir := filepath.Join(f.Cache, "fashion-mnist")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("download fashion-mnist: %w", err)
	}
	files := f.files
	if files == nil {
		files = fashionFiles[:]
	}
	for _, file := range files {
		if _, err := os.Stat(filepath.Join(dir, file.name)); err == nil {
			continue
		}
		if err := f.fetchTried(ctx, dir, file); err != nil {
			return "", fmt.Errorf("download fashion-mnist: %w", err)
		}
	}
	return dir, nil
}

func (f *Finder) fetchTried(ctx context.Context, dir string, file remoteFile) (err error) {
	pause := f.pause
	if pause == 0 {
		pause = time.Second
	}
	for try := range 3 {
		if try > 0 {
			f.Log.WarnContext(ctx, "download again", "file", file.name, "err", err)
			select {
			case <-time.After(pause << (try - 1)):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err = f.fetch(ctx, dir, file); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("given up after three tries: %w", err)
}

func (f *Finder) fetch(ctx context.Context, dir string, file remoteFile) (err error) {
	home, client := f.home, f.Client
	if home == "" {
		home = fashionHome
	}
	if client == nil {
		client = &http.Client{Timeout: 10 * time.Minute}
	}
	url := home + "/" + file.name
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	out, err := renameio.NewPendingFile(filepath.Join(dir, file.name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Cleanup()) }()
	// A file is never longer packed than unpacked, but for gzip's frame.
	body := &counter{r: io.LimitReader(res.Body, file.size+1024), told: f.Progress, name: file.name, total: res.ContentLength}
	if err := file.check(io.TeeReader(body, out)); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return out.CloseAtomicallyReplace()
}

// check unpacks r to its end and compares what is in it.
func (file *remoteFile) check(r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(z, file.size+1))
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != file.size || got != file.sha256 {
		return fmt.Errorf("not the known content: %d bytes with sha256 %s, want %d with %s", n, got, file.size, file.sha256)
	}
	_, err = io.Copy(io.Discard, r) // the reader may not have taken the last bytes
	return err
}

// counter tells how much has been read, at each mebibyte and at the end.
type counter struct {
	r           io.Reader
	told        func(string, int64, int64)
	name        string
	done, total int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	before := c.done
	c.done += int64(n)
	if c.told != nil && (before>>20 != c.done>>20 || errors.Is(err, io.EOF)) {
		c.told(c.name, c.done, c.total)
	}
	return n, err
}
