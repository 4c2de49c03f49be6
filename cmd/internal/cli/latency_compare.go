package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"spos/latency"
)

// Exit statuses of verdicts: the question was answered, and not with yes.
const (
	StatusNo        = 3
	StatusUndecided = 4
)

type compareOptions struct {
	json    bool
	rounds  int
	measure measureOptions
	device  DeviceFlags
}

func newLatencyCompareCommand() *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Say whether A is faster than B, by how much, and how sure that is",
		Long: `Say whether A is faster than B, by how much, and how sure that is. Two ONNX files are
measured in turns, round by round, until it is decided or --rounds have run: what the
machine does to both cancels out. Two .json files that latency measure --json --samples
wrote are compared as they are, and refused where machine or settings differ.

The exit status is 0 where A is faster, 3 where B is, 4 where neither is known to be or
they are alike within 1 %, and 1 for an error.`,
		Example: `  spos latency compare a.onnx b.onnx
  spos latency compare a.onnx b.onnx --mode paced --rounds 60 --json
  spos latency compare before.json after.json`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"onnx", "json"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error { return latencyCompareFunc(cmd, args, o) },
	}
	f := cmd.Flags()
	jsonFlag(cmd, &o.json)
	f.IntVar(&o.rounds, "rounds", 30, "rounds at most: a session of each model")
	o.measure.quick = true // a round is one session, and many are better than long ones
	o.measure.addSettings(cmd)
	o.device.Add(cmd, false)
	return cmd
}

func latencyCompareFunc(cmd *cobra.Command, args []string, o compareOptions) error {
	var c latency.Comparison
	var err error
	switch saved := [2]bool{isJSON(args[0]), isJSON(args[1])}; {
	case saved[0] && saved[1]:
		c, err = compareSaved(args)
	case saved[0] || saved[1]:
		err = errors.New("compare two ONNX files, or two results that latency measure --json --samples wrote, not one of each")
	default:
		c, err = compareFiles(cmd, args, o)
	}
	if err != nil {
		return err
	}
	if o.json {
		err = PrintJSON(cmd, newCompared(c))
	} else {
		err = c.Write(cmd.OutOrStdout())
	}
	if err != nil {
		return err
	}
	switch c.Verdict {
	case latency.AFaster:
		return nil
	case latency.BFaster:
		return &StatusError{Status: StatusNo}
	default:
		return &StatusError{Status: StatusUndecided}
	}
}

func isJSON(path string) bool { return strings.EqualFold(filepath.Ext(path), ".json") }

func compareFiles(cmd *cobra.Command, args []string, o compareOptions) (c latency.Comparison, err error) {
	p, err := o.measure.protocol()
	if err != nil {
		return c, err
	}
	models, err := readModels(args)
	if err != nil {
		return c, err
	}
	progress, err := NewProgress(cmd)
	if err != nil {
		return c, err
	}
	defer progress.Close()
	devices, closeAll, err := o.device.Open(cmd.Context(), "", progress.Log)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	task := progress.Task("rounds", o.rounds, 0)
	defer task.End()
	return latency.Compare(cmd.Context(), devices[0], models[0], models[1], p, o.rounds, func(c latency.Comparison) {
		task.Set(c.Rounds(), fmt.Sprintf("%.3f (%.3f–%.3f)", c.Ratio, c.Low, c.High), "ratio", c.Ratio, "confidence", c.Confidence)
	})
}

// compareSaved reads a result of each file; one with several is refused.
func compareSaved(paths []string) (latency.Comparison, error) {
	var two [2]latency.Result
	for i, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return latency.Comparison{}, fmt.Errorf("read results: %w", err)
		}
		var results []latency.Result
		if err := json.Unmarshal(text, &results); err != nil {
			return latency.Comparison{}, fmt.Errorf("%s: not what latency measure --json writes: %w", path, err)
		}
		if len(results) != 1 {
			return latency.Comparison{}, fmt.Errorf("%s holds the results of %d models, not of one", path, len(results))
		}
		two[i] = results[0]
		two[i].Model = path + ": " + two[i].Model
	}
	return latency.CompareResults(two[0], two[1])
}

// compared is a comparison as JSON.
type compared struct {
	A          string           `json:"a"`
	B          string           `json:"b"`
	Faster     string           `json:"faster"` // a, b, alike or undecided
	Ratio      float64          `json:"ratio"`  // a's time over b's
	Low        float64          `json:"low"`
	High       float64          `json:"high"`
	Confidence float64          `json:"confidence"` // that a is faster
	Rounds     int              `json:"rounds"`
	Paired     bool             `json:"paired"`
	Results    []latency.Result `json:"results"`
}

func newCompared(c latency.Comparison) compared {
	r := []latency.Result{c.A, c.B}
	for i := range r {
		r[i].Samples = nil
	}
	return compared{
		A: c.A.Model, B: c.B.Model, Faster: c.Verdict.String(), Ratio: c.Ratio, Low: c.Low, High: c.High,
		Confidence: c.Confidence, Rounds: c.Rounds(), Paired: c.Paired, Results: r,
	}
}
