package serve

import (
	"runtime"
	"sync"
)

// spread keeps runs on processors of their own. A scheduler that is slow to move what is warm lets two of them share a
// processor for ten milliseconds and more while another idles: on two of them, Linux left a tenth of their time unused
// under as many requests as anyone likes to send.
type spread struct {
	mu    sync.Mutex
	begun map[int]int // runs at work, by the processor they began on
}

// enter moves the calling thread off a processor that another run began on, where there is one left, and returns what
// is to be called when the run is over. The thread stays as free to move as it was.
func (s *spread) enter() (leave func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s.mu.Lock()
	defer s.mu.Unlock()
	at := processor()
	if at < 0 {
		return func() {}
	}
	if s.begun[at] > 0 {
		at = avoid(s.begun)
	}
	s.begun[at]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.begun[at]--; s.begun[at] == 0 {
			delete(s.begun, at)
		}
	}
}

// do is f on a processor of its own.
func (s *spread) do(f func() error) error {
	defer s.enter()()
	return f()
}
