package data_test

import (
	"context"
	"fmt"

	"spos/internal/data"
	"spos/internal/imaging"
)

// A run that stops after two steps goes on with the third, on the same images.
func ExampleLoader() {
	loader := &data.Loader{
		Data: numbers{n: 9}, Recipe: imaging.Recipe{Color: imaging.Gray, Range: imaging.Bytes},
		Size: 4, Train: true, Seed: 1,
	}
	show := func(from data.Position, steps int) {
		for batch, err := range loader.Batches(context.Background(), from) {
			if err != nil {
				fmt.Println(err)
				return
			}
			fmt.Println(batch.Labels)
			if steps--; steps == 0 {
				break
			}
		}
	}
	fmt.Println("at once")
	show(data.Position{}, 3)
	fmt.Println("resumed")
	show(loader.At(2), 1)
	// Output:
	// at once
	// [2 0 1 2]
	// [0 1 1 0]
	// [0 2 0 1]
	// resumed
	// [0 2 0 1]
}
