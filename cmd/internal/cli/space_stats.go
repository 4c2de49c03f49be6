package cli

import (
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spos/configs"
	"spos/internal/arch"
)

// spaceStatsOptions is what `space stats` was asked for.
type spaceStatsOptions struct {
	choices      []string
	limits, bins []string
	samples      int
	seed         uint64
	histogram    bool
	asJSON       bool
}

func newSpaceStatsCommand() *cobra.Command {
	var o spaceStatsOptions
	cmd := &cobra.Command{
		Use:   "stats SPACE",
		Short: "Show a space's size, how its costs are spread, and how many architectures meet a limit",
		Long: `Show a space's size, how its costs are spread, and how many architectures meet a limit.

Every architecture counts as likely as any other, and as the stand-alone network
that it is (all norms affine). Parameters and FLOPs are sums over the blocks, so
their distributions are computed, not sampled; so is activation memory, which is
the greatest of the blocks'. Only several limits together are estimated from
samples, unless the space has no more architectures than that.

Quantities are ` + quantityList() + `.`,
		Example: `  spos space stats shufflenetv2-spos --limit macs=330e6 --bins macs=290e6:360e6:10e6
  spos space stats mobilenet-proxylessgpu-mmrazor --limit mmcv=465e6 --limit params=6e6 --json
  spos space stats shufflenetv2-channels --choices 'shuffle_3x3@*' --histogram`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeSpace,
		RunE: func(cmd *cobra.Command, args []string) error {
			return spaceStatsFunc(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.limits, "limit", nil, "show how likely QUANTITY=MOST is met; may be repeated")
	f.StringArrayVar(&o.bins, "bins", nil, "show how likely each bin of QUANTITY=FROM:TO:STEP is; may be repeated")
	f.StringSliceVar(&o.choices, "choices", nil, "only the candidates that match these patterns, e.g. 'shuffle_3x3@*'")
	f.IntVar(&o.samples, "samples", 100_000, "architectures to draw where something must be sampled")
	f.Uint64Var(&o.seed, "seed", 0, "seed of the draws")
	f.BoolVar(&o.histogram, "histogram", false, "draw the distributions")
	jsonFlag(cmd, &o.asJSON)
	for _, flag := range []string{"limit", "bins"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, completeQuantity)
	}
	_ = cmd.RegisterFlagCompletionFunc("choices", cobra.NoFileCompletions)
	return cmd
}

func completeQuantity(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var list []string
	for _, q := range arch.Quantities() {
		list = append(list, string(q)+"=")
	}
	return list, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

func quantityList() string {
	var list []string
	for _, q := range arch.Quantities() {
		list = append(list, string(q))
	}
	return strings.Join(list, ", ")
}

// spaceStats is the JSON of `space stats`.
type spaceStats struct {
	Space          string          `json:"space"`
	Blocks         int             `json:"blocks"`
	Architectures  *big.Int        `json:"architectures"`
	Distinct       *big.Int        `json:"distinct"`
	SupernetParams supernetParams  `json:"supernet_params"`
	Quantities     []quantityEntry `json:"quantities"`
	Limits         []limitEntry    `json:"limits,omitempty"`
	Together       *chanceEntry    `json:"together,omitempty"`
	Bins           []binEntry      `json:"bins,omitempty"`
}

type supernetParams struct {
	Own    int64 `json:"own"`
	Affine int64 `json:"affine"`
}

type quantityEntry struct {
	Quantity  arch.Quantity    `json:"quantity"`
	Min       int64            `json:"min"`
	Max       int64            `json:"max"`
	Mean      float64          `json:"mean"`
	Std       float64          `json:"std"`
	Quantiles map[string]int64 `json:"quantiles"`
	Samples   int              `json:"samples"`
}

type chanceEntry struct {
	Probability   float64  `json:"probability"`
	StandardError float64  `json:"standard_error"`
	Samples       int      `json:"samples"`
	Draws         *float64 `json:"draws"` // null where none was accepted
}

type limitEntry struct {
	Quantity arch.Quantity `json:"quantity"`
	Max      int64         `json:"max"`
	chanceEntry
}

type binEntry struct {
	Quantity arch.Quantity `json:"quantity"`
	Above    int64         `json:"above"`
	Max      int64         `json:"max"`
	chanceEntry
}

// quantiles are in per cent.
var quantiles = []int{1, 5, 25, 50, 75, 95, 99}

func newChance(p arch.Probability) chanceEntry {
	c := chanceEntry{Probability: p.P, StandardError: p.StdErr, Samples: p.Samples}
	if p.P > 0 {
		c.Draws = new(p.Draws())
	}
	return c
}

func spaceStatsFunc(cmd *cobra.Command, name string, o spaceStatsOptions) error {
	limits, err := parseLimits(o.limits)
	if err != nil {
		return err
	}
	bins, err := parseBins(o.bins)
	if err != nil {
		return err
	}
	if o.samples < 1 {
		return fmt.Errorf("--samples %d: want at least one", o.samples)
	}
	s, err := configs.Space(name)
	if err != nil {
		return err
	}
	if len(o.choices) > 0 {
		if s, err = s.Only(o.choices...); err != nil {
			return WithHint(fmt.Errorf("--choices: %w", err), "`spos space show "+name+"` lists the candidates of each block")
		}
	}
	r := rand.New(rand.NewPCG(o.seed, 0))
	spread := map[arch.Quantity]*arch.Distribution{}
	for _, q := range arch.Quantities() {
		spread[q] = s.Distribution(q, o.samples, r)
	}
	st := newSpaceStats(s, spread)
	for _, l := range limits {
		st.Limits = append(st.Limits, limitEntry{l.Quantity, l.Max, newChance(spread[l.Quantity].AtMost(l.Max))})
	}
	if len(limits) > 1 {
		p, err := s.Acceptance(limits, o.samples, r)
		if err != nil {
			return err
		}
		st.Together = new(newChance(p))
	}
	for _, b := range bins {
		st.Bins = append(st.Bins, binEntry{b.quantity, b.above, b.max, newChance(spread[b.quantity].Within(b.above, b.max))})
	}
	if o.asJSON {
		return PrintJSON(cmd, st)
	}
	if err := st.write(cmd.OutOrStdout()); err != nil {
		return err
	}
	if o.histogram {
		for _, q := range arch.Quantities() {
			if err := writeHistogram(cmd.OutOrStdout(), spread[q]); err != nil {
				return err
			}
		}
	}
	return nil
}

func newSpaceStats(s *arch.Space, spread map[arch.Quantity]*arch.Distribution) *spaceStats {
	st := &spaceStats{Space: s.Name, Blocks: s.Len(), Architectures: s.Count(), Distinct: s.CanonicalCount()}
	st.SupernetParams.Own, st.SupernetParams.Affine = s.SupernetParams()
	for _, q := range arch.Quantities() {
		d := spread[q]
		e := quantityEntry{Quantity: q, Min: d.Min, Max: d.Max, Mean: d.Mean, Std: d.Std, Samples: d.Samples, Quantiles: map[string]int64{}}
		for _, p := range quantiles {
			e.Quantiles[strconv.Itoa(p)] = d.Quantile(float64(p) / 100)
		}
		st.Quantities = append(st.Quantities, e)
	}
	return st
}

func (st *spaceStats) write(out io.Writer) error {
	fmt.Fprintf(out, "%s: %d choice blocks, %v architectures", st.Space, st.Blocks, st.Architectures)
	if st.Distinct.Cmp(st.Architectures) != 0 {
		fmt.Fprintf(out, ", %v distinct networks", st.Distinct)
	}
	fmt.Fprintf(out, "\nsupernet: %d parameters", st.SupernetParams.Own)
	if st.SupernetParams.Affine != st.SupernetParams.Own {
		fmt.Fprintf(out, " (%d if its norms were affine)", st.SupernetParams.Affine)
	}
	fmt.Fprint(out, "\n\n")
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "QUANTITY\tMIN\t")
	for _, p := range quantiles {
		fmt.Fprintf(w, "%d%%\t", p)
	}
	fmt.Fprintln(w, "MAX\tMEAN\tSTD\t")
	sampled := 0
	for _, e := range st.Quantities {
		fmt.Fprintf(w, "%s\t%d\t", e.Quantity, e.Min)
		for _, p := range quantiles {
			fmt.Fprintf(w, "%d\t", e.Quantiles[strconv.Itoa(p)])
		}
		mark := ""
		if e.Samples > 0 {
			mark, sampled = " *", e.Samples
		}
		fmt.Fprintf(w, "%d\t%.0f\t%.0f\t%s\n", e.Max, e.Mean, e.Std, mark)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if sampled > 0 {
		fmt.Fprintf(out, "* quantiles and probabilities from %d samples: the sums have too many values to convolve\n", sampled)
	}
	return st.writeChances(out)
}

func (st *spaceStats) writeChances(out io.Writer) error {
	if len(st.Limits)+len(st.Bins) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "WITHIN\tPROBABILITY\tEXPECTED DRAWS")
	for _, l := range st.Limits {
		fmt.Fprintf(w, "%s <= %d\t%s\n", l.Quantity, l.Max, l.chanceEntry)
	}
	if st.Together != nil {
		fmt.Fprintf(w, "all of these\t%s\n", *st.Together)
	}
	for _, b := range st.Bins {
		fmt.Fprintf(w, "%d < %s <= %d\t%s\n", b.Above, b.Quantity, b.Max, b.chanceEntry)
	}
	return w.Flush()
}

// String is the chance and the expected draws, two cells of a table.
func (c chanceEntry) String() string {
	switch {
	case c.Draws == nil && c.Samples > 0:
		return fmt.Sprintf("none of %d samples\tmore than %.0f", c.Samples, float64(c.Samples)/3) // three expected, none seen: 5 %
	case c.Draws == nil:
		return "0\t"
	case c.Samples > 0:
		return fmt.Sprintf("%.4g ± %.2g (%d samples)\t%.4g", c.Probability, c.StandardError, c.Samples, *c.Draws)
	default:
		return fmt.Sprintf("%.4g\t%.4g", c.Probability, *c.Draws)
	}
}

// writeHistogram draws every value where they are few, else the middle 99.8 %
// in equal bins.
func writeHistogram(out io.Writer, d *arch.Distribution) error {
	const bins, width = 16, 50
	labels, chances := fewValues(d, bins)
	if labels == nil {
		lo, hi := d.Quantile(.001)-1, d.Quantile(.999)
		edge := func(i int) int64 { return lo + int64(math.Round(float64(hi-lo)*float64(i)/bins)) }
		for i := range bins {
			labels = append(labels, fmt.Sprintf("<= %d", edge(i+1)))
			chances = append(chances, d.Within(edge(i), edge(i+1)).P)
		}
	}
	most := slices.Max(chances)
	fmt.Fprintf(out, "\n%s\n", d.Quantity)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	for i, p := range chances {
		fmt.Fprintf(w, "%s\t%.4f\t %s\n", labels[i], p, strings.Repeat("█", int(math.Round(width*p/most))))
	}
	return w.Flush()
}

// fewValues is the values that occur and their probabilities, or nothing where
// there are more than most.
func fewValues(d *arch.Distribution, most int) (labels []string, chances []float64) {
	for v, p := range d.All() {
		if len(labels) == most {
			return nil, nil
		}
		labels = append(labels, strconv.FormatInt(v, 10))
		chances = append(chances, p)
	}
	return labels, chances
}

func parseLimits(texts []string) ([]arch.Limit, error) {
	var limits []arch.Limit
	for _, text := range texts {
		q, numbers, err := parseQuantity(text, 1)
		if err != nil {
			return nil, WithHint(fmt.Errorf("--limit %q: %w", text, err), "for example --limit macs=330e6")
		}
		limits = append(limits, arch.Limit{Quantity: q, Max: numbers[0]})
	}
	return limits, nil
}

// bin is above < quantity <= max.
type bin struct {
	quantity   arch.Quantity
	above, max int64
}

// maxBins is more than anyone reads.
const maxBins = 1000

func parseBins(texts []string) ([]bin, error) {
	var bins []bin
	for _, text := range texts {
		q, n, err := parseQuantity(text, 3)
		if err == nil && (n[0] >= n[1] || n[2] < 1 || (n[1]-n[0])/max(n[2], 1) > maxBins) {
			err = fmt.Errorf("from %d to %d in steps of %d is not 1 to %d bins", n[0], n[1], n[2], maxBins)
		}
		if err != nil {
			return nil, WithHint(fmt.Errorf("--bins %q: %w", text, err), "for example --bins macs=290e6:360e6:10e6")
		}
		for at := n[0]; at < n[1]; at += n[2] {
			bins = append(bins, bin{q, at, min(at+n[2], n[1])})
		}
	}
	return bins, nil
}

// parseQuantity reads QUANTITY=NUMBER:…, of so many whole numbers.
func parseQuantity(text string, count int) (arch.Quantity, []int64, error) {
	name, rest, ok := strings.Cut(text, "=")
	fields := strings.Split(rest, ":")
	if !ok || len(fields) != count {
		return "", nil, fmt.Errorf("want QUANTITY=%s", map[int]string{1: "NUMBER", 3: "FROM:TO:STEP"}[count])
	}
	q := arch.Quantity(name)
	if !slices.Contains(arch.Quantities(), q) {
		return "", nil, fmt.Errorf("%q is none of %s", name, quantityList())
	}
	numbers := make([]int64, count)
	for i, field := range fields {
		v, err := strconv.ParseFloat(field, 64)
		if err != nil || v != math.Trunc(v) || v < 0 || v > 1<<53 {
			return "", nil, fmt.Errorf("%q is no whole number from 0 to 2^53", field)
		}
		numbers[i] = int64(v)
	}
	return q, numbers, nil
}
