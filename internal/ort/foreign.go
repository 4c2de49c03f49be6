package ort

import (
	"fmt"
	"maps"
	"slices"
)

// harmless are the options of providers that choose among what the library can
// do: names, or NAME=VALUE where other values do more. What is left out names a
// file (backend_path, cache_dir), has one written (trt_engine_cache_enable,
// backend_type=saver) or is an address in this process (user_compute_stream,
// gpu_external_alloc).
var harmless = map[string][]string{
	"coreml": {
		"ModelFormat", "MLComputeUnits", "RequireStaticInputShapes", "EnableOnSubgraphs", "SpecializationStrategy",
		"AllowLowPrecisionAccumulationOnGPU",
	},
	"cuda": {
		"device_id", "gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search", "cudnn_conv_use_max_workspace",
		"cudnn_conv1d_pad_to_nc1d", "do_copy_in_default_stream", "enable_cuda_graph", "prefer_nhwc", "use_tf32", "fuse_conv_bias",
	},
	"migraphx": {"device_id", "migraphx_fp16_enable", "migraphx_bf16_enable", "migraphx_fp8_enable", "migraphx_exhaustive_tune", "migraphx_mem_limit"},
	"openvino": {
		"device_type", "precision", "num_of_threads", "num_streams", "model_priority", "enable_opencl_throttling",
		"enable_qdq_optimizer", "disable_dynamic_shapes",
	},
	"qnn": {
		"backend_type=cpu", "backend_type=gpu", "backend_type=htp", "device_id", "soc_model", "htp_arch", "vtcm_mb", "htp_performance_mode",
		"htp_graph_finalization_optimization_mode", "enable_htp_fp16_precision", "enable_htp_spill_fill_buffer",
		"enable_htp_shared_memory_allocator", "offload_graph_io_quantization", "qnn_context_priority", "rpc_control_latency",
	},
	"tensorrt": {
		"device_id", "trt_max_partition_iterations", "trt_min_subgraph_size", "trt_max_workspace_size", "trt_fp16_enable", "trt_bf16_enable",
		"trt_int8_enable", "trt_dla_enable", "trt_dla_core", "trt_force_sequential_engine_build", "trt_context_memory_sharing_enable",
		"trt_layer_norm_fp32_fallback", "trt_build_heuristics_enable", "trt_sparsity_enable", "trt_builder_optimization_level",
		"trt_auxiliary_streams", "trt_cuda_graph_enable", "trt_profile_min_shapes", "trt_profile_max_shapes", "trt_profile_opt_shapes",
	},
	"webgpu": {
		"preferredLayout", "enableGraphCapture", "storageBufferCacheMode", "uniformBufferCacheMode", "queryResolveBufferCacheMode",
		"defaultBufferCacheMode", "validationMode", "powerPreference",
	},
	"xnnpack": {"intra_op_num_threads"},
}

// harmlessEntries are the same of a session. Others name files, too
// (session.node_partition_config_file), or have some written (ep.context_enable).
var harmlessEntries = []string{
	"mlas.enable_gemm_fastmath_arm64_bfloat16", "optimization.disable_specified_optimizers", "optimization.enable_gelu_approximation",
	"session.disable_prepacking", "session.disable_quant_qdq", "session.dynamic_block_base", "session.force_spinning_stop",
	"session.inter_op.allow_spinning", "session.intra_op.allow_spinning", "session.intra_op_thread_affinities",
	"session.set_denormal_as_zero", "session.use_device_allocator_for_initializers",
}

// CheckForeign is for options that come from another machine: it refuses those
// that are not known to leave the files and the memory of this one alone.
func (o Options) CheckForeign() error {
	name := o.provider()
	for _, k := range slices.Sorted(maps.Keys(o.ProviderConfig)) {
		if v := o.ProviderConfig[k]; !slices.Contains(harmless[name], k) && !slices.Contains(harmless[name], k+"="+v) {
			return fmt.Errorf("option %s=%s of provider %s", k, v, name)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(o.Config)) {
		if !slices.Contains(harmlessEntries, k) {
			return fmt.Errorf("session entry %s=%s", k, o.Config[k])
		}
	}
	return nil
}
