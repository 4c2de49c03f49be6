package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"spos/cmd/internal/cli"
	"spos/internal/arch"
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
	machineFlags
}

func newSearchCommand() *cobra.Command {
	var o searchOptions
	cmd := &cobra.Command{
		Use:   "search CONFIG CKPT --work-dir DIR",
		Short: "Search a trained supernet for the most accurate net within limits",
		Long: `Search a trained supernet for the most accurate net within limits on FLOPs,
parameters and latency, the latter measured with ONNX Runtime on this machine.
Killed at any moment, the same command continues to the same history.`,
		Example: `  spos search configs/spos_evolution_search_shufflenetv2_8xb2048_in1k.yaml work/supernet \
      --set limits.latency_ms=4.5 --work-dir work/search`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return searchFunc(cmd, args[0], args[1], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.workDir, "work-dir", "", "folder of the search")
	f.StringArrayVar(&o.sets, "set", nil, "override a key of CONFIG: key.sub=value")
	f.BoolVar(&o.json, "json", false, "print the outcome as JSON")
	o.machineFlags.add(cmd)
	_ = cmd.MarkFlagRequired("work-dir")
	_ = cmd.MarkFlagDirname("work-dir")
	return cmd
}

func searchFunc(cmd *cobra.Command, path, from string, o searchOptions) error {
	cfg, err := config.Load(path, config.DefaultSearch(), append(o.sets, o.machineFlags.sets(cmd)...))
	if err != nil {
		return err
	}
	p, err := cli.NewProgress(cmd)
	if err != nil {
		return err
	}
	out, err := searchRun(cmd.Context(), cfg, from, o.workDir, p)
	p.Close()
	if err != nil {
		return resumeHint(cmd.Context(), err, cmd.CommandPath())
	}
	if o.json {
		return cli.PrintJSON(cmd, out)
	}
	return out.write(cmd.OutOrStdout())
}

// searcher is one search at work.
type searcher struct {
	cfg    config.Search
	dir    string
	from   *restored
	judge  *judge
	meter  *meter
	limits search.Limits
	digest string // of the checkpoint's model file
	print  string // fingerprint of everything that decides the history
	p      *cli.Progress
}

// searchRun searches, with a random search of equal budget beside it where
// configured, confirms the winner's latency and writes the files of the run.
func searchRun(ctx context.Context, cfg config.Search, from, dir string, p *cli.Progress) (_ *searchOutcome, err error) {
	s := &searcher{cfg: cfg, dir: dir, p: p}
	err = s.open(ctx, from)
	if s.from != nil {
		defer s.from.sets.Close()
	}
	if err != nil {
		return nil, err
	}
	rt, err := cli.OpenRuntime()
	if err != nil {
		return nil, err
	}
	runner := &latency.Local{Runtime: rt}
	if s.meter, err = newMeter(s.from.space, runner, nil, cfg.Latency, p.Log); err != nil {
		return nil, err
	}
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
	if s.meter.lm.Cache, err = latency.OpenCache(run.Path("latency.jsonl")); err != nil {
		return nil, err
	}
	defer s.meter.lm.Cache.Close()
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
	s.print = search.Fingerprint(struct {
		Config     config.Search
		Checkpoint string
		Data       string
	}{decides, s.digest, r.sets.Fingerprint})
	return nil
}

// surveySize is how many nets are measured before a search with a latency
// limit begins.
const surveySize = 16

// satisfiable fails early where no net of the space meets the limits.
func (s *searcher) satisfiable(ctx context.Context) error {
	draw := func() *rand.Rand { return rand.New(rand.NewPCG(s.cfg.Seed, 1)) }
	if _, err := search.Feasible(ctx, s.from.space, s.limits, draw(), 2000); err != nil {
		return err
	}
	if s.cfg.Limits.LatencyMS == 0 {
		return nil
	}
	found, err := search.MeasureSome(ctx, s.from.space, s.limits, draw(), surveySize, s.meter.nets)
	if err != nil {
		return err
	}
	return found.Satisfiable("latency", s.cfg.Limits.LatencyMS, "ms")
}

// run searches with each method and settles on a winner.
func (s *searcher) run(ctx context.Context) (*searchOutcome, error) {
	stream := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(s.cfg.Seed, n)) }
	random := func() search.Method { return search.NewRandom(s.from.space, s.limits, stream(3), 0) }
	out := &searchOutcome{Dir: s.dir, Limit: s.cfg.Limits.LatencyMS, Space: s.from.space.Name, Method: s.cfg.Method}
	method := random()
	if s.cfg.Method == "evolution" {
		method = search.NewEvolution(s.from.space, s.limits, stream(2), search.EvolutionOptions{
			Population: s.cfg.Population, Parents: s.cfg.Parents, Mutants: s.cfg.Mutation.Count,
			Children: s.cfg.Crossover.Count, MutationProb: s.cfg.Mutation.Prob, Tries: s.cfg.MaxTriesFactor,
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
	out.Evaluated = s.cfg.Evaluations()
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
		Latency:   search.Below{What: "latency", Unit: "ms", Limit: s.cfg.Limits.LatencyMS, Efforts: searchEfforts, Measure: s.meter.nets},
		Budget:    budget, Journal: appender{journal}, Past: past, Config: s.print,
	})
	var trials []search.Trial
	task := s.p.Task(name, budget, 0)
	defer task.End()
	evaluated, best := 0, search.Trial{}
	for t, err := range seq {
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
		task.Set(evaluated, fmt.Sprintf("best %.2f %% at %.3f ms", 100*best.Accuracy, best.Latency.P50),
			"best_val_top1", best.Accuracy, "best_ms", best.Latency.P50, "refused", len(trials)-evaluated)
	}
	return trials, nil
}

