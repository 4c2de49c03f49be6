package arch_test

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/arch"
)

func space(t testing.TB, name string) *arch.Space {
	t.Helper()
	s, err := configs.Space(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func net(t testing.TB, s *arch.Space, digits string) *arch.Net {
	t.Helper()
	a, err := s.Parse(digits)
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Net(a)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestPublishedTotals holds the totals that follow from the official and from
// mmrazor's definitions; the searched nets are those of both READMEs
// (323M/3.5M official, 3.35 M/0.33 G mmrazor).
func TestPublishedTotals(t *testing.T) {
	tests := []struct {
		digits                                      string
		plain, params, macs, mmParams, mmMACs, mmcv int64
	}{
		{strings.Repeat("0", 20), 3132448, 3154880, 295842496, 3155368, 294838976, 306185024},
		{strings.Repeat("1", 20), 3189536, 3211968, 313654976, 3212456, 312651456, 323997504},
		{strings.Repeat("2", 20), 3275168, 3297600, 340373696, 3298088, 339370176, 350716224},
		{strings.Repeat("3", 20), 3830400, 3870816, 358825920, 3871304, 357822400, 373913216},
		{"21012020202300003233", 3529312, 3558464, 322918720, 3558952, 321915200, 333668928},
		{"20203110010103122013", 3327344, 3353104, 317023040, 3353592, 316019520, 327544320},
		{"00311100202110202132", 3320544, 3345088, 318729024, 3345576, 317725504, 329883776},
		{strings.Repeat("0123", 5), 3349120, 3376064, 336993088, 3376552, 335989568, 349025920},
		{strings.Repeat("3210", 5), 3348832, 3375712, 289463872, 3376200, 288460352, 299480256},
	}
	official, mmrazor := space(t, "shufflenetv2-spos"), space(t, "shufflenetv2-mmrazor")
	for _, tt := range tests {
		t.Run(tt.digits, func(t *testing.T) {
			c, m := net(t, official, tt.digits).Cost(), net(t, mmrazor, tt.digits).Cost()
			path, err := official.Path(arch.Arch(tt.digits))
			if err != nil {
				t.Fatal(err)
			}
			got := [6]int64{path.Cost().Params, c.Params, c.MACs, m.Params, m.MACs, m.FLOPs.MMCV}
			want := [6]int64{tt.plain, tt.params, tt.macs, tt.mmParams, tt.mmMACs, tt.mmcv}
			if got != want {
				t.Errorf("params without affine, params, MACs, mmrazor params, MACs, mmcv:\n got %d\nwant %d", got, want)
			}
		})
	}
}

func TestOfficialArchAtOtherSizes(t *testing.T) {
	for size, want := range map[int]int64{128: 106132480, 160: 165256000, 192: 237518080, 224: 322918720} {
		s, err := space(t, "shufflenetv2-spos").With(arch.Shape{C: 3, H: size, W: size}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if got := net(t, s, "21012020202300003233").Cost().MACs; got != want {
			t.Errorf("%d px: %d MACs, want %d", size, got, want)
		}
	}
}

// TestBlockCosts compares every candidate of every block with the table in
// testdata, and the fixed part with what is left of the all-zero net.
func TestBlockCosts(t *testing.T) {
	f, err := os.Open("testdata/shufflenetv2_blocks.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if strings.HasPrefix(sc.Text(), "#") {
			continue
		}
		rows++
		fields := strings.Split(sc.Text(), "\t")
		s := space(t, fields[0])
		num := func(i int) int64 {
			v, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		for choice := range 4 {
			c := s.BlockCost(int(num(1)), choice)
			got := [3]int64{c.MACs, c.Params, c.FLOPs.MMCV}
			if want := [3]int64{num(2 + choice), num(6 + choice), num(10 + choice)}; got != want {
				t.Errorf("%s block %s choice %d: MACs, params, mmcv %d, want %d", fields[0], fields[1], choice, got, want)
			}
		}
	}
	if rows != 40 {
		t.Fatalf("%d rows, want 40", rows)
	}
	// stem 5,419,008 + tail convolution, pool and linear 33,136,640, and so on
	fixed := space(t, "shufflenetv2-spos").FixedCost()
	if got, want := [3]int64{fixed.MACs, fixed.Params, fixed.FLOPs.MMCV}, [3]int64{5419008 + 33136640, 464 + 1681408, 6021120 + 33337344}; got != want {
		t.Errorf("fixed part: %d, want %d", got, want)
	}
}

// TestActivationBytes counts by hand on a net of four ops: 1×4×4 input, a
// convolution to 2×4×4, pool, linear to 3.
func TestActivationBytes(t *testing.T) {
	s, err := arch.NewSpace(tinySpec())
	if err != nil {
		t.Fatal(err)
	}
	// The largest moment is the block's 1×1 convolution 2×4×4 → 4×4×4 beside
	// its input.
	if got, want := net(t, s, "1").Cost().ActivationBytes, int64((2*16+4*16)*4); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}

func tinySpec() arch.Spec {
	return arch.Spec{
		Name: "tiny", Input: [3]int{1, 4, 4}, Classes: 3, Init: arch.InitKaiming,
		Norm:       arch.NormSpec{Eps: 1e-5, Momentum: .1},
		Stem:       []arch.LayerSpec{{Out: 2, Kernel: 3, Act: "relu"}},
		Candidates: []arch.CandidateSpec{{Name: "mb", Block: "mbconv", Kernel: 3, Expand: 1}, {Name: "id", Block: "identity"}},
		Stages:     []arch.StageSpec{{Out: 4, Blocks: 1, Stride: 1}},
	}
}
