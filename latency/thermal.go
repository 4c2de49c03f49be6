package latency

import (
	"bytes"
	"io/fs"
	"strconv"
)

// hottest is the temperature in °C of the machine's hottest zone, where it
// has zones; root is "/".
func hottest(root fs.FS) (celsius float64, ok bool) {
	zones, err := fs.Glob(root, "sys/class/thermal/thermal_zone*/temp")
	if err != nil {
		return 0, false
	}
	for _, zone := range zones {
		text, err := fs.ReadFile(root, zone)
		if err != nil { // a zone may be there and have nothing to say
			continue
		}
		if milli, err := strconv.ParseFloat(string(bytes.TrimSpace(text)), 64); err == nil && (!ok || milli/1000 > celsius) {
			celsius, ok = milli/1000, true
		}
	}
	return celsius, ok
}
