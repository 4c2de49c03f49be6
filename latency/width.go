package latency

import (
	"context"
	"sync"
)

// Width is how many tasks a runner times at once: what its method of that
// name says, else one.
func Width(r Runner) int {
	if w, ok := r.(interface{ Width() int }); ok {
		return max(1, w.Width())
	}
	return 1
}

// inOrder calls do with 0 to n-1, in that order, width of them at once. The
// first error ends it.
func inOrder(ctx context.Context, width, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	next := 0
	var failed error
	take := func(err error) (i int, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil && failed == nil {
			failed = err
			cancel(err)
		}
		if failed != nil || next == n {
			return 0, false
		}
		next++
		return next - 1, true
	}
	var workers sync.WaitGroup
	for range min(width, n) {
		workers.Go(func() {
			for i, ok := take(nil); ok; i, ok = take(do(ctx, i)) {
			}
		})
	}
	workers.Wait()
	return failed
}
