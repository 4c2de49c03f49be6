package serve

// This file holds what the protocol's extensions publish, for JSON and gRPC alike.

// IndexEntry is one version of a model in the repository's index.
type IndexEntry struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   State  `json:"state,omitempty"`
	// Reason says why the state is what it is, for people. It holds no path.
	Reason string `json:"reason,omitempty"`
}

// Spent is how often something was done and how many nanoseconds that took in all.
type Spent struct {
	Count uint64 `json:"count"`
	NS    uint64 `json:"ns"`
}

// ModelStats are the statistics of one version since the server knows it. No value ever falls, also not when the
// version is loaded again.
type ModelStats struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// LastInference is when the last inference began, in milliseconds since 1970.
	LastInference uint64 `json:"last_inference"`
	// Inferences counts items, each of a batch; Executions counts runs of the model.
	Inferences uint64         `json:"inference_count"`
	Executions uint64         `json:"execution_count"`
	Requests   InferenceStats `json:"inference_stats"`
	// Batches are by size of a run's batch, ascending.
	Batches []BatchStats  `json:"batch_stats"`
	Memory  []MemoryUsage `json:"memory_usage"`
}

// InferenceStats split the requests of a version by outcome and the successful ones by what took their time.
type InferenceStats struct {
	Success Spent `json:"success"`
	Fail    Spent `json:"fail"`
	// Queue is the wait for cores, Input the making of the model's inputs (a picture's decoding), Infer the run,
	// Output the making of the answer.
	Queue  Spent `json:"queue"`
	Input  Spent `json:"compute_input"`
	Infer  Spent `json:"compute_infer"`
	Output Spent `json:"compute_output"`
	// Hit and Miss are of a cache of answers, which this server has none of.
	Hit  Spent `json:"cache_hit"`
	Miss Spent `json:"cache_miss"`
}

// BatchStats are the runs of one batch size.
type BatchStats struct {
	Size   uint64 `json:"batch_size"`
	Input  Spent  `json:"compute_input"`
	Infer  Spent  `json:"compute_infer"`
	Output Spent  `json:"compute_output"`
}

// MemoryUsage is memory that a version holds.
type MemoryUsage struct {
	Type  string `json:"type"` // "CPU"
	ID    int64  `json:"id"`
	Bytes uint64 `json:"byte_size"`
}

// ModelConfig is a model in the form of Triton's ModelConfig, as far as clients read it.
type ModelConfig struct {
	Name     string `json:"name"`
	Platform string `json:"platform"`
	Backend  string `json:"backend"`
	// VersionPolicy has one of its members set.
	VersionPolicy ConfigPolicy `json:"version_policy"`
	// MaxBatch is 0 for a model that takes no batches; where it is more, the dims of inputs and outputs lack the
	// batch's dimension.
	MaxBatch  int64            `json:"max_batch_size"`
	Inputs    []ConfigInput    `json:"input"`
	Outputs   []ConfigOutput   `json:"output"`
	Instances []ConfigInstance `json:"instance_group"`
	// Batching is nil where requests are run one by one.
	Batching *ConfigBatching `json:"dynamic_batching,omitempty"`
	// Transaction says that a request has one answer.
	Transaction ConfigTransaction `json:"model_transaction_policy"`
}

// ConfigPolicy says which versions are served.
type ConfigPolicy struct {
	Latest   *ConfigLatest   `json:"latest,omitempty"`
	All      *struct{}       `json:"all,omitempty"`
	Specific *ConfigSpecific `json:"specific,omitempty"`
}

// ConfigLatest is the policy of the N highest versions.
type ConfigLatest struct {
	N int64 `json:"num_versions"`
}

// ConfigSpecific is the policy of listed versions.
type ConfigSpecific struct {
	Versions []int64 `json:"versions"`
}

// ConfigInput is an input; Type is such as "TYPE_FP32", Format such as "FORMAT_NCHW" for pictures.
type ConfigInput struct {
	Name     string  `json:"name"`
	Type     string  `json:"data_type"`
	Format   string  `json:"format"`
	Dims     []int64 `json:"dims"`
	IsShape  bool    `json:"is_shape_tensor"`
	Ragged   bool    `json:"allow_ragged_batch"`
	Optional bool    `json:"optional"`
}

// ConfigOutput is an output; LabelFile is set where its classes have names.
type ConfigOutput struct {
	Name      string  `json:"name"`
	Type      string  `json:"data_type"`
	Dims      []int64 `json:"dims"`
	LabelFile string  `json:"label_filename"`
	IsShape   bool    `json:"is_shape_tensor"`
}

// ConfigBatching says how requests are put together into one run.
type ConfigBatching struct {
	Preferred []int64 `json:"preferred_batch_size"`
	DelayUS   uint64  `json:"max_queue_delay_microseconds"`
}

// ConfigInstance says where runs take place and how many at once.
type ConfigInstance struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"` // "KIND_CPU"
	Count int64  `json:"count"`
}

// ConfigTransaction says whether a request may have any number of answers; ours has one.
type ConfigTransaction struct {
	Decoupled bool `json:"decoupled"`
}
