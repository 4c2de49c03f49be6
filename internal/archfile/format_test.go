package archfile_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"spos/internal/arch"
	"spos/internal/archfile"
)

// The subnet files that open-mmlab/mmrazor ships on its branches 0.x and main,
// by the SHA-256 of their bytes: what is written here is what they hold, and
// reads back.
func TestMmrazorFiles(t *testing.T) {
	cases := map[string]struct {
		space  string
		arch   arch.Arch
		format archfile.Format
		sha256 string
		// respaced are the lines in which the file has two blanks for one.
		respaced []int
	}{
		"0.x configs/nas/spos/SPOS_SHUFFLENETV2_330M_IN1k_PAPER.yaml": {
			"shufflenetv2-mmrazor", "21012020202300003233", archfile.Razor0,
			"eb5934fade3edd8944bc070ff9bfddd7061935710e7dcca67057a847b0e3dacf", nil,
		},
		"0.x configs/nas/spos/SPOS_MOBILENET_490M_FROM_ANGELNAS.yaml": {
			"mobilenet-proxylessgpu-mmrazor", "116006605622002142224", archfile.Razor0,
			"55c7c9c817160489f7787aadc7d218aecb3d8fb2772192f791b0ee7014336ccc", nil,
		},
		"0.x configs/nas/detnas/DETNAS_FRCNN_SHUFFLENETV2_340M_COCO_MMRAZOR.yaml": {
			"shufflenetv2-mmrazor", "21202112331300313132", archfile.Razor0,
			"aabb7e00d40bd22593452ddb3303cac841b988ea97ad71dc94671a3e66ff0df7", nil,
		},
		"main configs/nas/mmcls/spos/SPOS_SUBNET.yaml": {
			"shufflenetv2-mmrazor", "20203110010103122013", archfile.Razor1,
			"120c731cbd7a1c5afade2d4eb65f42e08213e294f19929ab2098c394d3353594", nil,
		},
		"main configs/nas/mmcls/dsnas/DSNAS_SUBNET_IMAGENET_PAPER_ALIAS.yaml": {
			"shufflenetv2-mmrazor", "02010002300101223020", archfile.Razor1,
			"cfd8e2da4dcc5a3a0ee6c2d55b31ce12488a1da8922c02230c9a7680d1836668", nil,
		},
		"main configs/nas/mmdet/detnas/DETNAS_SUBNET.yaml": {
			"shufflenetv2-mmrazor", "10003032223302132221", archfile.Razor1,
			"3d285d6af3487727b639cbf454d02fc8dd70172317939f000e3e50bed50414f4", []int{30, 38, 40},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := space(t, c.space)
			text, err := archfile.Encode(s, c.arch, c.format)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.SplitAfter(string(text), "\n")
			for _, n := range c.respaced {
				lines[n-1] = strings.Replace(lines[n-1], ": ", ":  ", 1)
			}
			text = []byte(strings.Join(lines, ""))
			if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != c.sha256 {
				t.Errorf("not the bytes of the original:\n%s", text)
			}
			if f, err := archfile.Detect(text); f != c.format || err != nil {
				t.Errorf("detected as %q, %v", f, err)
			}
			if got, err := archfile.Decode(s, text, "", name); got != c.arch || err != nil {
				t.Errorf("reads as %s, %v; want %s", got, err, c.arch)
			}
		})
	}
}

