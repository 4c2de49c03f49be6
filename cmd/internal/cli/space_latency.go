package cli

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/config"
	"spos/latency"
	"spos/search"
)

type spaceLatencyOptions struct {
	nets      int
	limits    []string
	within    []string
	choices   []string
	input     string
	classes   int
	seed      uint64
	mode      string
	threads   int
	batch     int
	workDir   string
	histogram bool
	samples   bool
	asJSON    bool
	table     string
	devices   DeviceFlags
	provider  ProviderFlags
}

func newSpaceLatencyCommand() *cobra.Command {
	var o spaceLatencyOptions
	cmd := &cobra.Command{
		Use:   "latency SPACE",
		Short: "Measure or predict a sample of a space: how fast its nets are, and which share a limit leaves",
		Long: `Measure nets of a space, drawn uniformly as a random search would draw them, with
random weights, for speed does not depend on them: what a search under a latency
limit will meet, before anything is trained.

A net meets a limit only where the whole 95 % interval of its latency is below it,
as in a search; one whose interval straddles a limit is measured again, and what
is still undecided at the big budget is counted apart. The share that a limit
leaves has an interval too, of the draw and of the undecided together.

With --work-dir every measurement is kept there at once: a killed run goes on, and
one with more nets or other limits measures only what is new.

With --table nothing is measured: a table of latencies predicts the nets, for the
device and settings that it was made under, whichever this machine is. Its intervals
decide as measured ones do. Nets that its audit does not vouch for are counted.`,
		Example: `  spos space latency shufflenetv2-spos --limit 4ms --limit 5ms --work-dir work/dry
  spos space latency shufflenetv2-small --input 1x28x28 --classes 10 --nets 60 --histogram
  spos space latency shufflenetv2-spos --within macs=330e6 --device local --device pi5 \
      --limit local=4.5ms --limit pi5=60ms --json
  spos space latency shufflenetv2-spos --table shufflenetv2-spos-pi5.table.json --limit 60ms`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeSpace,
		RunE: func(cmd *cobra.Command, args []string) error {
			return spaceLatencyFunc(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.nets, "nets", 0, fmt.Sprintf("nets to draw (default: %d, %d with --table)", measuredNets, predictedNets))
	f.StringArrayVar(&o.limits, "limit", nil, "show which share of the space a latency leaves: 4.5ms, or DEVICE=4.5ms; may be repeated")
	f.StringArrayVar(&o.within, "within", nil, "draw only nets with QUANTITY=MOST at most, e.g. macs=330e6; may be repeated")
	f.StringSliceVar(&o.choices, "choices", nil, "only the candidates that match these patterns, e.g. 'shuffle_3x3@*'")
	f.StringVar(&o.input, "input", "", "channels, height and width of an image, e.g. 1x28x28 (default: the space's, or the table's)")
	f.IntVar(&o.classes, "classes", 0, "classes (default: the space's, or the table's)")
	f.Uint64Var(&o.seed, "seed", 0, "seed of the draw")
	f.StringVar(&o.mode, "mode", "", "between runs: hot, paced or cold (default: hot)")
	f.IntVar(&o.threads, "threads", 1, "threads of an operator")
	f.IntVar(&o.batch, "batch", 1, "images a run")
	f.StringVar(&o.workDir, "work-dir", "", "folder that keeps the measurements")
	f.StringVar(&o.table, "table", "", "file of a latency table that predicts the nets, instead of measuring them")
	f.BoolVar(&o.histogram, "histogram", false, "draw the distribution")
	f.BoolVar(&o.samples, "samples", false, "with --json: every net as well")
	jsonFlag(cmd, &o.asJSON)
	o.devices.Add(cmd, true)
	o.provider.Add(cmd)
	_ = cmd.MarkFlagDirname("work-dir")
	_ = cmd.MarkFlagFilename("table", "json")
	_ = cmd.RegisterFlagCompletionFunc("within", completeQuantity)
	_ = cmd.RegisterFlagCompletionFunc("choices", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"hot", "paced", "cold"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// How many nets are drawn unless --nets says so: predictions are free.
const (
	measuredNets  = 200
	predictedNets = 2000
)

func spaceLatencyFunc(cmd *cobra.Command, name string, o spaceLatencyOptions) error {
	if !cmd.Flags().Changed("nets") {
		o.nets = measuredNets
		if o.table != "" {
			o.nets = predictedNets
		}
	}
	if o.nets < 2 {
		return fmt.Errorf("--nets %d: want at least two", o.nets)
	}
	st, err := o.survey(cmd, name)
	if err != nil {
		return err
	}
	r := st.report()
	if o.asJSON {
		return PrintJSON(cmd, r)
	}
	return r.write(cmd.OutOrStdout(), o.histogram)
}

// survey draws nets of the space and has them measured, or predicted.
func (o *spaceLatencyOptions) survey(cmd *cobra.Command, name string) (*survey, error) {
	within, err := parseWithin(o.within)
	if err != nil {
		return nil, err
	}
	st := &survey{seed: o.seed, samples: o.samples}
	if o.table != "" {
		return st, o.predict(cmd, name, within, st)
	}
	if st.space, err = o.space(name, nil); err != nil {
		return nil, err
	}
	if st.limits, err = parseLatencyLimits(o.limits, o.devices.Names); err != nil {
		return nil, err
	}
	if st.nets, err = drawNets(st.space, within, o.nets, o.seed); err != nil {
		return nil, err
	}
	p, err := NewProgress(cmd)
	if err != nil {
		return nil, err
	}
	d := &dryRun{survey: st, o: *o, p: p}
	err = d.run(cmd.Context())
	p.Close()
	if err != nil && cmd.Context().Err() != nil && o.workDir != "" {
		err = WithHint(err, "nothing is lost: the same command goes on from here")
	}
	return st, err
}

// space is the part of the space, for the images, that was asked for; those of
// like, where it is given, unless the flags say otherwise.
func (o *spaceLatencyOptions) space(name string, like *arch.Space) (*arch.Space, error) {
	s, err := configs.Space(name)
	if err != nil {
		return nil, err
	}
	if len(o.choices) > 0 {
		if s, err = s.Only(o.choices...); err != nil {
			return nil, WithHint(fmt.Errorf("--choices: %w", err), "`spos space show "+name+"` lists the candidates of each block")
		}
	}
	if like == nil {
		like = s
	}
	in, classes := like.In, like.Classes
	if o.input != "" {
		if n, err := fmt.Sscanf(o.input+" ", "%dx%dx%d ", &in.C, &in.H, &in.W); n != 3 || err != nil {
			return nil, fmt.Errorf("--input %q: want channels, height and width, as 3x224x224", o.input)
		}
	}
	if o.classes != 0 {
		classes = o.classes
	}
	return s.With(in, classes)
}

// parseWithin reads limits on what follows from the arch alone.
func parseWithin(texts []string) (search.Limits, error) {
	var l search.Limits
	for _, text := range texts {
		q, numbers, err := parseQuantity(text, 1)
		if err == nil {
			switch b := (search.Bound{Max: numbers[0]}); {
			case q == arch.ParamCount:
				l.Params = b
			case q == arch.ActivationMemory:
				l.Activations = b
			case l.Counter != "":
				err = errors.New("FLOPs are limited already, by one counter or another")
			default:
				l.FLOPs, l.Counter = b, arch.Counter(q)
			}
		}
		if err != nil {
			return l, WithHint(fmt.Errorf("--within %q: %w", text, err), "for example --within macs=330e6")
		}
	}
	return l, nil
}

// parseLatencyLimits reads [DEVICE=]DURATION; one without a device is the
// first device's. It returns the limits by device, in milliseconds.
func parseLatencyLimits(texts, devices []string) (map[string][]float64, error) {
	limits := map[string][]float64{}
	for _, text := range texts {
		device, value, named := strings.Cut(text, "=")
		if !named {
			device, value = devices[0], text
		}
		d, err := time.ParseDuration(value)
		switch {
		case err != nil || d <= 0:
			return nil, WithHint(fmt.Errorf("--limit %q: no time above 0", text), "for example --limit 4.5ms")
		case !slices.Contains(devices, device):
			return nil, fmt.Errorf("--limit %q: no --device %s is measured on", text, device)
		}
		limits[device] = append(limits[device], latency.Milliseconds(d))
	}
	return limits, nil
}

// drawNets are n distinct nets, drawn uniformly within limits; fewer where
// the space has no more.
func drawNets(s *arch.Space, l search.Limits, n int, seed uint64) ([]*arch.Net, error) {
	r := rand.New(rand.NewPCG(seed, 1))
	ps, err := search.NewRandom(s, l, r, 0).Ask(n)
	if err != nil {
		return nil, err
	}
	nets := make([]*arch.Net, len(ps))
	for i, p := range ps {
		if nets[i], err = s.Net(p.Arch); err != nil {
			return nil, err
		}
	}
	return nets, nil
}

// dryRun measures a sample of a space.
type dryRun struct {
	*survey
	o      spaceLatencyOptions
	p      *Progress
	gauges Gauges
}

func (d *dryRun) run(ctx context.Context) (err error) {
	dir := d.o.workDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "spos-space-latency-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	work := filepath.Join(dir, CampaignFile)
	campaign, err := Campaign(work)
	if err != nil {
		return err
	}
	if err := KeepCampaign(work, campaign); err != nil {
		return err
	}
	devices, release, err := d.o.devices.Open(ctx, campaign, d.p.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	devices = Watch(devices, d.p.Log, nil)
	how := config.Latency{Mode: d.o.mode, Threads: d.o.threads, Batch: d.o.batch}
	if err := d.o.provider.Configure(&how); err != nil {
		return err
	}
	if d.gauges, err = NewGauges(d.space, devices, make([]config.DeviceLimit, len(devices)), how, d.p.Log); err != nil {
		return err
	}
	forget, err := d.gauges.Remember(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, forget()) }()
	return d.measure(ctx)
}

// measure screens all nets on every device, and measures those that a limit
// leaves undecided with rising effort.
func (d *dryRun) measure(ctx context.Context) error {
	d.devices = make([]surveyed, len(d.gauges))
	least, err := d.fewestMACs()
	if err != nil {
		return err
	}
	return d.gauges.Each(ctx, func(ctx context.Context, i int, g Gauge) error {
		s := &d.devices[i]
		s.name, s.results = g.Device, make([]latency.Result, len(d.nets))
		all := make([]int, len(d.nets))
		for n := range all {
			all[n] = n
		}
		for effort, open := 0, all; effort <= Confirmation && len(open) > 0; effort, open = effort+1, d.undecided(i) {
			if err := d.effort(ctx, i, effort, open); err != nil {
				return err
			}
		}
		found, err := g.Results(ctx, []*arch.Net{least}, SearchEfforts-1)
		if err == nil {
			s.cheapest, s.drifts = found[0], len(g.Drifts())
		}
		return err
	})
}

// effort measures the nets of those indices, a few at a time.
func (d *dryRun) effort(ctx context.Context, device, effort int, open []int) error {
	g := d.gauges[device]
	name := g.What()
	if effort > 0 {
		name = fmt.Sprintf("undecided, %d sessions", g.Protocol(effort).Sessions)
	}
	task := d.p.Task(name, len(open), 0)
	defer task.End()
	for from := 0; from < len(open); from += LookEvery {
		part := open[from:min(from+LookEvery, len(open))]
		nets := make([]*arch.Net, len(part))
		for i, n := range part {
			nets[i] = d.nets[n]
		}
		found, err := g.Results(ctx, nets, effort)
		if err != nil {
			return err
		}
		for i, n := range part {
			d.devices[device].results[n] = found[i]
		}
		last := found[len(found)-1]
		task.Set(from+len(part), fmt.Sprintf("%s %.3f ms", last.Model, latency.Milliseconds(last.P50)), "device", g.Device)
	}
	return nil
}

// undecided are the nets that a limit of the device lies inside of.
func (d *dryRun) undecided(device int) []int {
	var open []int
	s := &d.devices[device]
	for n, r := range s.results {
		for _, limit := range d.limits[s.name] {
			if r.Decide(duration(limit)) == latency.Undecided {
				open = append(open, n)
				break
			}
		}
	}
	return open
}

// duration is so many milliseconds.
func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
