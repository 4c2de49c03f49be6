package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"spos/cmd/internal/cli"
	"spos/internal/data"
	"spos/search"
	"spos/serve"
)

// serve starts the server on a free port and sends it every test image as a
// PNG.
func (q *quickstart) serve(ctx context.Context) error {
	sets, err := data.Open(ctx, data.Spec{Kind: data.FashionMNIST, Path: q.path})
	if err != nil {
		return err
	}
	defer sets.Close()
	rt, err := cli.OpenRuntime()
	if err != nil {
		return err
	}
	quiet := quietLogger(q.p.Log)
	repo, err := serve.OpenRepository(ctx, q.dir("models"), serve.RepositoryOptions{Runtime: rt, Logger: quiet})
	if err != nil {
		return err
	}
	defer repo.Close()
	srv, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", Logger: quiet, Version: cli.Version}, repo.Models()...)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	var group errgroup.Group
	group.Go(func() error { return srv.Run(running) })
	url := fmt.Sprintf("http://%v/v2/models/%s/classify?k=1", srv.Addr(), modelName)
	task := q.p.Task("requests", sets.Test.Len(), 0)
	err = q.deliver(ctx, url, sets.Test, task)
	task.End()
	stop()
	return errors.Join(err, group.Wait())
}

// deliver sends the images one after another, as one client would, and
// counts the right answers.
func (q *quickstart) deliver(ctx context.Context, url string, d data.Dataset, task *cli.Task) error {
	right := 0
	times := make([]float64, 0, d.Len())
	for i := range d.Len() {
		im, err := d.Image(i)
		if err != nil {
			return err
		}
		var body bytes.Buffer
		if err := im.EncodePNG(&body); err != nil {
			return err
		}
		start := time.Now()
		class, err := classify(ctx, url, body.Bytes())
		if err != nil {
			return fmt.Errorf("%s: %w", data.Name(d, i), err)
		}
		times = append(times, time.Since(start).Seconds()*1e3)
		if class == d.Label(i) {
			right++
		}
		task.Set(i+1, fmt.Sprintf("top-1 %.2f %%", 100*float64(right)/float64(i+1)), "top1", round(float64(right)/float64(i+1)))
	}
	slices.Sort(times)
	q.sum.Serve = serveSummary{
		Requests: d.Len(), TestTop1: float64(right) / float64(d.Len()),
		P50MS: search.Quantile(0.5, times), P99MS: search.Quantile(0.99, times),
	}
	return nil
}

// classify asks for the likeliest class of a picture.
func classify(ctx context.Context, url string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "image/png")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the server answered %s: %s", res.Status, text)
	}
	var answer struct {
		Predictions []struct{ Index int }
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return 0, fmt.Errorf("the server's answer: %w", err)
	}
	if len(answer.Predictions) != 1 {
		return 0, fmt.Errorf("the server's answer has %d predictions, not one: %s", len(answer.Predictions), text)
	}
	return answer.Predictions[0].Index, nil
}