// AngleNAS's network in the three places it is published: its own script
// (SPOS/training/script.sh), mmrazor's file, and the same under the names of
// mmrazor 1.x, whose SearchableMobileNetV2 calls its stages layer1, layer2, ….
func TestMobileNetCrossesSpaces(t *testing.T) {
	theirs, ours := space(t, "mobilenet-proxylessgpu-mmrazor"), space(t, "mobilenet-proxylessgpu-anglenas")
	const script = "2 2 -1 0 0 -1 -1 0 5 -1 4 4 0 0 4 2 3 4 4 4 3"
	a, err := archfile.Decode(ours, []byte(script), "", "script.sh")
	if err != nil || a != "226006605644004234443" {
		t.Fatalf("%s reads as %s, %v", script, a, err)
	}
	b, err := archfile.Translate(ours, theirs, a)
	if want, _ := archfile.Decode(theirs, []byte(script), archfile.AngleNAS, "script.sh"); err != nil || b != want {
		t.Errorf("crossed over as %s, %v; want %s", b, err, want)
	}
	if back, err := archfile.Translate(theirs, ours, b); err != nil || back != a {
		t.Errorf("crossed back as %s, %v; want %s", back, err, a)
	}
	if text, err := archfile.Encode(theirs, b, archfile.AngleNAS); err != nil || strings.TrimSpace(string(text)) != script {
		t.Errorf("written as %s, %v", text, err)
	}
	for _, f := range []archfile.Format{archfile.Razor0, archfile.Razor1} {
		x, err := archfile.Encode(theirs, b, f)
		if err != nil {
			t.Fatal(err)
		}
		y, err := archfile.Encode(ours, a, f)
		if err != nil || string(x) != string(y) {
			t.Errorf("%s: the two orders are written otherwise: %v", f, err)
		}
		first := map[archfile.Format]string{
			archfile.Razor0: "stage_0_block_0:\n  chosen:\n  - mb_k3e1\nstage_1_block_0:\n",
			archfile.Razor1: "backbone.layer1.0:\n  chosen: mb_k3e1\nbackbone.layer2.0:\n",
		}[f]
		if !strings.HasPrefix(string(x), first) {
			t.Errorf("%s begins otherwise:\n%s", f, x[:80])
		}
	}
	listed := strings.ReplaceAll(string(must(archfile.Encode(theirs, b, archfile.Razor1))), "backbone.layer1.", "backbone.layers.0.")
	if got, err := archfile.Decode(theirs, []byte(listed), "", "mixed"); err != nil || got != b {
		t.Errorf("a list of stages reads as %s, %v", got, err)
	}
	var identity arch.Arch = "666666666666666666666" // all of them, which only mmrazor's space has
	if _, err := archfile.Translate(theirs, ours, identity); !errors.Is(err, arch.ErrNotInSpace) || !strings.Contains(err.Error(), "block 0: identity") {
		t.Errorf("an identity that changes the shape: %v", err)
	}
	if _, err := archfile.Translate(ours, space(t, "mobilenet-fairnas"), a); !errors.Is(err, arch.ErrNotInSpace) || !strings.Contains(err.Error(), "[4 4 4 4 4 1]") {
		t.Errorf("other stages: %v", err)
	}
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err) // of a test's constants
	}
	return text
}

// The spellings in which lists occur in the official code and its logs.
func TestLists(t *testing.T) {
	const official, cifar = "shufflenetv2-spos", "10313030033010122113"
	cases := map[string]struct {
		space, text string
		format      archfile.Format
		want        arch.Arch
	}{
		"tuple":    {official, "(2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)", archfile.List, "21012020202300003233"},
		"list":     {"shufflenetv2-cifar", "[1, 0, 3, 1, 3, 0, 3, 0, 0, 3, 3, 0, 1, 0, 1, 2, 2, 1, 1, 3]\n", archfile.List, cifar},
		"assigned": {official, "            architecture = [1, 3, 0, 0, 2, 3, 3, 3, 2, 3,\n   3, 3, 3, 2, 2, 0, 2, 3, 1, 1]", archfile.List, "13002333233332202311"},
		"numpy":    {official, "[1 0 3 1 3 0 3 0 0 3 3 0 1 0 1 2 2 1 1 3]", archfile.List, cifar},
		"bare":     {"mobilenet-fairnas", "4 2 4 2 2 2 5 2 4 4 2 2 2 4 5 4 2 2 5", archfile.List, "4242225244222454225"},
		"commas":   {"nasbench-macro", "2,2,2,1,2,2,2,0", archfile.List, "22212220"},
		"digits":   {"nasbench-macro", " 22212220\n", archfile.Digits, "22212220"},
		"scale ids": {
			"shufflenetv2-channels", "architecture = [0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2]\nscale_ids = [6, 5, 3, 5, 2, 6, 3, 4, 2, 5, 7, 5, 4, 6, 7, 4, 4, 5, 4, 3]",
			archfile.OneShot, "65rdae34i5ndc6n4kdsj",
		},
		"scales": {
			"shufflenetv2-channels", "0 0 3 1 1 1 0 0 2 0 2 1 1 0 2 0 2 1 3 2; 1.4 1.2 .8 1.2 .6 1.4 .8 1.0 .6 1.2 1.6 1.2 1.0 1.4 1.6 1.0 1.0 1.2 1.0 .8",
			archfile.OneShot, "65rdae34i5ndc6n4kdsj",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if f, err := archfile.Detect([]byte(c.text)); f != c.format || err != nil {
				t.Errorf("detected as %q, %v; want %q", f, err, c.format)
			}
			if got, err := archfile.Decode(space(t, c.space), []byte(c.text), "", name); got != c.want || err != nil {
				t.Errorf("reads as %s, %v; want %s", got, err, c.want)
			}
		})
	}
}

