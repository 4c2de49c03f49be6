package arch_test

import (
	"bufio"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/arch"
)

// table reads a file of testdata: its rows without the comments.
func table(t testing.TB, file string, rows int) [][]string {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all [][]string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if !strings.HasPrefix(sc.Text(), "#") {
			all = append(all, strings.Split(sc.Text(), "\t"))
		}
	}
	if len(all) != rows {
		t.Fatalf("%s has %d rows, want %d", file, len(all), rows)
	}
	return all
}

func integer(t testing.TB, text string) int64 {
	t.Helper()
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// printed reports whether got rounds to a number as it is written.
func printed(got float64, text string) bool {
	want, err := strconv.ParseFloat(text, 64)
	_, fraction, _ := strings.Cut(text, ".")
	return err == nil && math.Abs(got-want) <= 0.5000001*math.Pow10(-len(fraction))
}

// computed remembers the distributions of the shipped spaces between tests.
var computed = map[string]*arch.Distribution{}

func exact(t testing.TB, s *arch.Space, q arch.Quantity) *arch.Distribution {
	t.Helper()
	key := s.Name + " " + string(q)
	d := computed[key]
	if d == nil || !slices.Contains(configs.Spaces(), s.Name) {
		d = s.Distribution(q, 0, nil)
		computed[key] = d
	}
	if d.Samples != 0 {
		t.Fatalf("%s %s is sampled", s.Name, q)
	}
	return d
}

func TestPublishedDistributions(t *testing.T) {
	for _, row := range table(t, "distributions.tsv", 12) {
		t.Run(strings.Join(row[:3], " "), func(t *testing.T) {
			s := space(t, row[0])
			if row[1] != "" {
				var err error
				if s, err = s.Only(row[1]); err != nil {
					t.Fatal(err)
				}
			}
			d := exact(t, s, arch.Quantity(row[2]))
			if d.Min != integer(t, row[3]) || d.Max != integer(t, row[4]) {
				t.Errorf("%d to %d, want %s to %s", d.Min, d.Max, row[3], row[4])
			}
			if !printed(d.Mean, row[5]) || row[6] != "-" && !printed(d.Std, row[6]) {
				t.Errorf("mean %.3f and deviation %.3f, want %s and %s", d.Mean, d.Std, row[5], row[6])
			}
		})
	}
}

// TestPublishedAcceptance holds how many archs meet the limits of the published
// searches, counted with integers elsewhere: 58.92 % of the official space meet
// 330M MACs, 0.45 % of mmrazor's MobileNet space meet its 465M.
func TestPublishedAcceptance(t *testing.T) {
	for _, row := range table(t, "acceptance.tsv", 9) {
		p := exact(t, space(t, row[0]), arch.Quantity(row[1])).AtMost(integer(t, row[2]))
		want := float64(integer(t, row[3])) / float64(integer(t, row[4]))
		if math.Abs(p.P-want) > 1e-13 || p.StdErr != 0 || p.Samples != 0 {
			t.Errorf("%s %s <= %s: %+v, want exactly %v", row[0], row[1], row[2], p, want)
		}
	}
}

// TestPublishedBins holds the bins of the official supernet's training, and
// that a user's counts of 12,500 draws are what such draws give: each count
// within four deviations, and all of them by chi-square (24.3 is exceeded once
// in a thousand times with seven degrees of freedom).
func TestPublishedBins(t *testing.T) {
	const n = 12500.0
	d := exact(t, space(t, "shufflenetv2-spos"), arch.MACCount)
	chi2, restP, restN := 0.0, 1.0, n
	add := func(count, p float64) (deviations float64) {
		chi2 += (count - n*p) * (count - n*p) / (n * p)
		return (count - n*p) / math.Sqrt(n*p*(1-p))
	}
	for _, row := range table(t, "bins.tsv", 7) {
		p := d.Within(integer(t, row[0]), integer(t, row[1]))
		want := float64(integer(t, row[2])) / float64(integer(t, row[3]))
		if math.Abs(p.P-want) > 1e-13 || math.Abs(p.Draws()*want-1) > 1e-10 {
			t.Errorf("%s to %s: %v and %v draws, want %v", row[0], row[1], p.P, p.Draws(), want)
		}
		count := float64(integer(t, row[4]))
		if dev := add(count, p.P); math.Abs(dev) > 4 {
			t.Errorf("%s to %s: %v counted, %.1f deviations from %.1f", row[0], row[1], count, dev, n*p.P)
		}
		restP, restN = restP-p.P, restN-count
	}
	add(restN, restP)
	if chi2 > 24.3 {
		t.Errorf("chi-square of the counts is %.1f", chi2)
	}
}

// every calls f with each arch of a small space.
func every(s *arch.Space, f func(arch.Arch)) {
	choices := make([]int, s.Len())
	for {
		f(arch.Make(choices))
		i := 0
		for ; i < len(choices); i++ {
			if choices[i]++; choices[i] < len(s.Candidates(i)) {
				break
			}
			choices[i] = 0
		}
		if i == len(choices) {
			return
		}
	}
}

// small is spaces whose nets can all be built: one where blocks may do
// nothing, one with both kinds of shuffle block, one with widths and a choice
// of one, one with two candidates of one cost.
func small(t *testing.T) map[string]*arch.Space {
	t.Helper()
	two, err := space(t, "shufflenetv2-small").Only("shuffle_7x7", "*xception")
	if err != nil {
		t.Fatal(err)
	}
	spec := space(t, "shufflenetv2-channels").Spec()
	spec.Name, spec.Input = "widths", [3]int{3, 64, 64}
	spec.Stages = []arch.StageSpec{
		{Out: 64, Blocks: 1, Stride: 2, Choices: []string{"shuffle_5x5@1.2"}},
		{Out: 160, Blocks: 2, Stride: 2, Choices: []string{"shuffle_3x3", "shuffle_xception@0.2"}},
	}
	widths, err := arch.NewSpace(spec)
	if err != nil {
		t.Fatal(err)
	}
	spec = macroSpec(t)
	spec.Name, spec.Stages = "alike", spec.Stages[:2]
	again := spec.Candidates[1]
	again.Name = "again"
	spec.Candidates = append(slices.Clone(spec.Candidates), again)
	alike, err := arch.NewSpace(spec)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*arch.Space{"macro": space(t, "nasbench-macro"), "two": two, "widths": widths, "alike": alike}
}

// TestAgainstAllNets builds every net of small spaces and counts.
func TestAgainstAllNets(t *testing.T) {
	for name, s := range small(t) {
		t.Run(name, func(t *testing.T) {
			values := map[arch.Quantity][]int64{}
			every(s, func(a arch.Arch) {
				c := net(t, s, string(a)).Cost()
				for _, q := range arch.Quantities() {
					values[q] = append(values[q], c.Of(q))
				}
			})
			for q, all := range values {
				slices.Sort(all)
				against(t, exact(t, s, q), all)
			}
		})
	}
}

// against compares a distribution with all values, sorted.
func against(t *testing.T, d *arch.Distribution, all []int64) {
	t.Helper()
	n := float64(len(all))
	mean, variance := 0.0, 0.0
	for _, v := range all {
		mean += float64(v) / n
	}
	for _, v := range all {
		variance += (float64(v) - mean) * (float64(v) - mean) / n
	}
	near := func(got, want float64) bool { return math.Abs(got-want) <= 1e-9*(1+math.Abs(want)) }
	if d.Min != all[0] || d.Max != all[len(all)-1] || !near(d.Mean, mean) || !near(d.Std, math.Sqrt(variance)) {
		t.Errorf("%s: %d to %d, mean %v, deviation %v; want %d to %d, %v, %v",
			d.Quantity, d.Min, d.Max, d.Mean, d.Std, all[0], all[len(all)-1], mean, math.Sqrt(variance))
	}
	var values []int64
	sum := 0.0
	for v, p := range d.All() {
		values = append(values, v)
		sum += p
	}
	if !slices.Equal(values, slices.Compact(slices.Clone(all))) || math.Abs(sum-1) > 1e-12 {
		t.Errorf("%s: %d values whose probabilities sum to %v", d.Quantity, len(values), sum)
	}
	atMost := func(limit int64) float64 {
		i, _ := slices.BinarySearch(all, limit+1)
		return float64(i) / n
	}
	for i := 0; i < len(all); i += len(all)/50 + 1 {
		if got := d.Quantile(float64(i+1) / n); got != all[i] {
			t.Errorf("%s: quantile %d/%v is %d, want %d", d.Quantity, i+1, n, got, all[i])
		}
	}
	for _, p := range []float64{0, .01, .05, .25, .5, .75, .95, .99, 1} {
		want := all[max(int(math.Ceil(p*n)), 1)-1]
		if got := d.Quantile(p); got != want {
			t.Errorf("%s: quantile %v is %d, want %d", d.Quantity, p, got, want)
		}
		for _, limit := range []int64{want - 1, want, want + 1} {
			if got := d.AtMost(limit).P; math.Abs(got-atMost(limit)) > 1e-12 {
				t.Errorf("%s: at most %d: %v, want %v", d.Quantity, limit, got, atMost(limit))
			}
		}
		if got := d.Within(want-1, want+1000).P; math.Abs(got-(atMost(want+1000)-atMost(want-1))) > 1e-12 {
			t.Errorf("%s: within %d and %d: %v", d.Quantity, want-1, want+1000, got)
		}
	}
}

// TestAgainstSamples draws nets of every shipped space and compares all that
// was drawn with what was computed: by Kolmogorov and Smirnov's distance, which
// exceeds 2.2/√n with probability 10⁻⁴.
func TestAgainstSamples(t *testing.T) {
	const n = 300
	for _, name := range configs.Spaces() {
		s := space(t, name)
		r := rand.New(rand.NewPCG(1, 2))
		drawn := map[arch.Quantity][]int64{}
		for range n {
			c := net(t, s, string(s.Sample(r))).Cost()
			for _, q := range arch.Quantities() {
				drawn[q] = append(drawn[q], c.Of(q))
			}
		}
		for q, values := range drawn {
			d := exact(t, s, q)
			slices.Sort(values)
			for i, v := range values {
				p := d.AtMost(v).P
				if i+1 < n && values[i+1] == v {
					continue // only the last of equal ones counts them all
				}
				if math.Abs(p-float64(i+1)/n) > 2.2/math.Sqrt(n) {
					t.Errorf("%s %s: at most %d: %d of %d drawn, %v computed", name, q, v, i+1, n, p)
					break
				}
			}
		}
	}
}

// TestInvariants of what the convolution gives, on every shipped space: the
// chance of the greatest value is what its candidates say, all chances sum to
// one; quantiles invert probabilities; their average is the mean, which was
// computed in another way.
func TestInvariants(t *testing.T) {
	for _, name := range configs.Spaces() {
		s := space(t, name)
		for _, q := range arch.Quantities() {
			d := exact(t, s, q)
			if q != arch.ActivationMemory {
				top := 1.0
				for i := range s.Len() {
					top *= shareOfGreatest(s, i, q)
				}
				if got := 1 - d.AtMost(d.Max-1).P; math.Abs(got-top) > 1e-12 {
					t.Errorf("%s %s: the greatest value has probability %v, want %v", name, q, got, top)
				}
			}
			sum := 0.0
			for _, p := range d.All() {
				sum += p
			}
			if math.Abs(sum-1) > 1e-11 {
				t.Errorf("%s %s: probabilities sum to 1 + %g", name, q, sum-1)
			}
			if d.AtMost(d.Min-1).P != 0 || d.AtMost(d.Max).P != 1 {
				t.Errorf("%s %s: probabilities do not run from 0 to 1", name, q)
			}
			const n = 2000
			mean := 0.0
			for i := range n {
				p := (float64(i) + .5) / n
				v := d.Quantile(p)
				mean += float64(v) / n
				if d.AtMost(v).P < p-1e-12 || d.AtMost(v-1).P >= p+1e-12 {
					t.Fatalf("%s %s: %d is not quantile %v", name, q, v, p)
				}
			}
			if math.Abs(mean-d.Mean) > .01*d.Std {
				t.Errorf("%s %s: quantiles average %v, the mean is %v", name, q, mean, d.Mean)
			}
		}
	}
}

func shareOfGreatest(s *arch.Space, block int, q arch.Quantity) float64 {
	n := len(s.Candidates(block))
	costs := make([]int64, n)
	for c := range costs {
		costs[c] = s.BlockCost(block, c).Of(q)
	}
	share := 0.0
	for _, v := range costs {
		if v == slices.Max(costs) {
			share += 1 / float64(n)
		}
	}
	return share
}

// TestAcceptance: limits on several quantities at once, counted in a small
// space and sampled in a large one. A single limit in a large space has an
// exact answer to compare with, within five standard errors.
func TestAcceptance(t *testing.T) {
	s := space(t, "nasbench-macro")
	limits := []arch.Limit{{Quantity: arch.MACCount, Max: 50e6}, {Quantity: arch.ParamCount, Max: 1.5e6}, {Quantity: arch.ActivationMemory, Max: 800e3}}
	met, n := 0, 0
	every(s, func(a arch.Arch) {
		c := net(t, s, string(a)).Cost()
		if n++; c.MACs <= 50e6 && c.Params <= 1.5e6 && c.ActivationBytes <= 800e3 {
			met++
		}
	})
	p, err := s.Acceptance(limits, n, nil)
	if err != nil || p.Samples != 0 || p.P != float64(met)/float64(n) || met == 0 {
		t.Errorf("%+v, %v; want exactly %d of %d", p, err, met, n)
	}
	p, err = s.Acceptance(limits, 2000, rand.New(rand.NewPCG(1, 1)))
	if want := float64(met) / float64(n); err != nil || p.Samples != 2000 || math.Abs(p.P-want) > 5*p.StdErr {
		t.Errorf("sampled: %+v, %v; want about %v", p, err, want)
	}
	for _, name := range configs.Spaces() {
		s := space(t, name)
		for _, q := range arch.Quantities() {
			d := exact(t, s, q)
			limit := d.Quantile(.3)
			p, err := s.Acceptance([]arch.Limit{{Quantity: q, Max: limit}}, 2000, rand.New(rand.NewPCG(2, 3)))
			if want := d.AtMost(limit).P; err != nil || math.Abs(p.P-want) > 5*p.StdErr {
				t.Errorf("%s %s: %+v, %v; want about %v", name, q, p, err, want)
			}
		}
	}
	if _, err := s.Acceptance(limits, 0, nil); err == nil {
		t.Error("no samples and no error")
	}
}

// TestTooFineToConvolve: a space whose sums have no common divisor to speak of
// is sampled, says so, and keeps the exact mean, deviation and ends.
func TestTooFineToConvolve(t *testing.T) {
	s, err := space(t, "mobilenet-proxylessgpu-anglenas").With(arch.Shape{C: 3, H: 347, W: 211}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	const n = 100_000
	d := s.Distribution(arch.MACCount, n, rand.New(rand.NewPCG(4, 5)))
	if d.Samples != n {
		t.Fatalf("%d samples, want %d", d.Samples, n)
	}
	// A sum of 21 terms is close to normal; 100,000 samples of it know the
	// median to 0.004 deviations.
	if math.Abs(float64(d.Quantile(.5))-d.Mean) > .05*d.Std {
		t.Errorf("median %d is far from the mean %v", d.Quantile(.5), d.Mean)
	}
	if p := d.AtMost(int64(d.Mean + d.Std)); math.Abs(p.P-.8413) > .03 || p.Samples != n || math.Abs(p.StdErr-math.Sqrt(p.P*(1-p.P)/n)) > 1e-12 {
		t.Errorf("at most one deviation above the mean: %+v, want about 0.84", p)
	}
	sum, last, values := 0.0, int64(-1), 0
	for v, p := range d.All() {
		if v <= last {
			t.Fatalf("%d comes after %d", v, last)
		}
		sum, last, values = sum+p, v, values+1
	}
	if math.Abs(sum-1) > 1e-9 || values == n {
		t.Errorf("%d values whose probabilities sum to %v; some of the samples should repeat", values, sum)
	}
	if d.Quantile(0) < d.Min || d.Quantile(1) > d.Max {
		t.Errorf("samples %d to %d outside %d to %d", d.Quantile(0), d.Quantile(1), d.Min, d.Max)
	}
}

func BenchmarkDistribution(b *testing.B) {
	for _, name := range []string{"shufflenetv2-spos", "mobilenet-proxylessgpu-mmrazor", "shufflenetv2-channels"} {
		s := space(b, name)
		for _, q := range []arch.Quantity{arch.MACCount, arch.ParamCount} {
			b.Run(name+"/"+string(q), func(b *testing.B) {
				for b.Loop() {
					s.Distribution(q, 0, nil)
				}
			})
		}
	}
}
