package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spos/configs"
)

// space runs `space` with arguments and returns what it prints.
func space(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := NewRoot("spos", "test")
	root.AddCommand(NewSpaceCommand())
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"space"}, args...))
	err := root.Execute()
	return out.String(), err
}

func TestSpaceStats(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"official limits and bins": {
			[]string{"shufflenetv2-spos", "--limit", "macs=330e6", "--bins", "macs=290e6:310e6:10e6"},
			[]string{
				"20 choice blocks, 1099511627776 architectures\n", "supernet: 8388176 parameters (8489648 if its norms were affine)",
				"270359360", "327174272", "11830934", "macs <= 330000000", "0.5892", "1.697",
				"290000000 < macs <= 300000000", "91.99", "300000000 < macs <= 310000000", "15.53",
			},
		},
		"limits together, counted": {
			[]string{"nasbench-macro", "--limit", "macs=50e6", "--limit", "params=1.5e6"},
			[]string{"6561 architectures, 3969 distinct networks", "all of these", "0.2657  ", "3.764"},
		},
		"limits together, sampled": {
			[]string{"shufflenetv2-mmrazor", "--limit", "mmcv=330e6", "--limit", "params=3.4e6", "--samples", "1000"},
			[]string{"0.2389", "(1000 samples)", " ± "},
		},
		"an impossible limit": {[]string{"shufflenetv2-spos", "--limit", "macs=1e6"}, []string{"macs <= 1000000  0 "}},
		"never drawn": {
			[]string{"shufflenetv2-spos", "--limit", "macs=2.8e8", "--limit", "params=3.16e6", "--samples", "300"},
			[]string{"none of 300 samples  more than 100\n"},
		},
		"one candidate of all": {
			[]string{"shufflenetv2-channels", "--choices", "shuffle_3x3@*"},
			[]string{"(only shuffle_3x3@*)", "1152921504606846976 architectures", "101887168", "440775872", "271198240"},
		},
		"histogram": {
			[]string{"shufflenetv2-spos", "--histogram"},
			[]string{"\nactivation_bytes\n  1605632  0.0625 ████\n", "<= 331061736  0.1485 ██████████████████████████████████████████████████\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := space(t, append([]string{"stats"}, tt.args...)...)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in\n%s", want, out)
				}
			}
		})
	}
}

func TestSpaceStatsJSON(t *testing.T) {
	args := []string{"stats", "mobilenet-proxylessgpu-anglenas", "--limit", "thop=600e6", "--limit", "macs=1", "--bins", "params=3e6:9e6:4e6", "--samples", "2000", "--seed", "7", "--json"}
	out, err := space(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	var st spaceStats
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&st); err != nil {
		t.Fatal(err)
	}
	if st.Architectures.String() != "221502229807900608" || st.SupernetParams.Own != 27684320 || len(st.Quantities) != 5 {
		t.Errorf("%+v", st)
	}
	if q := st.Quantities[0]; q.Quantity != "params" || q.Min != 3304488 || q.Max != 8382408 || len(q.Quantiles) != 7 || q.Quantiles["50"] < q.Quantiles["25"] || q.Samples != 0 {
		t.Errorf("params: %+v", q)
	}
	if l := st.Limits[0]; l.Quantity != "thop" || l.Max != 600e6 || math.Abs(l.Probability-.19634) > 1e-5 || math.Abs(*l.Draws*l.Probability-1) > 1e-12 {
		t.Errorf("limit: %+v", l)
	}
	if l := st.Limits[1]; l.Probability != 0 || l.Draws != nil {
		t.Errorf("impossible limit: %+v", l)
	}
	if st.Together == nil || st.Together.Samples != 2000 || st.Together.Draws != nil {
		t.Errorf("together: %+v", st.Together)
	}
	if b := st.Bins; len(b) != 2 || b[1].Above != 7e6 || b[1].Max != 9e6 || b[0].Probability+b[1].Probability != 1 {
		t.Errorf("bins: %+v", b)
	}
	if again, err := space(t, args...); err != nil || again != out {
		t.Errorf("another answer with the same seed: %v", err)
	}
}

// TestSpaceStatsTooFine: a space whose quantities must be sampled says so.
func TestSpaceStatsTooFine(t *testing.T) {
	s, err := configs.Space("mobilenet-proxylessgpu-anglenas")
	if err != nil {
		t.Fatal(err)
	}
	text, err := configs.SpaceText(s)
	if err != nil {
		t.Fatal(err)
	}
	odd := bytes.Replace(text, []byte("[3, 224, 224]"), []byte("[3, 347, 211]"), 1)
	if bytes.Equal(odd, text) {
		t.Fatalf("no input in\n%s", text)
	}
	file := filepath.Join(t.TempDir(), "odd.yaml")
	if err := os.WriteFile(file, odd, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := space(t, "stats", file, "--samples", "500", "--limit", "macs=950e6")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "* quantiles and probabilities from 500 samples") || !strings.Contains(out, "(500 samples)") {
		t.Errorf("no word of samples in\n%s", out)
	}
}

func TestSpaceStatsErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no number":         {[]string{"--limit", "macs"}, `--limit "macs": want QUANTITY=NUMBER`},
		"unknown quantity":  {[]string{"--limit", "flops=3e6"}, `--limit "flops=3e6": "flops" is none of params, macs, mmcv, thop, activation_bytes`},
		"a fraction":        {[]string{"--limit", "macs=1.5"}, `"1.5" is no whole number`},
		"negative":          {[]string{"--limit", "macs=-1"}, `"-1" is no whole number`},
		"not a number":      {[]string{"--limit", "macs=NaN"}, `"NaN" is no whole number`},
		"infinite":          {[]string{"--limit", "macs=Inf"}, `"Inf" is no whole number`},
		"two numbers":       {[]string{"--bins", "macs=1:2"}, `--bins "macs=1:2": want QUANTITY=FROM:TO:STEP`},
		"backwards":         {[]string{"--bins", "macs=2:1:1"}, "from 2 to 1 in steps of 1"},
		"no step":           {[]string{"--bins", "macs=1:2:0"}, "in steps of 0"},
		"endless":           {[]string{"--bins", "macs=0:1e15:1"}, "is not 1 to 1000 bins"},
		"no samples":        {[]string{"--samples", "0"}, "--samples 0"},
		"no such candidate": {[]string{"--choices", "mb_*"}, "--choices: space \"shufflenetv2-spos\": stages[0]: no candidate of a block matches mb_*"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := space(t, append([]string{"stats", "shufflenetv2-spos"}, tt.args...)...)
			if err == nil || !strings.Contains(err.Error(), tt.want) || out != "" {
				t.Errorf("error %v and output %q, want %q", err, out, tt.want)
			}
			if hint, ok := errors.AsType[*HintError](err); name != "no samples" && (!ok || len(hint.Hints) == 0) {
				t.Error("no hint")
			}
		})
	}
	if _, err := space(t, "stats", "nope"); !errors.Is(err, configs.ErrUnknownSpace) {
		t.Errorf("unknown space: %v", err)
	}
}

func TestSpaceListAndShow(t *testing.T) {
	out, err := space(t, "list")
	if err != nil || !strings.Contains(out, "1.1e+12        8.4M") {
		t.Errorf("list: %v\n%s", err, out)
	}
	out, err = space(t, "show", "nasbench-macro")
	if err != nil || !strings.Contains(out, "6561 architectures (3969 distinct networks)") || !strings.Contains(out, "supernet: 4221386 parameters") {
		t.Errorf("show: %v\n%s", err, out)
	}
}
