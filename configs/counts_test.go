package configs_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/arch"
)

// TestCounters holds our counts against those that supernet/testdata/originals
// makes: of the operations that PyTorch executes for the full-size modules of
// the published code bases, by the rules of the published counters.
func TestCounters(t *testing.T) {
	text, err := os.ReadFile("../supernet/testdata/originals/counts.tsv")
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(string(text)), "\n")[1:]
	compared := map[string]bool{}
	for _, row := range rows {
		f := strings.Split(row, "\t")
		if f[1] == "shufflenetv2-detnas" { // has a bias that no space here has
			continue
		}
		s, err := configs.Space(f[1])
		if err != nil {
			t.Fatal(err)
		}
		spell := s.Net
		if f[2] == "supernet" {
			spell = s.Path
		}
		n, err := spell(arch.Arch(f[3]))
		if err != nil {
			t.Fatal(err)
		}
		c := n.Cost()
		for i, got := range []int64{c.Params, c.FLOPs.MACs, c.FLOPs.MMCV, c.FLOPs.Thop} {
			if want := f[4+i]; strconv.FormatInt(got, 10) != want {
				t.Errorf("%s, %s %s, %s: %d, PyTorch's operations give %s", f[0], f[2], f[3], []string{"params", "macs", "mmcv", "thop"}[i], got, want)
			}
		}
		compared[f[1]+" "+f[2]] = true
	}
	if len(compared) != 15 { // of eight published spaces, net and supernet, but NAS-Bench-Macro has no supernet
		t.Errorf("%d spaces and supernets compared: %v", len(compared), compared)
	}
}
