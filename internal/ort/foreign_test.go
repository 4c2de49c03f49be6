package ort_test

import (
	"strings"
	"testing"

	"spos/internal/ort"
)

func TestCheckForeign(t *testing.T) {
	type config = map[string]string
	for _, c := range []struct {
		o    ort.Options
		want string // in the error; "": taken
	}{
		{ort.Options{}, ""},
		{ort.Options{Provider: "OpenVINOExecutionProvider", ProviderConfig: config{"device_type": "GPU", "num_streams": "1"}}, ""},
		{ort.Options{Provider: "qnn", ProviderConfig: config{"backend_type": "htp", "htp_performance_mode": "burst"}}, ""},
		{ort.Options{Config: config{"session.intra_op_thread_affinities": "1;2"}}, ""},
		{ort.Options{Provider: "QNN", ProviderConfig: config{"backend_path": "evil.so", "vtcm_mb": "8"}}, "option backend_path=evil.so of provider qnn"},
		{ort.Options{Provider: "qnn", ProviderConfig: config{"backend_type": "saver"}}, "backend_type=saver"},
		{ort.Options{Provider: "qnn", ProviderConfig: config{"op_packages": "Relu:evil.so:f"}}, "op_packages"},
		{ort.Options{Provider: "openvino", ProviderConfig: config{"cache_dir": "/"}}, "cache_dir"},
		{ort.Options{Provider: "cuda", ProviderConfig: config{"gpu_external_alloc": "4198400"}}, "gpu_external_alloc"},
		{ort.Options{Provider: "tensorrt", ProviderConfig: config{"trt_engine_cache_enable": "1"}}, "trt_engine_cache_enable"},
		{ort.Options{Provider: "abacus", ProviderConfig: config{"beads": "9"}}, "option beads=9 of provider abacus"},
		{ort.Options{Config: config{"ep.context_enable": "1"}}, "session entry ep.context_enable=1"},
		{ort.Options{Config: config{"session.optimized_model_filepath": "x"}}, "session.optimized_model_filepath"},
	} {
		switch err := c.o.CheckForeign(); {
		case c.want == "" && err != nil:
			t.Errorf("%+v: %v", c.o, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v: %v, want %s", c.o, err, c.want)
		}
	}
}
