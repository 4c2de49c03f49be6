package serve

import "testing"

func TestFitConns(t *testing.T) {
	for _, tt := range []struct {
		asked, listeners int
		limit            uint64
		want             int
	}{
		{1024, 1, 1 << 20, 1024}, {1024, 2, 1 << 20, 1024}, {1024, 1, 1024, 1000}, {1024, 2, 1024, 500}, {1024, 1, 64, 40},
		{1024, 2, 64, 20}, {1024, 1, 10, 1}, {1024, 2, 0, 1}, {10, 1, 64, 10}, {1024, 1, 1<<63 - 1, 1024},
	} {
		if got := fitConns(tt.asked, tt.listeners, tt.limit); got != tt.want {
			t.Errorf("%d connections on %d listeners with %d descriptors: %d, want %d", tt.asked, tt.listeners, tt.limit, got, tt.want)
		}
	}
}