// TestEveryFormatReadsBack: whatever a format can write of a space, it reads.
func TestEveryFormatReadsBack(t *testing.T) {
	written := map[archfile.Format]int{}
	for _, name := range []string{"shufflenetv2-spos", "shufflenetv2-channels", "mobilenet-proxylessgpu-anglenas", "mobilenet-proxylessgpu-mmrazor", "nasbench-macro"} {
		s := space(t, name)
		choices := make([]int, s.Len())
		for i := range choices {
			choices[i] = (7*i + 6) % len(s.Candidates(i))
		}
		a := arch.Make(choices)
		for _, f := range archfile.Formats() {
			text, err := archfile.Encode(s, a, f)
			if err != nil {
				continue
			}
			written[f]++
			if got, err := archfile.Decode(s, text, f, name); err != nil || got != a {
				t.Errorf("%s as %s: reads as %s, %v; want %s:\n%s", name, f, got, err, a, text)
			}
			if f == archfile.AngleNAS {
				continue // without a -1 it is seen as a list
			}
			if got, err := archfile.Decode(s, text, "", name); err != nil || got != a {
				t.Errorf("%s as %s: detected and read as %s, %v; want %s:\n%s", name, f, got, err, a, text)
			}
		}
	}
	for f, n := range map[archfile.Format]int{archfile.Digits: 5, archfile.YAML: 5, archfile.Razor0: 5, archfile.Razor1: 5, archfile.List: 5, archfile.AngleNAS: 3, archfile.OneShot: 1} {
		if written[f] != n {
			t.Errorf("%s wrote %d of the spaces, want %d", f, written[f], n)
		}
	}
}

