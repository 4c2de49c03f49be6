package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"spos/cmd/internal/cli"
	"spos/internal/archfile"
	"spos/internal/ckpt"
	"spos/internal/config"
	"spos/internal/runs"
	"spos/latency"
	"spos/search"
)

type searchOptions struct {
	workDir string
	sets    []string
	json    bool
	machine machineFlags
	devices cli.DeviceFlags
	broker  cli.BrokerFlags
}

func newSearchCommand() *cobra.Command {
	var o searchOptions
	cmd := &cobra.Command{
		Use:   "search CONFIG CKPT --work-dir DIR",
		Short: "Search a trained supernet for the most accurate net within limits",
		Long: `Search a trained supernet for the most accurate net within limits on FLOPs,
parameters and latency, the latter measured with ONNX Runtime on this machine or
on the devices that --device names; limits.latency in CONFIG limits each of them.
A net is within a limit only where its whole interval is; where the interval
straddles it, more is measured. Killed at any moment, the same command continues
to the same history, and a device that goes away is waited for. With --listen the
search is the broker that the devices dial.`,
		Example: `  spos search configs/spos_evolution_search_shufflenetv2_8xb2048_in1k.yaml work/supernet \
      --set limits.latency_ms=4.5 --work-dir work/search
  spos search search.yaml work/supernet --work-dir work/both \
      --set 'limits.latency=[{device: local, ms: 4.5}, {device: pi5, ms: 60}]' \
      --listen 0.0.0.0:4222 --fleet-access access.yaml`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return searchFunc(cmd, args[0], args[1], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.workDir, "work-dir", "", "folder of the search")
	f.StringArrayVar(&o.sets, "set", nil, "override a key of CONFIG: key.sub=value")
	f.BoolVar(&o.json, "json", false, "print the outcome as JSON")
	o.machine.addSeed(cmd)
	o.devices.Add(cmd, true)
	o.broker.Add(cmd)
	f.Lookup("device").Usage = "measure latency on this device; may be repeated. cpu, cuda and cuda:N are where nets are evaluated instead"
	_ = cmd.MarkFlagRequired("work-dir")
	_ = cmd.MarkFlagDirname("work-dir")
	return cmd
}

func searchFunc(cmd *cobra.Command, path, from string, o searchOptions) error {
	cfg, err := config.Load(path, config.DefaultSearch(), append(o.sets, o.flags(cmd)...))
	if err != nil {
		return err
	}
	p, err := cli.NewProgress(cmd)
	if err != nil {
		return err
	}
	out, err := searchWithBroker(cmd.Context(), cfg, from, o, p)
	p.Close()
	if err != nil {
		return resumeHint(cmd.Context(), err, cmd.CommandPath())
	}
	if o.json {
		return cli.PrintJSON(cmd, out)
	}
	return out.write(cmd.OutOrStdout())
}

// searchWithBroker searches, and is the devices' broker meanwhile where that
// was asked for.
func searchWithBroker(ctx context.Context, cfg config.Search, from string, o searchOptions, p *cli.Progress) (_ *searchOutcome, err error) {
	// Not in the work directory, which is empty until the search begins.
	broker, err := o.broker.Open(strings.TrimRight(o.workDir, string(filepath.Separator))+".fleet", p.Log)
	if err != nil {
		return nil, err
	}
	if broker != nil {
		o.devices.Broker = broker
		defer func() { err = errors.Join(err, broker.Close()) }()
	}
	return searchRun(ctx, cfg, from, o.workDir, o.devices, p)
}

// flags are those that override the configuration.
func (o *searchOptions) flags(cmd *cobra.Command) []string {
	sets := o.machine.sets(cmd, "seed")
	if !cmd.Flags().Changed("device") {
		return sets
	}
	var measure []string
	for _, name := range o.devices.Names {
		if config.IsTorchDevice(name) {
			sets = append(sets, "device="+name)
		} else {
			measure = append(measure, quote(name))
		}
	}
	if len(measure) > 0 {
		sets = append(sets, "latency.devices=["+strings.Join(measure, ", ")+"]")
	}
	return sets
}

// searcher is one search at work.
type searcher struct {
	cfg    config.Search
	dir    string
	from   *restored
	judge  *judge
	gauges cli.Gauges
	// constraint is what the gauges decide, foreseen where a table does.
	constraint search.Constraint
	table      *latency.Table // nil: nothing is foreseen
	limits     search.Limits
	digest     string // of the checkpoint's model file
	print      string // fingerprint of everything that decides the history
	p          *cli.Progress
	awaiting   awaiting
}

// searchRun searches, with a random search of equal budget beside it where
// configured, confirms the winner's latency and writes the files of the run.
// How remote devices are reached is in the flags; which, in the configuration.
func searchRun(ctx context.Context, cfg config.Search, from, dir string, devices cli.DeviceFlags, p *cli.Progress) (_ *searchOutcome, err error) {
	s := &searcher{cfg: cfg, dir: dir, p: p}
	err = s.open(ctx, from)
	if s.from != nil {
		defer s.from.sets.Close()
	}
	if err != nil {
		return nil, err
	}
	campaign, err := cli.Campaign(filepath.Join(dir, cli.CampaignFile))
	if err != nil {
		return nil, err
	}
	release, err := s.connect(ctx, devices, campaign)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if _, err := runs.ReadLineage(dir); errors.Is(err, runs.ErrNoRun) {
		// Before anything is written, so that another limit can be given.
		if err := s.satisfiable(ctx); err != nil {
			return nil, err
		}
	}
	run, err := openRun(dir, "search", cfg, cfg.Seed, runs.Input{Role: "checkpoint", Path: s.from.ckpt.Path, SHA256: s.digest})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	if err := cli.KeepCampaign(filepath.Join(dir, cli.CampaignFile), campaign); err != nil {
		return nil, err
	}
	forget, err := s.gauges.Remember(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, forget()) }()
	model, err := s.from.load()
	if err != nil {
		return nil, err
	}
	defer model.Close()
	s.judge = newJudge(s.from.setup, model, cfg.Calibration, cfg.Validation)
	return s.run(ctx)
}