// appender journals one trial at a time.
type appender struct{ j *runs.Journal[search.Trial] }

func (a appender) Append(t search.Trial) error { return a.j.Append(t) }

// A machine that something else slows down for a while refuses every
// finalist: the best few are confirmed again after a pause, a few times.
const (
	finalists      = 5
	confirmRounds  = 4
	betweenSlowing = 10 * time.Second
)

// winner is the best trial whose latency holds at the big budget: screening
// intervals of many nets include some that were lucky.
func (s *searcher) winner(ctx context.Context, trials []search.Trial) (search.Trial, error) {
	limit := s.cfg.Limits.LatencyMS
	for round := range confirmRounds {
		left := trials
		for range finalists {
			t, ok := search.Winner(left)
			if !ok {
				break
			}
			net, err := s.from.space.Net(t.Arch)
			if err != nil {
				return t, err
			}
			if t.Latency, err = s.meter.confirm(ctx, net, round); err != nil {
				return t, err
			}
			if limit == 0 || t.Latency.High < limit {
				return t, nil
			}
			s.p.Log.Info("a finalist did not keep to the limit", "arch", t.Arch, "latency_ms", t.Latency.String())
			left = without(left, t.Arch)
		}
		if err := pause(ctx, betweenSlowing); err != nil {
			return search.Trial{}, err
		}
	}
	return search.Trial{}, fmt.Errorf("none of the %d best nets keeps to %g ms when it is measured again: raise the limit, or quieten the machine", finalists, limit)
}

// pause waits, or ends with the context.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func without(trials []search.Trial, a arch.Arch) []search.Trial {
	var rest []search.Trial
	for _, t := range trials {
		if t.Arch != a {
			rest = append(rest, t)
		}
	}
	return rest
}

// save writes best.yaml, the same choice for mmrazor, and the pictures.
func (s *searcher) save(out *searchOutcome) error {
	best, err := search.NewBest(s.from.space, out.Best)
	if err != nil {
		return err
	}
	best.LatencyLimit = s.cfg.Limits.LatencyMS
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
