package latency

import (
	"fmt"
	"sync"

	"spos/internal/runs"
)

// Cache remembers results in an append-only journal of JSON lines
// ([Record]), on disk before Put returns: a search that was killed finds
// again what it measured, so its second run has the same history. Where a key
// comes twice the later line counts. One process at a time; safe for
// concurrent use within it.
type Cache struct {
	mu      sync.Mutex
	journal *runs.Journal[Record]
	at      map[string]Result
	again   int // looks since the last result that had a stretch measured again
	closed  bool
}

// OpenCache opens or makes the file. What a killed process left unfinished at
// its end is cut off; other damage is an error that wraps [runs.ErrCorrupt]
// and names the line.
func OpenCache(path string) (*Cache, error) {
	j, lines, err := runs.OpenJournal[Record](path)
	if err != nil {
		return nil, fmt.Errorf("latency cache: %w", err)
	}
	c := &Cache{journal: j, at: make(map[string]Result, len(lines))}
	for _, l := range lines {
		c.take(l)
	}
	return c, nil
}

func (c *Cache) take(l Record) {
	switch {
	case l.Look == nil:
		c.at[l.Key], c.again = l.Result, 0
	case l.Look.Again:
		c.again++
	}
}

// tries is how often the stretch under way was measured in vain, by whichever
// process.
func (c *Cache) tries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.again
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
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.add(Record{Key: key, Result: r})
}

// Note keeps a look at the sentinel beside the results, for reports.
func (c *Cache) Note(l Look) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.add(Record{Look: &l})
}

func (c *Cache) add(r Record) error {
	if err := c.journal.Append(r); err != nil {
		return fmt.Errorf("latency cache: %w", err)
	}
	c.take(r)
	return nil
}

// Close closes the file; a second Close does nothing.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return c.journal.Close()
}
