package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"spos/export"
	"spos/latency"
	"spos/search"
	"spos/serve"
)

type verifyOptions struct {
	json    bool
	devices DeviceFlags
}

func newLatencyVerifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify FILE.onnx…",
		Short: "Measure models again and say whether what their files promise still holds",
		Long: `Measure models again, as their files say that they were measured, and say whether
what they promise still holds. A file with a latency limit must surely keep to it;
more is measured while that is undecided. One without must not have become slower:
its interval may not lie above the file's.

Where the machine or the settings are others than the file names, nothing is
measured and they are named: another machine's number proves nothing. Files get
what they promise from spos export --latency or spos latency measure --store.`,
		Example: `  spos latency verify models/shufflenet/1/model.onnx
  spos latency verify model.onnx --device pi5 --json`,
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"onnx"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return latencyVerifyFunc(cmd, args, o)
		},
	}
	jsonFlag(cmd, &o.json)
	o.devices.Add(cmd, true)
	cmd.Flags().Lookup("device").Usage = "measure on this device; may be repeated (default: those that the file names)"
	return cmd
}

// verified is what became of one promise.
type verified struct {
	Model    string           `json:"model"`
	Device   string           `json:"device"`
	Promise  latency.Manifest `json:"promise"`
	Holds    bool             `json:"holds"`
	Why      string           `json:"why"`
	Differs  []string         `json:"differs,omitempty"` // conditions, where nothing was measured
	Latency  *search.Interval `json:"latency_ms,omitempty"`
	Warnings []string         `json:"warnings,omitempty"`
}

func latencyVerifyFunc(cmd *cobra.Command, paths []string, o verifyOptions) error {
	log, err := Logger(cmd, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	var all []verified
	for _, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read model: %w", err)
		}
		promises, err := readManifests(file, path)
		if err != nil {
			return err
		}
		flags := o.devices
		if !cmd.Flags().Changed("device") {
			flags.Names = slices.Sorted(maps.Keys(promises))
		}
		devices, release, err := flags.Open(cmd.Context(), "", log)
		if err != nil {
			return err
		}
		for _, d := range Watch(devices, log, nil) {
			v, err := verifyPromise(cmd.Context(), d, promises, latency.Model{Name: path, Bytes: file})
			if err != nil {
				return errors.Join(err, release())
			}
			all = append(all, v)
		}
		if err := release(); err != nil {
			return err
		}
	}
	if o.json {
		err = PrintJSON(cmd, all)
	} else {
		err = writeVerified(cmd.OutOrStdout(), all)
	}
	if broken := slices.IndexFunc(all, func(v verified) bool { return !v.Holds }); broken >= 0 {
		v := all[broken]
		return errors.Join(err, fmt.Errorf("%s: what it promises does not hold on %s: %s", v.Model, v.Device, v.Why))
	}
	return err
}

