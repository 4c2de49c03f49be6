package imaging_test

import (
	"encoding/json"
	"fmt"

	"spos/internal/imaging"
)

// A recipe travels with the model as JSON and is obeyed by whoever serves it.
func ExampleRecipe() {
	stored, err := json.Marshal(imaging.Recipe{
		Color: imaging.Gray, Height: 2, Width: 2, Mean: []float32{0.5}, Std: []float32{0.5},
	}.Explicit())
	if err != nil {
		panic(err)
	}
	fmt.Println(string(stored))

	recipe, err := imaging.ParseRecipe(stored)
	if err != nil {
		panic(err)
	}
	input := make([]float32, recipe.Shape().Numel())
	photo := &imaging.Image{W: 2, H: 2, C: 1, Pix: []uint8{0, 255, 255, 0}}
	if err := recipe.Apply(photo, input); err != nil {
		panic(err)
	}
	fmt.Println(input)
	// Output:
	// {"color":"gray","height":2,"width":2,"long_side":"floor","interpolation":"bilinear_antialias","range":"0-1","mean":[0.5],"std":[0.5]}
	// [-1 1 1 -1]
}
