package latency

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/stat: the kernel shows user space 100 a second
// whatever its own clock.
const tick = 10 * time.Millisecond

// counters are the machine's running totals of what a [Disturbance] tells.
type counters struct {
	at        time.Time
	busy      map[int]time.Duration // by processor
	stolen    map[int]time.Duration
	throttled int64
	stopped   time.Duration
	heat      int64
}

// count reads the counters of root.
func count(root fs.FS) counters {
	c := counters{at: time.Now(), busy: map[int]time.Duration{}, stolen: map[int]time.Duration{}}
	for line := range strings.Lines(read(root, "proc/stat")) {
		// cpuN user nice system idle iowait irq softirq steal; guests are in user.
		f := strings.Fields(line)
		name, ok := strings.CutPrefix(line[:strings.IndexByte(line+" ", ' ')], "cpu")
		cpu, err := strconv.Atoi(name)
		if !ok || err != nil || len(f) < 9 {
			continue
		}
		for i, into := range map[int]map[int]time.Duration{1: c.busy, 2: c.busy, 3: c.busy, 6: c.busy, 7: c.busy, 8: c.stolen} {
			n, _ := strconv.ParseInt(f[i], 10, 64)
			into[cpu] += time.Duration(n) * tick
		}
		for _, part := range []string{"core", "package"} {
			text := read(root, "sys/devices/system/cpu/cpu"+name+"/thermal_throttle/"+part+"_throttle_count")
			n, _ := strconv.ParseInt(text, 10, 64)
			c.heat += n
		}
	}
	for _, dir := range groups(root) {
		c.throttled, c.stopped = throttling(read(root, path.Join(dir, "cpu.stat")))
		if c.throttled > 0 {
			break // the innermost that has been stopped
		}
	}
	return c
}

// throttling finds the counters of a control group of version 2 or 1.
func throttling(stat string) (periods int64, stopped time.Duration) {
	for line := range strings.Lines(stat) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.ParseInt(text, 10, 64)
		switch name {
		case "nr_throttled":
			periods = n
		case "throttled_usec":
			stopped = time.Duration(n) * time.Microsecond
		case "throttled_time":
			stopped = time.Duration(n)
		}
	}
	return periods, stopped
}

// since is what has happened since before, for a session whose threads are
// bound to cpus; nil are none, and then no processor is another's.
func (c counters) since(before counters, cpus []int, root fs.FS) Disturbance {
	d := Disturbance{
		Window: c.at.Sub(before.at), Throttled: c.throttled - before.throttled, Stopped: c.stopped - before.stopped,
		Heat: c.heat - before.heat, Battery: onBattery(root),
	}
	var siblings []int
	for _, cpu := range cpus {
		siblings = append(siblings, list(read(root, "sys/devices/system/cpu/cpu"+strconv.Itoa(cpu)+"/topology/thread_siblings_list"))...)
		d.Stolen += c.stolen[cpu] - before.stolen[cpu]
	}
	for cpu, busy := range c.busy {
		if len(cpus) == 0 || slices.Contains(cpus, cpu) {
			continue
		}
		busy -= before.busy[cpu]
		d.Others++
		d.Busy += busy
		if slices.Contains(siblings, cpu) {
			d.Sibling += busy
		}
	}
	return d
}

// list reads processors as the kernel writes them, "0-3,8".
func list(text string) []int {
	var cpus []int
	for part := range strings.SplitSeq(text, ",") {
		low, high, ok := strings.Cut(part, "-")
		if !ok {
			high = low
		}
		from, err1 := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || to-from > 1<<16 {
			return nil
		}
		for cpu := from; cpu <= to; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// onBattery reports a battery that is being emptied.
func onBattery(root fs.FS) bool {
	const supplies = "sys/class/power_supply"
	entries, err := fs.ReadDir(root, supplies)
	if err != nil {
		return false
	}
	for _, e := range entries {
		at := path.Join(supplies, e.Name())
		// A mouse's battery has the scope Device.
		if read(root, at+"/type") == "Battery" && read(root, at+"/scope") != "Device" && read(root, at+"/status") == "Discharging" {
			return true
		}
	}
	return false
}

// groups are the directories of the control groups that limit this process's
// processors, from its own outwards, of version 2 and 1.
func groups(root fs.FS) []string { return controlGroups(root, "cpu") }

// controlGroups are those of one controller.
func controlGroups(root fs.FS, controller string) []string {
	var dirs []string
	for line := range strings.Lines(read(root, "proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var mounts []string
		switch {
		case parts[1] == "":
			mounts = []string{""}
		case slices.Contains(strings.Split(parts[1], ","), controller):
			mounts = slices.Compact([]string{controller, parts[1]})
		}
		for dir := path.Clean("/" + parts[2]); len(mounts) > 0; dir = path.Dir(dir) {
			for _, mount := range mounts {
				dirs = append(dirs, path.Join("sys/fs/cgroup", mount, dir))
			}
			if dir == "/" {
				break
			}
		}
	}
	return dirs
}
