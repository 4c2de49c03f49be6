package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/runs"
	"spos/latency"
)

type tableOptions struct {
	device   DeviceFlags
	output   string
	nets     int
	holdout  int
	sessions int
	runs     int
	budget   time.Duration
	seed     uint64
	mode     string
	gap      time.Duration
	threads  int
	batch    int
	json     bool
	provider ProviderFlags
}

func newLatencyTableCommand() *cobra.Command {
	var o tableOptions
	cmd := &cobra.Command{
		Use:   "table SPACE",
		Short: "Measure a space's blocks inside of nets and make a table that predicts its nets",
		Long: `Measure a space's blocks inside of nets and make a table that predicts its nets.

Blocks are never timed alone: what a candidate costs is the difference between two
whole nets. Whole random nets then correct the sums, and nets that the table was not
made of audit it. The audit is printed with every table, and says in words which nets
the table may be used for.

A table answers for the device and the settings it was measured under, and for no other.
What is measured is kept beside the file, so that a table whose making was interrupted
goes on when the same command is run again; with larger --nets, --holdout or --sessions
an existing table is added to.`,
		Example: `  spos latency table shufflenetv2-spos -o official.table.json
  spos latency table nasbench-macro --nets 40 --holdout 200 --sessions 6
  spos latency table my-space.yaml --device pi5 --mode paced --budget 20m
  spos latency table show official.table.json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeSpace,
		RunE: func(cmd *cobra.Command, args []string) error {
			return latencyTableFunc(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	o.device.Add(cmd, false)
	o.provider.Add(cmd)
	jsonFlag(cmd, &o.json)
	f.StringVarP(&o.output, "output", "o", "", "the table's file (default SPACE-DEVICE.table.json)")
	f.IntVar(&o.nets, "nets", 40, "whole nets that correct the sums")
	f.IntVar(&o.holdout, "holdout", 60, "whole nets that audit the table")
	f.IntVar(&o.sessions, "sessions", 5, "sessions of each net")
	f.IntVar(&o.runs, "runs", 0, "timed runs of a session, at least (default: the protocol's)")
	f.DurationVar(&o.budget, "budget", 0, "measure no longer than this and make the table of what there is; run again to go on")
	f.Uint64Var(&o.seed, "seed", 1, "of the choice of nets")
	f.StringVar(&o.mode, "mode", string(latency.Hot), "between runs: hot (back to back), paced (idle for --gap), cold (caches overwritten)")
	f.DurationVar(&o.gap, "gap", 10*time.Millisecond, "idle time of mode paced")
	f.IntVar(&o.threads, "threads", 1, "threads of an operator")
	f.IntVar(&o.batch, "batch", 1, "images at a time")
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"hot", "paced", "cold"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(newLatencyTableShowCommand())
	return cmd
}

func (o tableOptions) protocol() (latency.Protocol, error) {
	p := latency.Screening()
	p.Redo, p.Patience = o.sessions, latency.Confirmation().Patience
	p.Mode, p.Gap, p.Threads, p.Batch, p.Sessions = latency.Mode(o.mode), o.gap, o.threads, o.batch, o.sessions
	p.Runs = cmp.Or(o.runs, p.Runs)
	err := o.provider.Apply(&p)
	return p, errors.Join(err, p.Validate(), atLeast("--nets", o.nets, 0), atLeast("--holdout", o.holdout, 0))
}

func atLeast(flag string, n, least int) error {
	if n < least {
		return fmt.Errorf("%s %d: want at least %d", flag, n, least)
	}
	return nil
}

func latencyTableFunc(cmd *cobra.Command, name string, o tableOptions) (err error) {
	space, err := configs.Space(name)
	if err != nil {
		return err
	}
	p, err := o.protocol()
	if err != nil {
		return err
	}
	device := o.device.Names[0]
	path := cmp.Or(o.output, fmt.Sprintf("%s-%s.table.json", space.Name, device))
	prefix := strings.TrimSuffix(path, ".json")
	lock, err := runs.Lock(prefix + ".lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	known, err := knownTable(path)
	if err != nil {
		return err
	}
	progress, err := NewProgress(cmd)
	if err != nil {
		return err
	}
	defer progress.Close()
	campaign, err := tableCampaign(prefix)
	if err != nil {
		return err
	}
	devices, closeAll, err := o.device.Open(cmd.Context(), campaign, progress.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	cache, err := latency.OpenCache(prefix + tableJournal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()

	task := (*Task)(nil)
	c := latency.Campaign{
		Space: space, Seed: o.seed, Device: devices[0].Device, Protocol: p, Cache: cache,
		Nets: o.nets, Holdout: o.holdout, Budget: o.budget, Known: known, Log: progress.Log,
		Model: func(n *arch.Net) (latency.Model, error) { return CandidateModel(n, p.Batch) },
		Progress: func(done, total int) {
			if task == nil {
				task = progress.Task("sessions", total, max(0, done-1))
			}
			task.Set(done, "", "device", device)
		},
	}
	table, err := c.Run(cmd.Context())
	if task != nil {
		task.End()
	}
	if err != nil {
		if errors.Is(err, latency.ErrIncomparable) {
			err = WithHint(err, "give another file with -o: a table is of one device under one setting")
		}
		return fmt.Errorf("table %s: %w", path, err)
	}
	if err := table.Write(path); err != nil {
		return err
	}
	progress.Log.Info("table written", "file", path, "nets", len(table.Measurements))
	return printTable(cmd, table, o.json, false)
}

// knownTable is the table that there is, nil where there is none.
func knownTable(path string) (*latency.Table, error) {
	t, err := latency.ReadTable(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return t, WithHint(err, "give another file with -o, or remove this one")
}

// tableJournal ends the name of the file of what was measured for a table.
const tableJournal = ".journal.jsonl"

// tableCampaign names the work on a table for remote devices. It is as old as
// the journal: where that is gone, the table is measured anew.
func tableCampaign(prefix string) (string, error) {
	path := prefix + CampaignFile
	if _, err := os.Stat(prefix + tableJournal); errors.Is(err, fs.ErrNotExist) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	name, err := Campaign(path)
	if err != nil {
		return "", err
	}
	return name, KeepCampaign(path, name)
}

func newLatencyTableShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show FILE",
		Short:   "Show a table: what its candidates cost, and its audit",
		Example: "  spos latency table show shufflenetv2-spos-local.table.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := latency.ReadTable(args[0])
			if err != nil {
				return err
			}
			return printTable(cmd, t, asJSON, true)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// printTable prints a table with its audit; whole, with what each candidate
// costs as well.
func printTable(cmd *cobra.Command, t *latency.Table, asJSON, whole bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		text, err := t.Marshal()
		if err == nil {
			_, err = out.Write(text)
		}
		return err
	}
	if err := t.WriteHead(out); err != nil {
		return err
	}
	if whole {
		if err := writeEntries(out, t); err != nil {
			return err
		}
	}
	if err := t.WriteAudit(out); err != nil {
		return err
	}
	for _, w := range t.Warnings {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
	return nil
}

func writeEntries(out io.Writer, t *latency.Table) error {
	entries, err := t.Entries()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "candidate\tin\tout\tblocks\tms\t95 % interval\tover the first\t95 % interval")
	for _, e := range entries {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.4f\t%.4f – %.4f\t%+.4f\t%+.4f – %+.4f\n",
			e.Candidate, e.In, e.Out, ranges(e.Blocks), e.Milliseconds, e.Low, e.High, e.Over, e.OverLow, e.OverHigh)
	}
	return w.Flush()
}

// ranges writes ascending numbers as 1–3, 5.
func ranges(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if part := fmt.Sprint(numbers[i]); i == j {
			parts = append(parts, part)
		} else {
			parts = append(parts, fmt.Sprintf("%s–%d", part, numbers[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ", ")
}

func completeTable(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	files, err := filepath.Glob("*.table.json")
	if err != nil || len(files) == 0 {
		return []string{"json"}, cobra.ShellCompDirectiveFilterFileExt
	}
	return files, cobra.ShellCompDirectiveDefault
}
