package serve_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"spos/serve"
)

// Clients that others wrote, against a server. `make clients` installs and runs them all.

// startBoth runs a server of models over both protocols and returns its addresses.
func startBoth(t *testing.T, models map[string]string) (http, rpc string) {
	t.Helper()
	repo, err := serve.OpenRepository(t.Context(), repository(t, models), serve.RepositoryOptions{Runtime: library(t), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { repo.Close() })
	conn, url := startRPC(t, serve.Options{Source: repo}, repo.Models()...)
	return strings.TrimPrefix(url, "http://"), conn.Target()
}

// program is the value of an environment variable that names one. Without it the test is skipped.
func program(t *testing.T, name, what string) string {
	t.Helper()
	path := os.Getenv(name)
	if path == "" {
		t.Skipf("%s names no %s: `make clients` installs one", name, what)
	}
	path, err := exec.LookPath(path)
	if err != nil {
		t.Skipf("%s: %v", name, err)
	}
	return path
}

// pass runs a client to its end. Exit status 77 says that it lacks a package.
func pass(t *testing.T, path string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() == 77 {
		t.Skipf("%s: %s", path, strings.TrimSpace(string(out)))
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestKServeClient(t *testing.T) {
	python := program(t, "SPOS_KSERVE", "Python that has kserve")
	http, rpc := startBoth(t, map[string]string{"addsub/1": "testdata/addsub.onnx"})
	pass(t, python, "testdata/kserve_client.py", http, rpc)
}

// TestPerfAnalyzer: Triton's load generator measures the server to the end, with the server's own split of the time.
func TestPerfAnalyzer(t *testing.T) {
	tool := program(t, "SPOS_PERF_ANALYZER", "perf_analyzer")
	http, rpc := startBoth(t, map[string]string{"addsub/1": "testdata/addsub.onnx", "picture/1": "testdata/picture.onnx"})
	for name, args := range map[string][]string{
		"http":          {"-u", http, "-m", "picture", "--shape", "input:3,224,224"},
		"grpc":          {"-i", "grpc", "-u", rpc, "-m", "picture", "--shape", "input:3,224,224"},
		"http, batches": {"-u", http, "-m", "addsub", "-b", "4"},
		"grpc, stream":  {"-i", "grpc", "-u", rpc, "-m", "addsub", "--streaming", "--async"},
	} {
		t.Run(name, func(t *testing.T) {
			// Windows of half a second that need not agree: whether it ends is asked, not how fast this machine is.
			out := pass(t, tool, append(args, "--concurrency-range", "1:2", "-p", "500", "-s", "900")...)
			for _, want := range []string{"Concurrency: 1, throughput:", "Concurrency: 2, throughput:", "Inference count:", "compute infer"} {
				if !strings.Contains(out, want) {
					t.Errorf("%q is missing in\n%s", want, out)
				}
			}
			t.Log(out[max(0, len(out)-160):])
		})
	}
}
