package serve

import (
	"fmt"
	"runtime"
	"sync"
)

// runners are threads that run models and do nothing else, behind the others of the process: with more to do than there
// are cores, those that refuse, read and answer get theirs at once, where they would wait for the end of a time slice
// at every step. Putting a thread back needs a privilege, so these are never used for anything else.
type runners struct {
	work  chan func()
	group sync.WaitGroup
	end   sync.Once
}

// newRunners starts n threads, each nicer than the process by so much. There are none where nice is 0.
func newRunners(n, nice int) (*runners, error) {
	if nice == 0 {
		return nil, nil
	}
	r := &runners{work: make(chan func())}
	errs := make(chan error, n)
	for range n {
		r.group.Go(func() {
			runtime.LockOSThread() // to the end: the thread ends with its goroutine
			err := addNice(nice)
			errs <- err
			if err != nil {
				return
			}
			for do := range r.work {
				do()
			}
		})
	}
	for range n {
		if err := <-errs; err != nil {
			r.stop()
			return nil, fmt.Errorf("serve: lower the priority of runs: %w", err)
		}
	}
	return r, nil
}

// do runs f on one of the threads, or where it is without them. A panic of f is one of do.
func (r *runners) do(f func() error) (err error) {
	if r == nil {
		return f()
	}
	var thrown any
	done := make(chan struct{})
	r.work <- func() {
		defer close(done)
		defer func() { thrown = recover() }()
		err = f()
	}
	<-done
	if thrown != nil {
		panic(thrown)
	}
	return err
}

// stop ends the threads. Nothing may be done on them any more.
func (r *runners) stop() {
	if r != nil {
		r.end.Do(func() { close(r.work) })
		r.group.Wait()
	}
}