func TestBadTexts(t *testing.T) {
	s := tiny(t)
	good := string(must(archfile.Encode(s, "0121", archfile.Razor1)))
	cases := map[string]struct {
		text   string
		format archfile.Format
		names  string // what the error has to say
	}{
		"empty":            {"", "", "it is empty"},
		"prose":            {"the best one, please", "", `entry 0, "the", is no number`},
		"missing":          {strings.Replace(good, "backbone.layer2.2:\n  chosen: mb_k3e3\n", "", 1), "", "stage 1 block 2 is missing: 3 of the 4 blocks of tiny"},
		"too many":         {good + "backbone.layer2.3:\n  chosen: identity\n", "", `"backbone.layer2.3" is no block of tiny`},
		"foreign":          {good + "head:\n  chosen: identity\n", "", `"head" is no block`},
		"twice":            {good + "stage_1_block_0:\n  chosen: [identity]\n", "", "stage 1 block 0 is there twice"},
		"same key":         {good + "backbone.layer1.0:\n  chosen: identity\n", "", "net.yaml:9"},
		"candidate":        {strings.Replace(good, "mb_k5e6", "mb_k9e9", 1), "", `"backbone.layer2.1": "mb_k9e9" is none of the candidates identity, mb_k3e3, mb_k5e6 of tiny`},
		"two chosen":       {strings.Replace(good, "chosen: mb_k5e6", "chosen: [mb_k5e6, identity]", 1), "", "chosen is not one name"},
		"none chosen":      {strings.Replace(good, "chosen: mb_k5e6", "meta: {}", 1), "", `"" is none of`},
		"number":           {strings.Replace(good, "mb_k5e6", "7", 1), "", `"7" is none of`},
		"other keys":       {strings.Replace(good, "chosen: mb_k5e6", "choosen: mb_k5e6", 1), "", "did you mean chosen"},
		"anchor":           {"stage_0_block_0: &a {chosen: identity}\nstage_1_block_0: *a\n", "", "anchors"},
		"deep":             {"stage_0_block_0: " + strings.Repeat("[", 1000), "", "nests more than"},
		"long line":        {"stage_0_block_0: " + strings.Repeat("a", 1<<13), "", "longer than"},
		"huge":             {strings.Repeat("stage_0_block_0: {chosen: identity}\n", 3000), "", "bytes"},
		"short list":       {"[0, 1, 2]", "", "the list has 3 entries, tiny has 4 choice blocks"},
		"index":            {"[0, 1, 3, 1]", "", "entry 2: 3 is not in 0..2 (identity, mb_k3e3, mb_k5e6)"},
		"fraction":         {"[0, 1, 1.5, 1]", "", "entry 2"},
		"two lists":        {"[0, 1, 2, 1] [1.0, 1.0, 1.0, 1.0]", "", "no channel scales"},
		"three lists":      {"[0] [1] [2]", "", "more than two lists"},
		"unclosed":         {"[0, 1, 2, 1", "", "no list in brackets"},
		"lists as one":     {"[0, 1, 2, 1] [0, 1, 2, 1]", archfile.List, "2 lists, and the format list has 1"},
		"AngleNAS's index": {"0 3 6 -1", "", "entry 2: 6 is not in 0..5 (mb_k3e3"},
		"not here":         {"0 1 5 -1", "", "entry 1: 1 is mb_k3e6, none of the candidates"},
		"digits":           {"0129", "", "block 3: choice 9"},
		"format":           {"0121", "toml", `format "toml" is none of digits, yaml`},
		"control":          {"format:\x00 {", "", "net.yaml"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			a, err := archfile.Decode(s, []byte(c.text), c.format, "net.yaml")
			if err == nil || a != "" || !strings.Contains(err.Error(), c.names) || strings.Count(err.Error(), "net.yaml") != 1 {
				t.Errorf("%q, error %v; want one that names the file once and says %q", a, err, c.names)
			}
			if c.format == "" && !errors.Is(err, archfile.ErrText) && !errors.Is(err, arch.ErrNotInSpace) {
				t.Errorf("error %v wraps neither ErrText nor ErrNotInSpace", err)
			}
		})
	}
	meta := strings.ReplaceAll(good, "backbone.", "architecture.backbone.")
	meta = strings.Replace(meta, "chosen: mb_k5e6", "chosen: mb_k5e6\n  meta: {all_choices: [mb_k3e3, mb_k5e6]}", 1)
	if a, err := archfile.Decode(s, []byte(meta), "", "meta"); err != nil || a != "0121" {
		t.Errorf("a file with a prefix and meta reads as %s, %v", a, err)
	}
}

func TestUnspeakable(t *testing.T) {
	for format, name := range map[archfile.Format]string{archfile.AngleNAS: "shufflenetv2-spos", archfile.OneShot: "shufflenetv2-spos"} {
		if text, err := archfile.Encode(space(t, name), "21012020202300003233", format); err == nil {
			t.Errorf("%s wrote a net of %s: %s", format, name, text)
		}
	}
}

// FuzzDecode: what is accepted is a point of the space, and what is refused
// says so with one of the two sentinels.
func FuzzDecode(f *testing.F) {
	s := tiny(f)
	for _, format := range archfile.Formats() {
		if text, err := archfile.Encode(s, "0121", format); err == nil {
			f.Add(text)
		}
	}
	f.Add([]byte("0 1 2 -1"))
	f.Add([]byte("a = [0, 1, 2, 1]\nscale_ids = (0, 0, 0, 0)"))
	f.Add([]byte("stage_0_block_0: [1]\n"))
	f.Add([]byte("layers.0.0: &a {chosen: *a}\n"))
	f.Add([]byte("{stage_0_block_0: {chosen: [identity]}, stage_1_block_0: {chosen: !!str x}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := archfile.Decode(s, text, "", "fuzz")
		if err != nil {
			if !errors.Is(err, archfile.ErrText) && !errors.Is(err, arch.ErrNotInSpace) {
				t.Errorf("error %v wraps neither ErrText nor ErrNotInSpace", err)
			}
			return
		}
		if _, err := s.Net(a); err != nil {
			t.Errorf("accepted %q: %v", a, err)
		}
	})
}
