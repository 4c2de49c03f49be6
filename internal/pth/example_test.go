package pth_test

import (
	"fmt"
	"strings"

	"spos/internal/pth"
)

// A checkpoint that DataParallel saved in a training script: weights among
// other things, all of their names with a prefix.
func ExampleOpen() {
	f, err := pth.Open("testdata/parallel.pth", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	prefix := pth.Prefix(f.Names())
	fmt.Println(f.Key(), prefix)
	for _, name := range f.Names() {
		if dtype, _ := f.DType(name); dtype == "int64" {
			continue // a count of batches
		}
		t, err := f.Tensor(name)
		fmt.Println(strings.TrimPrefix(name, prefix), t.Shape, err)
	}
	// Output:
	// state_dict module.
	// 0.weight [4 3 3 3] <nil>
	// 1.weight [4] <nil>
	// 1.bias [4] <nil>
	// 1.running_mean [4] <nil>
	// 1.running_var [4] <nil>
}
