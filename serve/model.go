package serve

import (
	"context"
	"errors"
	"fmt"

	"spos/internal/imaging"
)

// ErrUnavailable is wrapped by errors about models and versions that are known but cannot answer.
var ErrUnavailable = errors.New("serve: model is not available")

// Model is what the server needs of something that computes.
//
// A Model that also implements io.Closer is closed by the server when it stops, after the last Run has returned.
type Model interface {
	// Info describes the model. It is called once, when the server takes the model.
	Info() ModelInfo
	// Run computes the outputs. The server has checked names, datatypes, shapes and byte counts of the inputs against
	// Info; they come in Info's order. out holds the outputs that are wanted, with Name and Type set, and Run fills
	// Shape and Data, for which it may use the memory of Data[:0] up to its capacity. Run is called from many
	// goroutines at once, must return soon after ctx is done, and must not keep in or out.
	Run(ctx context.Context, in, out []Tensor) error
}

// TensorInfo describes an input or output of a model. A dimension of -1 is variable.
type TensorInfo struct {
	Name  string   `json:"name"`
	Type  Datatype `json:"datatype"`
	Shape []int64  `json:"shape"`
}

// ModelInfo is the metadata of one version of a model.
type ModelInfo struct {
	Name    string
	Version string
	// Versions are all versions of this name that can be asked for, ascending; nil means only Version.
	Versions []string
	// Platform is informational, such as "onnxruntime_onnx".
	Platform        string
	Inputs, Outputs []TensorInfo
	// Labels name the classes of the first output; nil when the model came without them.
	Labels []string
	// Recipe is the preprocessing that the model was trained with; nil when the model came without, and such a model
	// answers tensors only.
	Recipe *imaging.Recipe
	// Threads is the number of cores that one Run keeps busy; 0 means 1.
	Threads int
	// Options are the model's own; zero values leave the server's.
	Options ModelOptions
	// Bytes is the size of the model's file; 0: unknown.
	Bytes int64
	// Revision tells the content that the model was loaded from; see [Listing]. Empty: unknown.
	Revision string
	// Promise is the latency that the model was measured to have; nil when it came without.
	Promise *Promise
	// Properties are shown in the metadata, such as the architecture and the checkpoint that the model came from.
	Properties map[string]string
}

// checkRecipe holds a model's preprocessing against its tensors, so that a mistake shows when the model is loaded.
func (info *ModelInfo) checkRecipe() error {
	r := info.Recipe
	if r == nil {
		return nil
	}
	if err := r.Validate(); err != nil {
		return fmt.Errorf("preprocessing: %w", err)
	}
	if len(info.Inputs) != 1 || len(info.Outputs) == 0 {
		return errors.New("preprocessing needs a model of one input, and an output")
	}
	in, out := info.Inputs[0], info.Outputs[0]
	if in.Type != FP32 || out.Type != FP32 || len(in.Shape) != 4 {
		return fmt.Errorf("preprocessing makes FP32 of 4 dimensions, the model takes %s %v and gives %s", in.Type, in.Shape, out.Type)
	}
	made := r.Shape()
	for i, d := range []int{made.C, made.H, made.W} {
		if have := in.Shape[i+1]; have >= 0 && have != int64(d) {
			return fmt.Errorf("preprocessing makes %d×%d×%d, the model takes %v", made.C, made.H, made.W, in.Shape)
		}
	}
	if n := len(out.Shape); info.Labels != nil && n > 0 && out.Shape[n-1] >= 0 && out.Shape[n-1] != int64(len(info.Labels)) {
		return fmt.Errorf("%d labels for an output of %v", len(info.Labels), out.Shape)
	}
	return nil
}

// unavailable stands for a model that was found but could not be loaded.
type unavailable struct {
	info ModelInfo
	err  error
}

// Unavailable returns a Model that is listed under its name and never ready. Its reason is shown in the index.
func Unavailable(name, version string, reason error) Model {
	return &unavailable{ModelInfo{Name: name, Version: version}, fmt.Errorf("%w: %w", ErrUnavailable, reason)}
}

func (u *unavailable) Info() ModelInfo                               { return u.info }
func (u *unavailable) Run(context.Context, []Tensor, []Tensor) error { return u.err }
