package latency

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestDisturbance reads the machine twice and holds what is in between.
func TestDisturbance(t *testing.T) {
	const cpu = "sys/devices/system/cpu/"
	still := map[string]string{
		"proc/stat": "cpu  9 9 9 9 9 9 9 9 0 0\n" +
			"cpu0 100 0 50 900 0 0 0 4 0 0\ncpu1 200 10 50 700 0 0 0 5 0 0\ncpu2 1 1 1 1 1 1 1 1 0 0\nintr 12 3\ncpuidle 1 1 1 1 1 1 1 1",
		"proc/self/cgroup":                                "0::/a/b",
		"sys/fs/cgroup/a/cpu.stat":                        "usage_usec 12\nnr_periods 9\nnr_throttled 3\nthrottled_usec 400",
		"sys/fs/cgroup/a/b/cpu.stat":                      "usage_usec 12",
		cpu + "cpu1/topology/thread_siblings_list":        "1-2",
		cpu + "cpu1/thermal_throttle/core_throttle_count": "7",
	}
	then := maps.Clone(still)
	then["proc/stat"] = "cpu  9 9 9 9 9 9 9 9 0 0\n" +
		"cpu0 103 1 51 900 9 1 1 4 0 0\ncpu1 290 10 50 700 0 0 0 8 0 0\ncpu2 3 1 1 1 1 1 1 1 0 0\nintr 12 3\n"
	then["sys/fs/cgroup/a/cpu.stat"] = "usage_usec 12\nnr_periods 9\nnr_throttled 5\nthrottled_usec 30400"
	then[cpu+"cpu1/thermal_throttle/core_throttle_count"] = "9"
	then["sys/class/power_supply/BAT0/type"] = "Battery"
	then["sys/class/power_supply/BAT0/status"] = "Discharging"
	before, after := count(tree(still)), count(tree(then))
	after.at = before.at.Add(100 * time.Millisecond)
	got := after.since(before, []int{1}, tree(then))
	want := Disturbance{
		Window: 100 * time.Millisecond, Others: 2, Busy: 90 * time.Millisecond, Sibling: 20 * time.Millisecond,
		Stolen: 30 * time.Millisecond, Throttled: 2, Stopped: 30 * time.Millisecond, Heat: 2, Battery: true,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("bound to one processor (-want +got):\n%s", d)
	}
	if c := got.Contention(); c != 0.9 {
		t.Errorf("contention %v, want 0.9", c)
	}
	if d := after.since(before, nil, tree(still)); d.Others != 0 || d.Contention() != 0 || d.Battery {
		t.Errorf("not bound: %+v, want no other processor", d)
	}
	if d := count(tree(nil)).since(count(tree(nil)), []int{0}, tree(nil)); d.Busy != 0 || d.Stolen != 0 || d.Throttled != 0 || d.Heat != 0 {
		t.Errorf("nothing to read: %+v", d)
	}
}

func TestThrottlingOfVersion1(t *testing.T) {
	c := count(tree(map[string]string{
		"proc/self/cgroup":               "4:memory:/job\n3:cpu,cpuacct:/job",
		"sys/fs/cgroup/cpu/job/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 5000000",
	}))
	if c.throttled != 4 || c.stopped != 5*time.Millisecond {
		t.Errorf("%d periods, %v, want 4 and 5ms", c.throttled, c.stopped)
	}
}

func TestList(t *testing.T) {
	for text, want := range map[string][]int{"0-2,5": {0, 1, 2, 5}, "3": {3}, "": nil, "a-b": nil, "0-99999999": nil} {
		if got := list(text); !slices.Equal(got, want) {
			t.Errorf("list(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestOnBattery(t *testing.T) {
	supply := func(kind, scope, status string) bool {
		return onBattery(tree(map[string]string{
			"sys/class/power_supply/X/type": kind, "sys/class/power_supply/X/scope": scope, "sys/class/power_supply/X/status": status,
		}))
	}
	if !supply("Battery", "", "Discharging") || supply("Battery", "Device", "Discharging") || supply("Battery", "", "Charging") || supply("Mains", "", "") {
		t.Error("a battery in use is not told from others")
	}
}

func TestDisturbanceWords(t *testing.T) {
	for want, d := range map[string]Disturbance{
		"":                           {Window: time.Second, Others: 1, Busy: 50 * time.Millisecond, Before: 100, After: 101},
		"stopped for 40 ms":          {Window: time.Second, Throttled: 2, Stopped: 40 * time.Millisecond},
		"hypervisor":                 {Window: time.Second, Stolen: 50 * time.Millisecond},
		"processors about 90 % busy": {Window: time.Second, Others: 1, Busy: 900 * time.Millisecond},
		"processors about 30 % busy": {Window: time.Second, Others: 3, Busy: 900 * time.Millisecond},
		"same core's other thread":   {Window: time.Second, Others: 3, Busy: 900 * time.Millisecond, Sibling: 700 * time.Millisecond},
		"heat 3 times":               {Heat: 3},
		"battery":                    {Battery: true},
		"clock changed by 10 %":      {Before: 100, After: 110},
	} {
		w := disturbances([]Sample{{Disturbance: d}})
		if want == "" && len(w) == 0 {
			continue
		}
		if len(w) != 1 || want == "" || !strings.Contains(w[0], want) {
			t.Errorf("%+v is told as %q, want one with %q", d, w, want)
		}
	}
}

func FuzzCounters(f *testing.F) {
	f.Add("cpu0 1 2 3 4 5 6 7 8 9 10\n", "nr_throttled 3\nthrottled_usec 9", "0::/a", "0-3,7")
	f.Add("cpu\ncpu1\ncpu-1 1 1 1 1 1 1 1 1\n\n", "nr_throttled", "::\n0::../..", ",-,")
	f.Fuzz(func(t *testing.T, stat, cpuStat, cgroup, siblings string) {
		root := tree(map[string]string{
			"proc/stat": stat, "proc/self/cgroup": cgroup, "sys/fs/cgroup/cpu.stat": cpuStat,
			"sys/devices/system/cpu/cpu0/topology/thread_siblings_list": siblings,
		})
		c := count(root)
		c.since(counters{}, []int{0}, root)
		readHost(root)
	})
}