func (s *searcher) open(ctx context.Context, from string) error {
	r, err := restore(ctx, from, func(c *config.Train) {
		c.Machine = s.cfg.Machine
		if s.cfg.Data != nil {
			c.Data = *s.cfg.Data
		}
	})
	if err != nil {
		return err
	}
	s.from = r
	if r.net != nil {
		return fmt.Errorf("%s holds the single net %s, not a supernet: give the checkpoint of a supernet", r.ckpt.Path, r.net.Arch)
	}
	if s.cfg.Space != "" && s.cfg.Space != r.space.Name {
		return fmt.Errorf("space: the configuration says %s and the checkpoint %s is of %s: leave it out, or give another checkpoint: %w",
			s.cfg.Space, r.ckpt.Path, r.space.Name, ckpt.ErrSpace)
	}
	if s.digest, err = ckpt.Digest(r.ckpt.ModelPath()); err != nil {
		return err
	}
	l := s.cfg.Limits
	s.limits = search.Limits{FLOPs: search.Bound{Max: l.FLOPs}, Counter: l.Counter, Params: search.Bound{Max: l.Params}}
	decides := s.cfg
	decides.Machine = config.Machine{Seed: s.cfg.Seed}
	table, err := s.openTable()
	if err != nil {
		return err
	}
	s.print = search.Fingerprint(struct {
		Config     config.Search
		Checkpoint string
		Data       string
		Table      string `json:",omitempty"`
	}{decides, s.digest, r.sets.Fingerprint, table})
	return nil
}

