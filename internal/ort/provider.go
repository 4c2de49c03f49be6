package ort

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	yalue "github.com/yalue/onnxruntime_go"
)

// ErrProvider is wrapped where an execution provider cannot be used: the
// library was built without it, or something that it needs is missing.
var ErrProvider = errors.New("execution provider")

// provider is what is known of one beyond its name.
type provider struct {
	spelled string // as the library's general call wants it; "": in capitals
	from    string // where a library with it comes from
	threads string // its option for the size of a pool of its own; "": it has none
}

var providers = map[string]provider{
	CPU:             {},
	"coreml":        {spelled: "CoreML", from: "the onnxruntime wheel for macOS"},
	"cuda":          {from: "the wheel onnxruntime-gpu"},
	"migraphx":      {spelled: "MIGraphX", from: "the wheel onnxruntime-migraphx"},
	"nvtensorrtrtx": {spelled: "NvTensorRtRtx", from: "a build with --use_nv_tensorrt_rtx"},
	"openvino":      {from: "the wheel onnxruntime-openvino", threads: "num_of_threads"},
	"qnn":           {from: "the wheel onnxruntime-qnn"},
	"tensorrt":      {from: "the wheel onnxruntime-gpu"},
	"vitisai":       {spelled: "VitisAI", from: "a build with --use_vitisai"},
	"webgpu":        {spelled: "WebGPU", from: "a build with --use_webgpu"},
	"xnnpack":       {from: "a build with --use_xnnpack, as those for Android and iOS are", threads: "intra_op_num_threads"},
}

// Providers lists the execution providers that have a name here, sorted. A
// library has few of them: see [Runtime.Providers].
func Providers() []string { return slices.Sorted(maps.Keys(providers)) }

// ProviderName is the one name of an execution provider, which may be spelled
// in any case and with the library's suffix: openvino for
// OpenVINOExecutionProvider, cpu for "".
func ProviderName(name string) string {
	name = strings.TrimSuffix(strings.ToLower(name), "executionprovider")
	if name == "" {
		return CPU
	}
	return name
}

func (o Options) provider() string { return ProviderName(o.Provider) }

// OnCPU reports whether the options ask for no provider but the processor's.
func (o Options) OnCPU() bool { return o.provider() == CPU }

// OwnPool reports whether the provider computes on threads of its own. The
// library's options for its threads, affinities above all, do not reach them;
// they inherit where the thread that makes the session is bound.
func (o Options) OwnPool() bool { return providers[o.provider()].threads != "" }

// settled gives a provider with threads of its own the number that was asked
// for, and leaves the library's own pool the calling thread alone, which would
// otherwise spin beside it.
func (o Options) settled() Options {
	option := providers[o.provider()].threads
	if option == "" {
		return o
	}
	config := map[string]string{option: strconv.Itoa(max(o.IntraOp, 1))}
	maps.Copy(config, o.ProviderConfig)
	o.ProviderConfig = config
	o.IntraOp = 1
	if o.Spinning == nil {
		o.Spinning = new(false)
	}
	o.Config = maps.Clone(o.Config)
	delete(o.Config, "session.intra_op_thread_affinities")
	return o
}

// addProvider puts the provider before the processor, which takes what the
// provider leaves. CUDA's start-up replaces signal handlers of the process.
func (o Options) addProvider(so *yalue.SessionOptions) error {
	name := o.provider()
	if name == CPU {
		return nil
	}
	err := o.append(so, name)
	if err == nil {
		return nil
	}
	has, listErr := available()
	if listErr != nil || slices.Contains(has, name) {
		// The library says of most mistakes only that it could not load a file.
		return fmt.Errorf("%w %s: the library has it, but it did not start: check its options %v, and that everything it needs is installed (ldd %s): %w",
			ErrProvider, name, o.ProviderConfig, filepath.Join(filepath.Dir(opened.rt.path), "libonnxruntime_providers_"+name+".so"), err)
	}
	return fmt.Errorf("%w %s: the library in use, ONNX Runtime %s in %s, was built with %s: set SPOS_ONNXRUNTIME to the libonnxruntime.so of %s: %w",
		ErrProvider, name, yalue.GetVersion(), opened.rt.path, strings.Join(has, ", "),
		cmp.Or(providers[name].from, "one that has it"), err)
}

func (o Options) append(so *yalue.SessionOptions, name string) error {
	switch name {
	case "cuda":
		c, err := yalue.NewCUDAProviderOptions()
		if err != nil {
			return err
		}
		if len(o.ProviderConfig) > 0 {
			err = c.Update(o.ProviderConfig)
		}
		if err == nil {
			err = so.AppendExecutionProviderCUDA(c)
		}
		return errors.Join(err, c.Destroy())
	case "tensorrt":
		t, err := yalue.NewTensorRTProviderOptions()
		if err != nil {
			return err
		}
		if len(o.ProviderConfig) > 0 {
			err = t.Update(o.ProviderConfig)
		}
		if err == nil {
			err = so.AppendExecutionProviderTensorRT(t)
		}
		return errors.Join(err, t.Destroy())
	case "openvino":
		return so.AppendExecutionProviderOpenVINO(o.ProviderConfig)
	case "coreml":
		return so.AppendExecutionProviderCoreMLV2(o.ProviderConfig)
	}
	spelled := providers[name].spelled
	if spelled == "" {
		spelled = strings.ToUpper(name)
	}
	return so.AppendExecutionProvider(spelled, o.ProviderConfig)
}

// Providers lists the execution providers that the library was built with, by
// [ProviderName]. Whether one works here is only seen when a session is made.
func (r *Runtime) Providers() ([]string, error) {
	has, err := available()
	if err != nil {
		return nil, fmt.Errorf("ort: list the providers of %s: %w", r.path, err)
	}
	return has, nil
}
