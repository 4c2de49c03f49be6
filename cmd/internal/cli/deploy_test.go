package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"spos/serve"
)

const deployDir = "../../../docs/deploy"

func deployFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// serveArgs holds the arguments of `serve` in a file to be ones that the program takes, and returns its flags.
func serveArgs(t *testing.T, where string, args []string) map[string]string {
	t.Helper()
	if len(args) == 0 || args[0] != "serve" {
		t.Fatalf("%s: %q is no call of serve", where, args)
	}
	cmd := NewServeCommand()
	NewRoot("spos", "test").AddCommand(cmd) // for the flags of every verb
	if err := cmd.ParseFlags(args[1:]); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	values := map[string]string{}
	for _, name := range []string{"repository", "http", "grpc", "metrics", "tokens", "drain-delay", "drain-timeout"} {
		values[name] = cmd.Flags().Lookup(name).Value.String()
	}
	return values
}

func port(t *testing.T, addr string) int {
	t.Helper()
	n, err := strconv.Atoi(addr[strings.LastIndex(addr, ":")+1:])
	if err != nil {
		t.Fatalf("%q has no port", addr)
	}
	return n
}

// healthPaths are what a real server answers probes with.
func healthPaths(t *testing.T) map[string]bool {
	t.Helper()
	srv, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", Metrics: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	ok := map[string]bool{}
	for _, path := range []string{"/v2/health/live", "/v2/health/ready", "/metrics"} {
		resp, err := http.Get("http://" + srv.MetricsAddr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		ok[path] = resp.StatusCode == 200
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	return ok
}

func TestUnits(t *testing.T) {
	unit := deployFile(t, "spos.service")
	exec := regexp.MustCompile(`(?m)^ExecStart=/usr/bin/spos-edge (.*)$`).FindStringSubmatch(unit)
	if exec == nil {
		t.Fatal("the unit starts no spos-edge")
	}
	serveArgs(t, "spos.service", strings.Fields(exec[1]))
	for _, name := range socketNames {
		file := "spos-" + name + ".socket"
		if name == "http" {
			file = "spos.socket"
		}
		if socket := deployFile(t, file); !strings.Contains(socket, "\nFileDescriptorName="+name+"\n") {
			t.Errorf("%s does not hand its socket over as %s", file, name)
		}
		if !strings.Contains(unit, file) {
			t.Errorf("spos.service does not come after %s", file)
		}
	}
	for _, v := range regexp.MustCompile(`SPOS_SERVE_\w+`).FindAllString(unit, -1) {
		knownVariable(t, "spos.service", v, "x")
	}
	// systemd expands no specifiers in an EnvironmentFile.
	for _, line := range regexp.MustCompile(`(?m)^.*SPOS_SERVE_\w+=%.*$`).FindAllString(unit, -1) {
		if !strings.HasPrefix(strings.TrimLeft(line, "# "), "Environment=SPOS_SERVE_") {
			t.Errorf("spos.service does not say that it is for Environment=: %s", line)
		}
	}
}

// knownVariable holds a variable to stand for a flag.
func knownVariable(t *testing.T, where, name, value string) {
	t.Helper()
	cmd := NewServeCommand()
	NewRoot("spos", "test").AddCommand(cmd)
	if err := cmd.ParseFlags(nil); err != nil {
		t.Fatal(err)
	}
	if unknown, err := settle(cmd, []string{name + "=" + value}); err != nil || len(unknown) > 0 {
		t.Errorf("%s: %s=%s stands for no flag: %v", where, name, value, err)
	}
}

func TestDockerfile(t *testing.T) {
	text := strings.ReplaceAll(deployFile(t, "Dockerfile"), "\\\n", " ")
	env := map[string]string{}
	for _, m := range regexp.MustCompile(`(SPOS_SERVE_\w+)=(\S+)`).FindAllStringSubmatch(text, -1) {
		knownVariable(t, "Dockerfile", m[1], m[2])
		env[m[1]] = m[2]
	}
	if len(env) < 5 {
		t.Errorf("the image sets %v", env)
	}
	expose := regexp.MustCompile(`(?m)^EXPOSE (.*)$`).FindStringSubmatch(text)
	for i, name := range []string{"HTTP", "GRPC", "METRICS"} {
		if want := strings.Fields(expose[1])[i]; !strings.HasSuffix(env["SPOS_SERVE_"+name], ":"+want) {
			t.Errorf("%s listens on %s, exposed is %s", name, env["SPOS_SERVE_"+name], want)
		}
	}
	var health []string
	if err := json.Unmarshal([]byte(regexp.MustCompile(`HEALTHCHECK.* CMD (\[.*\])`).FindStringSubmatch(text)[1]), &health); err != nil {
		t.Fatal(err)
	}
	if want := "http://127.0.0.1:" + strconv.Itoa(port(t, env["SPOS_SERVE_METRICS"])); len(health) != 4 || health[2] != "health" || health[3] != want {
		t.Errorf("the health check runs %q, want it to ask %s", health, want)
	}
	if regexp.MustCompile(`(?m)^USER (\d+)`).FindStringSubmatch(text) == nil {
		t.Error("the image runs as root, or as a name that Kubernetes cannot hold to be another")
	}
}

// manifest is what these tests read of an object of Kubernetes.
type manifest struct {
	Kind string `yaml:"kind"`
	Spec struct {
		Template struct {
			Spec podSpec `yaml:"spec"`
		} `yaml:"template"`
		Containers []container `yaml:"containers"`
		Grace      int         `yaml:"terminationGracePeriodSeconds"` // as a ServingRuntime has it
		Ports      []struct {
			Name       string
			TargetPort string `yaml:"targetPort"`
			Port       int
		} `yaml:"ports"`
		Endpoints []struct{ Port, Path string } `yaml:"endpoints"`
	} `yaml:"spec"`
}

type podSpec struct {
	Grace      int         `yaml:"terminationGracePeriodSeconds"`
	Containers []container `yaml:"containers"`
}

type container struct {
	Args  []string
	Ports []struct {
		Name string
		Port int `yaml:"containerPort"`
	}
	Startup   probe `yaml:"startupProbe"`
	Readiness probe `yaml:"readinessProbe"`
	Liveness  probe `yaml:"livenessProbe"`
}

type probe struct {
	Get *struct {
		Path string
		Port any
	} `yaml:"httpGet"`
}

func manifests(t *testing.T, name string) map[string]manifest {
	t.Helper()
	all := map[string]manifest{}
	d := yaml.NewDecoder(strings.NewReader(deployFile(t, name)))
	for {
		var m manifest
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[m.Kind] = m
	}
}

// check holds a container's arguments, ports and probes against one another and the program.
func (c *container) check(t *testing.T, where string) (flags map[string]string, ports map[string]int) {
	t.Helper()
	flags, ports = serveArgs(t, where, c.Args), map[string]int{}
	listens := []int{port(t, flags["http"]), port(t, flags["grpc"]), port(t, flags["metrics"])}
	for _, p := range c.Ports {
		ports[p.Name] = p.Port
		if !slices.Contains(listens, p.Port) {
			t.Errorf("%s: nothing listens on %s, %d", where, p.Name, p.Port)
		}
	}
	paths := healthPaths(t)
	for kind, p := range map[string]probe{"startup": c.Startup, "readiness": c.Readiness, "liveness": c.Liveness} {
		if p.Get == nil {
			continue
		}
		if !paths[p.Get.Path] || (kind == "liveness") != strings.HasSuffix(p.Get.Path, "/live") {
			t.Errorf("%s: the %s probe asks %s", where, kind, p.Get.Path)
		}
		asked := fmt.Sprint(p.Get.Port)
		if n, ok := ports[asked]; ok {
			asked = strconv.Itoa(n)
		}
		if n, err := strconv.Atoi(asked); err != nil || n != listens[0] && n != listens[2] {
			t.Errorf("%s: the %s probe asks port %v", where, kind, p.Get.Port)
		}
	}
	if c.Readiness.Get == nil || c.Liveness.Get == nil {
		t.Errorf("%s: a probe is missing", where)
	}
	return flags, ports
}

func TestKubernetes(t *testing.T) {
	all := manifests(t, "kubernetes.yaml")
	pod := all["Deployment"].Spec.Template.Spec
	if len(pod.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Containers))
	}
	flags, ports := pod.Containers[0].check(t, "kubernetes.yaml")
	outlasts(t, pod.Grace, flags)
	named := map[string]bool{}
	for _, p := range all["Service"].Spec.Ports {
		named[p.Name] = true
		if ports[p.TargetPort] != p.Port {
			t.Errorf("the service's %s leads to %s, which is %d", p.Name, p.TargetPort, ports[p.TargetPort])
		}
	}
	for _, e := range manifests(t, "servicemonitor.yaml")["ServiceMonitor"].Spec.Endpoints {
		if !named[e.Port] || !healthPaths(t)[e.Path] {
			t.Errorf("%s%s is scraped", e.Port, e.Path)
		}
	}
}

func TestKServe(t *testing.T) {
	runtime := manifests(t, "kserve.yaml")["ServingRuntime"]
	if len(runtime.Spec.Containers) != 1 {
		t.Fatalf("%d containers", len(runtime.Spec.Containers))
	}
	flags, _ := runtime.Spec.Containers[0].check(t, "kserve.yaml")
	if flags["repository"] != "/mnt/models" { // where KServe puts them
		t.Errorf("models are read from %s", flags["repository"])
	}
	outlasts(t, runtime.Spec.Grace, flags)
}

// outlasts holds the time that a pod has to end to be more than its server may take; 0 is Kubernetes' default.
func outlasts(t *testing.T, grace int, flags map[string]string) {
	t.Helper()
	grace = cmp.Or(grace, 30)
	needed := 0.0
	for _, name := range []string{"drain-delay", "drain-timeout"} {
		needed += seconds(t, flags[name])
	}
	if float64(grace) <= needed {
		t.Errorf("a pod has %d s to end and its server may take %g", grace, needed)
	}
}

func seconds(t *testing.T, text string) float64 {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d.Seconds()
}
