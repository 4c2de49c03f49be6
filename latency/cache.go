package latency

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Cache remembers results in a file of JSON lines that is only ever appended
// to, each line {"key","result"} synced before Put returns: a search that was
// killed finds again what it measured, so its second run has the same
// history. Where a key comes twice the later line counts. One process at a
// time; safe for concurrent use within it.
type Cache struct {
	path string
	mu   sync.Mutex
	file *os.File
	size int64 // of the whole lines
	at   map[string]Result
}

type cacheLine struct {
	Key    string `json:"key"`
	Result Result `json:"result"`
}

// OpenCache opens or makes the file. A last line without its end, which a
// killed process leaves, is cut off; any other line that does not read is an
// error that names it.
func OpenCache(path string) (*Cache, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open latency cache: %w", err)
	}
	c := &Cache{path: path, file: f, at: map[string]Result{}}
	if err := c.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open latency cache %s: %w", path, err), f.Close())
	}
	return c, nil
}

func (c *Cache) load() error {
	b, err := io.ReadAll(c.file)
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(b, '\n') + 1
	n := 0
	for line := range bytes.Lines(b[:whole]) {
		n++
		var l cacheLine
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("line %d: %w: delete the line, or the file to measure again", n, err)
		}
		c.at[l.Key] = l.Result
	}
	c.size = int64(whole)
	if whole < len(b) {
		return c.file.Truncate(c.size)
	}
	return nil
}

// Get finds a result.
func (c *Cache) Get(key string) (Result, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.at[key]
	return r, ok
}

// Len is the number of keys.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.at)
}

// Put stores a result, on disk when it returns.
func (c *Cache) Put(key string, r Result) error {
	b, err := json.Marshal(cacheLine{Key: key, Result: r})
	if err != nil {
		return fmt.Errorf("latency cache: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return fmt.Errorf("latency cache %s: %w", c.path, os.ErrClosed)
	}
	n, err := c.file.Write(append(b, '\n'))
	if err == nil {
		err = c.file.Sync()
	}
	if err != nil {
		// Half a line must not become the start of the next one.
		return errors.Join(fmt.Errorf("latency cache: %w", err), c.file.Truncate(c.size))
	}
	c.size += int64(n)
	c.at[key] = r
	return nil
}

// Close closes the file; a second Close does nothing.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return nil
	}
	f := c.file
	c.file = nil
	return f.Close()
}