// run searches with each method and settles on a winner.
func (s *searcher) run(ctx context.Context) (*searchOutcome, error) {
	stream := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(s.cfg.Seed, n)) }
	random := func() search.Method { return search.NewRandom(s.from.space, s.limits, stream(3), 0) }
	out := &searchOutcome{Dir: s.dir, Space: s.from.space.Name, Method: s.cfg.Method, devices: s.gauges}
	out.name()
	method := random()
	if s.cfg.Method == "evolution" {
		method = search.NewEvolution(s.from.space, s.limits, stream(2), search.EvolutionOptions{
			Population: s.cfg.Population, Parents: s.cfg.Parents,
			Mutants: cmp.Or(s.cfg.Mutation.Count, -1), Children: cmp.Or(s.cfg.Crossover.Count, -1), MutationProb: s.cfg.Mutation.Prob, Tries: s.cfg.MaxTriesFactor,
		})
	}
	var err error
	if out.trials, err = s.history(ctx, s.cfg.Method, runs.TrialsFile, method); err != nil {
		return nil, err
	}
	if out.Best, err = s.winner(ctx, out.trials); err != nil {
		return nil, err
	}
	if s.cfg.RandomBaseline && s.cfg.Method != "random" {
		if out.random, err = s.history(ctx, "random", "random.jsonl", random()); err != nil {
			return nil, err
		}
		w, err := s.winner(ctx, out.random)
		if err != nil {
			return nil, err
		}
		out.Random = &w
	}
	for _, t := range out.trials {
		if t.Feasible {
			out.Evaluated++
		}
	}
	for _, t := range slices.Concat(out.trials, out.random) {
		out.Seconds += t.Seconds // the journal knows those of an interrupted search, too
	}
	return out, s.save(out)
}

// history runs one method from where its journal ends.
func (s *searcher) history(ctx context.Context, name, file string, m search.Method) ([]search.Trial, error) {
	journal, past, err := runs.OpenJournal[search.Trial](filepath.Join(s.dir, file))
	if err != nil {
		return nil, err
	}
	defer journal.Close()
	budget := s.cfg.Evaluations()
	seq := search.Run(ctx, s.from.space, m, search.Options{
		Objective: s.judge.scores,
		Latency:   s.constraint,
		Batch:     s.gauges.Width(),
		Budget:    budget, Journal: appender{journal}, Past: past, Config: s.print,
	})
	var trials []search.Trial
	task := s.p.Task(name, budget, 0)
	defer task.End()
	defer s.awaiting.watch(task)()
	evaluated, best := 0, search.Trial{}
	for t, err := range seq {
		if errors.Is(err, search.ErrExhausted) && evaluated > 0 {
			s.p.Log.Warn("the limits leave no more nets to find", "method", name, "evaluated", evaluated, "of", budget, "err", err)
			break
		}
		if err != nil {
			return nil, err
		}
		trials = append(trials, t)
		if !t.Feasible {
			continue
		}
		s.judge.known[t.Arch] = search.Score{Accuracy: t.Accuracy, Values: t.Values}
		if evaluated++; evaluated == 1 || search.Compare(t, best) < 0 {
			best = t
		}
		s.awaiting.set(evaluated, fmt.Sprintf("best %.2f %% at %s", 100*best.Accuracy, s.gauges.Tell(best)),
			"best_val_top1", best.Accuracy, "best_ms", best.Latency.P50, "refused", len(trials)-evaluated)
	}
	return trials, nil
}

// appender journals one trial at a time.
type appender struct{ j *runs.Journal[search.Trial] }

func (a appender) Append(t search.Trial) error { return a.j.Append(t) }

// save writes best.yaml, the same choice for mmrazor, and the pictures.
func (s *searcher) save(out *searchOutcome) error {
	best, err := search.NewBest(s.from.space, out.Best)
	if err != nil {
		return err
	}
	s.promised(&best, out.Best)
	best.Lineage.Method, best.Lineage.Seed = s.cfg.Method, s.cfg.Seed
	best.Lineage.Evaluated, best.Lineage.Checkpoint = out.Evaluated, s.from.ckpt.Path
	if err := best.Write(filepath.Join(s.dir, "best.yaml")); err != nil {
		return err
	}
	for name, format := range map[string]archfile.Format{"best_mmrazor_0.x.yaml": archfile.Razor0, "best_mmrazor_1.x.yaml": archfile.Razor1} {
		text, err := archfile.Encode(s.from.space, out.Best.Arch, format)
		if err != nil {
			return err
		}
		if err := renameio.WriteFile(filepath.Join(s.dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return out.draw(s.dir)
}
