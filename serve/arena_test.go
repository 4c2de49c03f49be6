package serve

import (
	"testing"
)

// TestSizeClasses: every class is what its own size asks for, sizes grow, and none is much more than was asked for.
func TestSizeClasses(t *testing.T) {
	lastClass, lastSize := -1, int64(0)
	for n := 1; n < 1<<33; n += max(n/64, 1) {
		class, size := classOf(n)
		if size < int64(n) || n > smallest && size > int64(n)*5/4 {
			t.Fatalf("%d bytes get %d", n, size)
		}
		if class == lastClass && size != lastSize || class > lastClass+1 || class < lastClass {
			t.Fatalf("%d bytes: class %d of %d bytes after class %d of %d", n, class, size, lastClass, lastSize)
		}
		if again, same := classOf(int(size)); again != class || same != size {
			t.Fatalf("class %d of %d bytes asks for class %d of %d", class, size, again, same)
		}
		lastClass, lastSize = class, size
	}
	if lastClass >= numClasses {
		t.Errorf("class %d of %d", lastClass, numClasses)
	}
}

// TestArenaReuses: what one request gave back, the next gets, and it starts where a cache line does.
func TestArenaReuses(t *testing.T) {
	m := memory{limit: 1 << 20}
	for range 3 {
		a := arena{m: &m}
		for _, n := range []int{1, 5000, 602113} {
			b, err := a.alloc(n)
			if err != nil || len(b) != n || addr(b)%alignment != 0 {
				t.Fatalf("%d bytes: %d at %#x, %v", n, len(b), addr(b), err)
			}
		}
		if _, err := a.alloc(400_000); err == nil {
			t.Error("more than the limit was given")
		}
		a.free()
		if used := m.used.Load(); used != 0 {
			t.Fatalf("%d bytes are held by nobody", used)
		}
	}
}
