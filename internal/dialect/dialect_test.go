package dialect_test

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/dialect"
)

// originals are the names and shapes of state dicts that the published code
// bases themselves made: testdata/originals.txt.gz, a section for each model,
// whose head says which code ran.
func originals(t *testing.T) map[string][]dialect.Tensor {
	t.Helper()
	f, err := os.Open("testdata/originals.txt.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	all, model := map[string][]dialect.Tensor{}, ""
	for lines := bufio.NewScanner(z); lines.Scan(); {
		switch fields := strings.Fields(lines.Text()); fields[0] {
		case "==":
			model = fields[1]
		case "#":
		default:
			all[model] = append(all[model], dialect.Tensor{Name: fields[0], Shape: parseShape(t, fields[1])})
		}
	}
	return all
}

func parseShape(t *testing.T, text string) []int {
	if text == "scalar" {
		return nil
	}
	var shape []int
	for d := range strings.SplitSeq(text, "x") {
		n, err := strconv.Atoi(d)
		if err != nil {
			t.Fatal(err)
		}
		shape = append(shape, n)
	}
	return shape
}

// models are the originals with what they are here. Published lists count
// AngleNAS's candidates in its own order.
var models = map[string]struct{ dialect, space, arch string }{
	"spos-official-supernet":              {"spos", "shufflenetv2-spos", ""},
	"spos-official-subnet":                {"spos", "shufflenetv2-spos", "21012020202300003233"},
	"series-oneshot":                      {"spos", "shufflenetv2-channels", oneShot()},
	"anglenas-spos-supernet-searching":    {"anglenas", "mobilenet-proxylessgpu-anglenas", ""},
	"anglenas-spos-subnet":                {"anglenas", "mobilenet-proxylessgpu-anglenas", "226006605644004234443"},
	"anglenas-fairnas-supernet-searching": {"anglenas", "mobilenet-fairnas", ""},
	"anglenas-fairnas-subnet":             {"anglenas", "mobilenet-fairnas", "4242225244222454225"},
	"mmrazor0-mobile-supernet":            {"mmrazor0", "mobilenet-proxylessgpu-mmrazor", ""},
	"mmrazor0-mobile-subnet":              {"mmrazor0", "mobilenet-proxylessgpu-mmrazor", "116006605622002142224"},
	"mmrazor0-shuffle-supernet":           {"mmrazor0", "shufflenetv2-mmrazor", ""},
	"mmrazor0-shuffle-subnet":             {"mmrazor0", "shufflenetv2-mmrazor", "21012020202300003233"},
	"mmrazor1-mobile-supernet":            {"mmrazor1", "mobilenet-proxylessgpu-mmrazor", ""},
	"mmrazor1-mobile-subnet":              {"mmrazor1", "mobilenet-proxylessgpu-mmrazor", "116006605622002142224"},
	"mmrazor1-mobile-subnet-all-identity": {"mmrazor1", "mobilenet-proxylessgpu-mmrazor", "666666666666666666666"},
	"mmrazor1-shuffle-supernet":           {"mmrazor1", "shufflenetv2-mmrazor", ""},
	"mmrazor1-shuffle-subnet":             {"mmrazor1", "shufflenetv2-mmrazor", "20203110010103122013"},
	"nasbench-macro-01021001":             {"nasbench-macro", "nasbench-macro", "01021001"},
	"nasbench-macro-22212220":             {"nasbench-macro", "nasbench-macro", "22212220"},
	"cifar-supernet":                      {"shunlu91", "shufflenetv2-cifar", ""},
	"cifar-subnet":                        {"shunlu91", "shufflenetv2-cifar", "10313030033010122113"},
}

// oneShot is the published block and channel net: a digit is 8·block + scale.
func oneShot() string {
	blocks := []int{0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2}
	scales := []int{6, 5, 3, 5, 2, 6, 3, 4, 2, 5, 7, 5, 4, 6, 7, 4, 4, 5, 4, 3}
	choices := make([]int, len(blocks))
	for i := range choices {
		choices[i] = 8*blocks[i] + scales[i]
	}
	return string(arch.Make(choices))
}

func target(t *testing.T, space, a string) dialect.Target {
	t.Helper()
	s, err := configs.Space(space)
	if err != nil {
		t.Fatal(err)
	}
	return dialect.Target{Space: s, Arch: arch.Arch(a)}
}

// one is a target for [dialect.Detect].
func one(t dialect.Target) iter.Seq[dialect.Target] { return slices.Values([]dialect.Target{t}) }

func find(t *testing.T, name string) *dialect.Dialect {
	t.Helper()
	d, err := dialect.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestOriginals: what we export has the names and shapes that the original
// code's own state dict has, in its order within a module, and what it saves
// is recognised as what it is.
func TestOriginals(t *testing.T) {
	files := originals(t)
	if len(files) != len(models) {
		t.Errorf("%d originals, %d known", len(files), len(models))
	}
	for name, m := range models {
		t.Run(name, func(t *testing.T) {
			want, tgt := map[string]string{}, target(t, m.space, m.arch)
			for _, x := range files[name] {
				key := x.Name
				if m.dialect == "spos" || m.dialect == "anglenas" {
					key = "module." + key // its training saves the wrapped module
				}
				want[key] = fmt.Sprint(x.Shape)
			}
			list, err := find(t, m.dialect).Export(tgt)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, e := range list {
				got[e.Key] = fmt.Sprint(e.Shape)
			}
			if d := cmp.Diff(want, got); d != "" || len(got) != len(list) {
				t.Errorf("exported names (-original +ours):\n%s", d)
			}
			match, err := dialect.Detect(files[name], one(tgt), nil)
			if err != nil {
				t.Fatal(err)
			}
			if match.Dialect.Name != m.dialect || match.Moved() != 0 || match.Space != tgt.Space {
				t.Errorf("recognised as %s, %d tensors moved", match.Dialect.Name, match.Moved())
			}
		})
	}
}

// TestDetectSpace: a supernet's space follows from its names and shapes.
func TestDetectSpace(t *testing.T) {
	var targets []dialect.Target
	for _, name := range configs.Spaces() {
		targets = append(targets, target(t, name, ""))
	}
	files := originals(t)
	for name, m := range models {
		if m.arch != "" {
			continue
		}
		match, err := dialect.Detect(files[name], slices.Values(targets), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if match.Space.Name != m.space || match.Dialect.Name != m.dialect {
			t.Errorf("%s is %v as %s", name, match.Target, match.Dialect.Name)
		}
	}
	twins := []dialect.Target{targets[0], targets[0]}
	if _, err := dialect.Detect(files["anglenas-fairnas-supernet-searching"], slices.Values(twins), nil); !errors.Is(err, dialect.ErrAmbiguous) {
		t.Errorf("two spaces that fit: %v", err)
	}
}

// TestPrefixes: wherever the network lay in a larger module, it is found.
func TestPrefixes(t *testing.T) {
	file := originals(t)["mmrazor1-shuffle-subnet"]
	m := models["mmrazor1-shuffle-subnet"]
	for _, prefix := range []string{"", "module.", "architecture.", "module.architecture.", "architecture.model."} {
		var named []dialect.Tensor
		for _, x := range file {
			named = append(named, dialect.Tensor{Name: prefix + x.Name, Shape: x.Shape})
		}
		match, err := dialect.Detect(named, one(target(t, m.space, m.arch)), nil)
		if err != nil {
			t.Errorf("%q: %v", prefix, err)
			continue
		}
		if key := match.Entries[0].Key; key != prefix+"backbone.conv1.conv.weight" {
			t.Errorf("%q: first key %s", prefix, key)
		}
	}
	twice := append(file, dialect.Tensor{Name: "module." + file[0].Name, Shape: file[0].Shape})
	if _, err := dialect.Detect(twice, one(target(t, m.space, m.arch)), nil); err == nil || !strings.Contains(err.Error(), "one but for their prefix") {
		t.Errorf("two networks in one file: %v", err)
	}
}

// TestClasses: the head says how many classes there are, and thop's leftovers
// say nothing.
func TestClasses(t *testing.T) {
	file := append(originals(t)["mmrazor1-shuffle-subnet"], dialect.Tensor{Name: "total_ops"}, dialect.Tensor{Name: "head.fc.total_params"})
	for i, x := range file {
		if strings.HasPrefix(x.Name, "head.fc.") && len(x.Shape) > 0 {
			file[i].Shape = append([]int{37}, x.Shape[1:]...)
		}
	}
	m := models["mmrazor1-shuffle-subnet"]
	match, err := dialect.Detect(file, one(target(t, m.space, m.arch)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if match.Space.Classes != 37 {
		t.Errorf("%d classes", match.Space.Classes)
	}
	for i, x := range file {
		if x.Name == "head.fc.bias" {
			file[i].Shape = []int{38}
		}
	}
	_, err = dialect.Detect(file, one(target(t, m.space, m.arch)), nil)
	if err == nil || !strings.Contains(err.Error(), "head.fc.bias is 38, and 37 is wanted (our head.bias)") {
		t.Errorf("a bias of other classes: %v", err)
	}
}

// TestMismatch: what is missing, wrong or too much is listed, and not without
// end.
func TestMismatch(t *testing.T) {
	files := originals(t)
	spos := files["spos-official-supernet"]
	cut := append([]dialect.Tensor{{Name: "module.surplus", Shape: []int{3, 4}}}, spos[1:]...)
	for i, x := range cut {
		if x.Name == "conv_last.0.weight" {
			cut[i].Shape = []int{1024, 640, 3, 3}
		}
	}
	for name, c := range map[string]struct {
		file []dialect.Tensor
		tgt  dialect.Target
		want []string
	}{
		"one of each": {cut, target(t, "shufflenetv2-spos", ""), []string{
			"not those of the supernet of shufflenetv2-spos in the names of spos",
			"missing: 1\n    first_conv.0.weight 16×3×3×3 (our stem.0.weight)",
			"another shape: 1\n    conv_last.0.weight is 1024×640×3×3, and 1024×640×1×1 is wanted (our tail.0.weight)",
			"not wanted: 1\n    module.surplus 3×4",
			"known to each dialect: spos (1002 of 1003), mmrazor0 (0 of 1003)",
		}},
		"a net for a supernet": {files["spos-official-subnet"], target(t, "shufflenetv2-spos", ""), []string{"missing: 996", "and 992 more", "not wanted: 404"}},
		"another arch":         {files["spos-official-subnet"], target(t, "shufflenetv2-spos", "21012020202300003232"), []string{"net 21012020202300003232", "features.19.branch_main.0.weight is"}},
		"another arithmetic":   {files["mmrazor1-shuffle-supernet"], target(t, "shufflenetv2-spos", ""), []string{"in the names of mmrazor1", "another shape"}},
		"nothing":              {nil, target(t, "shufflenetv2-spos", ""), []string{"missing: 1003"}},
		"another family":       {files["anglenas-spos-subnet"], target(t, "shufflenetv2-spos", ""), []string{"missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dialect.Detect(c.file, one(c.tgt), nil)
			if _, ok := errors.AsType[*dialect.MismatchError](err); !ok {
				t.Fatalf("not a mismatch: %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in:\n%v", want, err)
				}
			}
			if n := strings.Count(err.Error(), "\n"); n > 24 {
				t.Errorf("%d lines", n)
			}
		})
	}
}

// TestUnfit: a code base that cannot build a net does not get its weights.
func TestUnfit(t *testing.T) {
	for _, c := range []struct{ dialect, space, arch, want string }{
		{"spos", "shufflenetv2-mmrazor", "", `a projection of width "input"`},
		{"mmrazor1", "shufflenetv2-spos", "", `a projection of width "half"`},
		{"spos", "nasbench-macro", "", "blocks.0.identity.0"},
		{"nasbench-macro", "nasbench-macro", "", "stem.0"},
		{"anglenas", "mobilenet-proxylessgpu-mmrazor", "", "blocks.0.identity.0"},
		{"mmrazor0", "nasbench-macro", "00000000", "blocks.0.identity.0"},
	} {
		_, err := find(t, c.dialect).Export(target(t, c.space, c.arch))
		if !errors.Is(err, dialect.ErrUnfit) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %s: %v", c.space, c.dialect, err)
		}
	}
	if _, err := dialect.Find("mmrazor"); !errors.Is(err, dialect.ErrUnknown) || !strings.Contains(err.Error(), "mmrazor0, mmrazor1") {
		t.Errorf("unknown: %v", err)
	}
}

// rewired is a space under another wiring.
func rewired(t *testing.T, s *arch.Space, wiring string) *arch.Space {
	t.Helper()
	spec := s.Spec()
	spec.Shuffle = &arch.ShuffleSpec{Wiring: wiring, Projection: spec.Shuffle.Projection}
	s, err := arch.NewSpace(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRoundTrip: for each dialect and each space that it has words for, what
// was exported is recognised and comes back the same, in every wiring that is
// the same function.
func TestRoundTrip(t *testing.T) {
	fits := 0
	r := rand.New(rand.NewPCG(8, 9))
	for _, d := range dialect.All() {
		for _, name := range configs.Spaces() {
			s := target(t, name, "").Space
			spaces := []*arch.Space{s}
			if s.Spec().Shuffle != nil && len(s.Candidates(0)) < 32 { // the channel space is slow, and no other case
				spaces = []*arch.Space{rewired(t, s, "deinterleave"), rewired(t, s, "main_first"), rewired(t, s, "shuffle")}
			}
			for _, s := range spaces {
				for _, a := range []arch.Arch{"", s.Sample(r)} {
					tgt := dialect.Target{Space: s, Arch: a}
					list, err := d.Export(tgt)
					if errors.Is(err, dialect.ErrUnfit) || err != nil && strings.Contains(err.Error(), "not the same function") {
						continue
					}
					if err != nil {
						t.Errorf("%v as %s: %v", tgt, d.Name, err)
						continue
					}
					fits++
					roundTrip(t, d, tgt, list)
				}
			}
		}
	}
	if fits < 30 {
		t.Errorf("%d round trips only", fits)
	}
}

func roundTrip(t *testing.T, d *dialect.Dialect, tgt dialect.Target, list []dialect.Entry) {
	t.Helper()
	var file []dialect.Tensor
	data := map[string][]float32{}
	for _, e := range list {
		file = append(file, dialect.Tensor{Name: e.Key, Shape: e.Shape})
		if moves(e) {
			data[e.Key] = e.Order.Apply(e.Shape, numbered(e.Numel()))
		}
	}
	m, err := dialect.Detect(file, one(tgt), nil)
	if err != nil {
		t.Errorf("%v as %s: %v", tgt, d.Name, err)
		return
	}
	if m.Dialect != d {
		t.Errorf("%v as %s is taken for %s", tgt, d.Name, m.Dialect.Name)
	}
	params, err := tgt.Params()
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range m.Entries {
		if e.Name != params[i].Name {
			t.Fatalf("%v as %s: tensor %d is %s, not %s", tgt, d.Name, i, e.Name, params[i].Name)
		}
		_, moved := data[e.Key]
		if moved != moves(e) || moved && !slices.Equal(e.Order.Apply(e.Shape, data[e.Key]), numbered(e.Numel())) {
			t.Errorf("%v as %s: %s comes back in another order", tgt, d.Name, e.Name)
		}
	}
}

func moves(e dialect.Entry) bool { return e.Order.Rows != nil || e.Order.Cols != nil }

// numbered is 0, 1, 2, …: no two elements are alike.
func numbered(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i)
	}
	return x
}

// TestDetectNet: a file of one network says by itself which one it is, up to
// the place of blocks that do nothing.
func TestDetectNet(t *testing.T) {
	files := originals(t)
	for name, m := range models {
		if m.arch == "" {
			continue
		}
		want := target(t, m.space, m.arch)
		got, err := dialect.DetectNet(files[name], slices.Values([]*arch.Space{want.Space}), nil)
		if err != nil {
			t.Errorf("%s in its space: %v", name, err)
			continue
		}
		if got.Dialect.Name != m.dialect || want.Space.Canonical(got.Arch) != want.Space.Canonical(want.Arch) {
			t.Errorf("%s is taken for %v of %s, want %s", name, got.Target, got.Dialect.Name, m.arch)
		}
		if got, err = dialect.DetectNet(files[name], shipped(t), nil); err != nil {
			t.Errorf("%s in any space: %v", name, err)
			continue
		}
		if got.Space.Size() > want.Space.Size() || cost(t, got.Target) != cost(t, want) {
			t.Errorf("%s is taken for %v, which is another network than %v", name, got.Target, want)
		}
	}
}

func TestDetectNoNet(t *testing.T) {
	files := originals(t)
	_, err := dialect.DetectNet(files["spos-official-supernet"], shipped(t), nil)
	if !errors.Is(err, dialect.ErrNoTarget) {
		t.Errorf("a supernet is no network: %v", err)
	}
	cut := files["spos-official-subnet"][:200]
	if _, err = dialect.DetectNet(cut, shipped(t), nil); err == nil {
		t.Error("half of a network is taken for one")
	}
	other := slices.Concat(files["nasbench-macro-22212220"], []dialect.Tensor{{Name: "aux.weight", Shape: []int{3}}})
	_, err = dialect.DetectNet(other, shipped(t), nil)
	if bad, ok := errors.AsType[*dialect.MismatchError](err); !ok || len(bad.Extra) != 1 || len(bad.Missing) != 0 {
		t.Errorf("a network with one tensor more: %v", err)
	}
}

func shipped(t *testing.T) iter.Seq[*arch.Space] {
	return func(yield func(*arch.Space) bool) {
		for _, name := range configs.Spaces() {
			if !yield(target(t, name, "").Space) {
				return
			}
		}
	}
}

func cost(t *testing.T, tgt dialect.Target) arch.Cost {
	t.Helper()
	n, err := tgt.Space.Net(tgt.Arch)
	if err != nil {
		t.Fatal(err)
	}
	return n.Cost()
}

// FuzzDetect: whatever a file's tensors are called, the answer is a match of
// every tensor or an error of bounded length.
func FuzzDetect(f *testing.F) {
	s, err := configs.Space("nasbench-macro")
	if err != nil {
		f.Fatal(err)
	}
	tgt := dialect.Target{Space: s, Arch: "01021001"}
	d, err := dialect.Find("nasbench-macro")
	if err != nil {
		f.Fatal(err)
	}
	list, err := d.Export(tgt)
	if err != nil {
		f.Fatal(err)
	}
	var good strings.Builder
	for _, e := range list {
		fmt.Fprintln(&good, e.Key, strings.Trim(fmt.Sprint(e.Shape), "[]"))
	}
	for _, text := range []string{
		good.String(), "", "module.module. 1", "model.\nmodel. 3", strings.Replace(good.String(), "10 1280", "0 1280", 1),
		strings.Replace(good.String(), "10 1280", "99999999 1280", 1), strings.ReplaceAll(good.String(), " ", " -1 "),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var file []dialect.Tensor
		for line := range strings.SplitSeq(text, "\n") {
			name, dims, _ := strings.Cut(line, " ")
			x := dialect.Tensor{Name: name}
			for d := range strings.FieldsSeq(dims) {
				n, _ := strconv.Atoi(d)
				x.Shape = append(x.Shape, n)
			}
			file = append(file, x)
		}
		m, err := dialect.Detect(file, one(tgt), nil)
		switch {
		case err == nil:
			if params, err := m.Params(); err != nil || len(m.Entries) != len(params) {
				t.Fatalf("%d entries for %d tensors (%v)", len(m.Entries), len(params), err)
			}
		case strings.Count(err.Error(), "\n") > 24:
			t.Fatalf("%d lines of error", strings.Count(err.Error(), "\n"))
		}
	})
}
