package runs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrCorrupt is wrapped by the error about a journal in which something other
// than its end is damaged.
var ErrCorrupt = errors.New("runs: file is damaged")

// Journal is an append-only file of JSON lines. What [Journal.Append] has
// acknowledged survives kill -9 and a power cut. It is used by one goroutine
// of one process at a time.
type Journal[T any] struct {
	path string
	f    *os.File
	end  int64 // of the last acknowledged record
	err  error // that left the file in an unknown state
}

// OpenJournal opens or creates the journal at path and returns the records
// that it holds, in order. What an interrupted Append left at its end is cut
// off. It wraps [ErrCorrupt] and names the line where anything else cannot be
// read.
func OpenJournal[T any](path string) (*Journal[T], []T, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	records, end, err := read[T](f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("journal %s: %w", path, err), f.Close())
	}
	j := &Journal[T]{path: path, f: f, end: end}
	if err := j.recover(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("recover journal %s: %w", path, err), f.Close())
	}
	return j, records, nil
}

// recover cuts the file at the last record and makes that, and the file's
// name, durable.
func (j *Journal[T]) recover() error {
	if err := j.f.Truncate(j.end); err != nil {
		return err
	}
	return errors.Join(j.f.Sync(), syncDir(filepath.Dir(j.path)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadJournal returns the records of the journal at path, as [OpenJournal]
// would, and changes nothing: the journal may be in use. It wraps
// [fs.ErrNotExist] where there is none.
func ReadJournal[T any](path string) ([]T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	defer f.Close()
	records, _, err := read[T](f)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	return records, nil
}

// DecodeJournal returns the records of a journal's text, as [OpenJournal]
// would.
func DecodeJournal[T any](r io.Reader) ([]T, error) {
	records, _, err := read[T](r)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return records, nil
}

// read returns the records and where the last one ends. A record is a line
// that ends in a newline; lines at the end that are no JSON are the rest of
// an Append that did not finish.
func read[T any](r io.Reader) (records []T, end int64, err error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, 0, err
	}
	torn, at := 0, int64(0)
	for n := 1; len(text) > 0; n++ {
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		at += int64(len(line)) + 1
		switch {
		case !ended || !json.Valid(line):
			if torn == 0 {
				torn = n
			}
		case torn > 0:
			return nil, 0, fmt.Errorf("line %d is no JSON, and line %d after it is; to go on without them, remove the file from line %d on: %w", torn, n, torn, ErrCorrupt)
		default:
			var v T
			if err := json.Unmarshal(line, &v); err != nil {
				return nil, 0, fmt.Errorf("line %d: %w: %w", n, err, ErrCorrupt)
			}
			records, end = append(records, v), at
		}
		text = rest
	}
	return records, end, nil
}

// Append writes records and returns once all of them are on the disk. If it
// fails, none of them is in the journal.
func (j *Journal[T]) Append(records ...T) error {
	if j.err != nil {
		return fmt.Errorf("journal %s: not written since an earlier error: %w", j.path, j.err)
	}
	var lines []byte
	for _, v := range records {
		line, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("journal %s: %w", j.path, err)
		}
		lines = append(append(lines, line...), '\n')
	}
	if _, err := j.f.WriteAt(lines, j.end); err != nil {
		// A record that was not acknowledged must not turn up later.
		j.err = j.f.Truncate(j.end)
		return fmt.Errorf("journal %s: %w", j.path, errors.Join(err, j.err))
	}
	if err := j.f.Sync(); err != nil {
		// The kernel may have dropped what it could not write, and would
		// report the next sync as a success.
		j.err = err
		return fmt.Errorf("journal %s: %w", j.path, err)
	}
	j.end += int64(len(lines))
	return nil
}

// Close closes the file.
func (j *Journal[T]) Close() error {
	j.err = os.ErrClosed
	return j.f.Close()
}