// readManifests are a file's promises by device. A file without any is an
// error.
func readManifests(file []byte, path string) (map[string]latency.Manifest, error) {
	s, err := export.Inspect(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	promises := map[string]latency.Manifest{}
	for _, key := range latencyKeys(s.Metadata) {
		m, err := latency.ParseManifest(s.Metadata[key])
		if err != nil {
			return nil, fmt.Errorf("%s: metadata %s: %w", path, key, err)
		}
		promises[deviceOf(m)] = m
	}
	if len(promises) == 0 {
		return nil, WithHint(fmt.Errorf("%s says nothing of its latency", path), "`spos latency measure --store` writes it into the file")
	}
	return promises, nil
}

// latencyKeys are the metadata keys of manifests, the first device's first.
func latencyKeys(metadata map[string]string) []string {
	var keys []string
	for key := range metadata {
		if key == export.KeyLatency || strings.HasPrefix(key, export.KeyLatency+".") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// verifyPromise measures a file on a device under the manifest of that device;
// one that it does not name is held to the only manifest there is.
func verifyPromise(ctx context.Context, d NamedDevice, promises map[string]latency.Manifest, model latency.Model) (verified, error) {
	m, ok := promises[d.Name]
	if !ok && len(promises) == 1 {
		for _, m = range promises {
			ok = true
		}
	}
	if !ok {
		return verified{}, fmt.Errorf("%s promises nothing on %s, only on %s", model.Name, d.Name, strings.Join(slices.Sorted(maps.Keys(promises)), ", "))
	}
	v := verified{Model: model.Name, Device: d.Name, Promise: m}
	p, err := howAgain(m, model.Bytes)
	if err != nil {
		v.Why = fmt.Sprintf("it cannot be measured as it was: %v: measure it anew with spos latency measure --store", err)
		return v, nil
	}
	fp, err := d.Fingerprint(ctx, model.Bytes, p)
	if err != nil {
		return v, fmt.Errorf("%s: %w", d.Name, err)
	}
	if v.Differs = differing(m.Conditions, fp.Conditions()); v.Differs != nil {
		v.Why = "it was measured under other conditions: " + strings.Join(v.Differs, "; ")
		return v, nil
	}
	more := p
	more.Sessions = undecidedSessions
	var r latency.Result
	if m.Limit != nil {
		r, _, err = latency.Settle(ctx, d, model, duration(*m.Limit), p, more)
	} else {
		r, err = latency.Measure(ctx, d, model, p)
	}
	if err != nil {
		return v, fmt.Errorf("%s: %w", d.Name, err)
	}
	v.Latency, v.Warnings = new(Interval(r.Estimate)), r.Warnings
	v.Holds, v.Why = holds(m, r)
	return v, nil
}

// howAgain is the protocol under which a promise is measured again.
func howAgain(m latency.Manifest, file []byte) (latency.Protocol, error) {
	p, err := m.Again()
	if err != nil || m.Dims != nil {
		return p, err
	}
	s, err := export.Inspect(file)
	if err != nil {
		return p, err
	}
	for _, in := range s.Inputs {
		for i, d := range in.Shape {
			if i > 0 && d.Symbol != "" {
				return p, fmt.Errorf("it does not say how long dimension %s of input %s was", d, in.Name)
			}
		}
	}
	return p, nil
}

// differing says which conditions are others here than there, by the server's
// rule.
func differing(there, here map[string]string) []string {
	var words []string
	for _, name := range serve.Differing(there, here) {
		words = append(words, fmt.Sprintf("%s was %q and is %q", name, there[name], here[name]))
	}
	return words
}

// holds compares a new measurement with a manifest.
func holds(m latency.Manifest, r latency.Result) (bool, string) {
	ms := latency.Milliseconds
	switch {
	case m.Limit != nil:
		v := r.Decide(duration(*m.Limit))
		return v == latency.Met, fmt.Sprintf("the limit of %g ms is %v", *m.Limit, v)
	case ms(r.Low) > m.High:
		return false, fmt.Sprintf("it has become slower: %.4g ms and more, where the file says %.4g at most", ms(r.Low), m.High)
	case ms(r.High) < m.Low:
		return true, "it has become faster"
	default:
		return true, "it takes what the file says"
	}
}

func writeVerified(w io.Writer, all []verified) error {
	for _, v := range all {
		word := "holds"
		if !v.Holds {
			word = "does not hold"
		}
		now := ""
		if v.Latency != nil {
			now = fmt.Sprintf(", now %v ms", v.Latency)
		}
		fmt.Fprintf(w, "%s on %s: %s: the file says %.4g (%.4g–%.4g) ms%s: %s\n", v.Model, v.Device, word, v.Promise.P50, v.Promise.Low, v.Promise.High, now, v.Why)
		for _, text := range v.Warnings {
			if _, err := fmt.Fprintf(w, "warning: %s\n", text); err != nil {
				return err
			}
		}
	}
	return nil
}
