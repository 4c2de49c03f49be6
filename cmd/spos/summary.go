package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"

	"github.com/google/renameio/v2"

	"spos/internal/data"
	"spos/internal/report"
	"spos/search"
)

// summary is the quickstart's summary.json (docs/formats.md). Accuracies are
// fractions.
type summary struct {
	Dataset        datasetSummary  `json:"dataset"`
	Space          string          `json:"space"`
	Supernet       supernetSummary `json:"supernet"`
	LatencyLimitMS float64         `json:"latency_limit_ms"`
	Search         searchSummary   `json:"search"`
	Subnet         subnetSummary   `json:"subnet"`
	ONNX           onnxSummary     `json:"onnx"`
	Serve          serveSummary    `json:"serve"`
}

type datasetSummary struct {
	Name  string `json:"name"`
	Train int    `json:"train"`
	Val   int    `json:"val"`
	Test  int    `json:"test"`
}

type supernetSummary struct {
	Seconds         float64 `json:"seconds"`
	ImagesPerSecond float64 `json:"images_per_second"`
	ValTop1Mean     float64 `json:"val_top1_mean"`
}

type searchSummary struct {
	Evaluated int               `json:"evaluated"` // nets, by each of the two methods
	Seconds   float64           `json:"seconds"`
	Best      candidateSummary  `json:"best"`
	Random    *candidateSummary `json:"random"`
}

type candidateSummary struct {
	Arch      string          `json:"arch"`
	ValTop1   float64         `json:"val_top1"`
	MACs      int64           `json:"macs"`
	Params    int64           `json:"params"`
	LatencyMS search.Interval `json:"latency_ms"`
}

func candidate(t search.Trial) candidateSummary {
	return candidateSummary{string(t.Arch), t.Accuracy, t.MACs, t.Params, t.Latency}
}

type subnetSummary struct {
	TestTop1 float64 `json:"test_top1"`
	Seconds  float64 `json:"seconds"`
}

type onnxSummary struct {
	Path       string          `json:"path"`
	Bytes      int             `json:"bytes"`
	MaxAbsDiff float64         `json:"max_abs_diff"`
	TestTop1   float64         `json:"test_top1"`
	LatencyMS  search.Interval `json:"latency_ms"`
}

type serveSummary struct {
	Requests int     `json:"requests"`
	TestTop1 float64 `json:"test_top1"`
	P50MS    float64 `json:"p50_ms"`
	P99MS    float64 `json:"p99_ms"`
}

func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

// save writes summary.json and the picture of the confusion.
func (q *quickstart) save() error {
	err := report.Save(q.dir("confusion.png"), confusion("Fashion-MNIST test images", data.FashionClasses, q.subnet.Confusion))
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(q.sum, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(q.dir("summary.json"), append(text, '\n'), 0o644)
}

// write prints what was done and where everything lies.
func (q *quickstart) write(w io.Writer) error {
	s := q.sum
	pct := func(x float64) string { return fmt.Sprintf("%.2f %%", 100*x) }
	ms := func(i search.Interval) string { return fmt.Sprintf("%.3f (%.3f–%.3f)", i.P50, i.Low, i.High) }
	t := report.NewTable("stage", "accuracy", "on", "latency ms (95 %)", "time")
	t.Right(1, 3, 4)
	sec := func(x float64) string { return fmt.Sprintf("%.0f s", x) }
	t.Row("supernet, mean of random paths", pct(s.Supernet.ValTop1Mean), "validation", "", sec(s.Supernet.Seconds))
	t.Row("search: "+s.Search.Best.Arch, pct(s.Search.Best.ValTop1), "validation", ms(s.Search.Best.LatencyMS), sec(s.Search.Seconds))
	if r := s.Search.Random; r != nil {
		t.Row("random search: "+r.Arch, pct(r.ValTop1), "validation", ms(r.LatencyMS), "")
	}
	t.Row("retrained", pct(s.Subnet.TestTop1), "test", "", sec(s.Subnet.Seconds))
	t.Row("exported, in ONNX Runtime", pct(s.ONNX.TestTop1), "test", ms(s.ONNX.LatencyMS), "")
	t.Row(fmt.Sprintf("served, %d requests", s.Serve.Requests), pct(s.Serve.TestTop1), "test", fmt.Sprintf("%.3f, p99 %.3f", s.Serve.P50MS, s.Serve.P99MS), "")
	fmt.Fprintf(w, "%s: %d training, %d validation, %d test images; space %s; latency limit %g ms\n\n%s\n",
		s.Dataset.Name, s.Dataset.Train, s.Dataset.Val, s.Dataset.Test, s.Space, s.LatencyLimitMS, t)
	fmt.Fprintf(w, "what it still mistakes:\n%s\n", confusion("", data.FashionClasses, q.subnet.Confusion).PairsTable(5))
	where := report.NewTable("file", "holds")
	where.Row(q.dir("summary.json"), "these numbers")
	where.Row(q.dir("search", "search.png"), "accuracy against latency of every net")
	where.Row(q.dir("search", "best.yaml"), "the choice; mmrazor's two forms beside it")
	where.Row(s.ONNX.Path, "the model")
	where.Row(q.dir("supernet"), "the supernet's run")
	where.Row(q.dir("subnet"), "the winner's run")
	_, err := fmt.Fprintf(w, "%s\nserve it:  spos serve --repository %s\n", where, q.dir("models"))
	return err
}

// quietLogger passes on warnings and errors only: a line a request would bury
// the progress.
func quietLogger(l *slog.Logger) *slog.Logger { return slog.New(above{l.Handler()}) }

type above struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (a above) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && a.Handler.Enabled(ctx, level)
}
