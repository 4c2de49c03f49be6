package data_test

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"spos/internal/arch"
	"spos/internal/data"
	"spos/internal/imaging"
)

// fashion opens Fashion-MNIST where it is installed, and skips otherwise.
func fashion(tb testing.TB) *data.Sets {
	tb.Helper()
	f := data.Finder{Env: os.Getenv("SPOS_DATA")}
	dir, err := f.Find()
	if err != nil {
		tb.Skipf("apt-get install dataset-fashion-mnist: %v", err)
	}
	return open(tb, data.Spec{Kind: data.FashionMNIST, Path: dir, ValFraction: 1. / 12})
}

// cifar opens the CIFAR-10 training set as JPEGs where it is, and skips
// otherwise.
func cifar(tb testing.TB, pack data.Pack) *data.Sets {
	tb.Helper()
	dir := os.Getenv("SPOS_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	file := filepath.Join(dir, "cifar10-train-jpeg.tar.gz")
	if _, err := os.Stat(file); err != nil {
		tb.Skipf("set SPOS_DATA to a folder that holds it: %v", err)
	}
	return open(tb, data.Spec{Path: file, Pack: pack})
}

func TestFashionMNIST(t *testing.T) {
	s := fashion(t)
	if s.Train.Len() != 55000 || s.Val.Len() != 5000 || s.Test.Len() != 10000 || s.Shape != (arch.Shape{C: 1, H: 28, W: 28}) {
		t.Fatalf("%d, %d, %d images of %v", s.Train.Len(), s.Val.Len(), s.Test.Len(), s.Shape)
	}
	perClass := make([]int, 10)
	for i := range s.Val.Len() {
		perClass[s.Val.Label(i)]++
	}
	for c, n := range perClass {
		if n != 500 {
			t.Errorf("%s: %d held out, want 500", s.Classes[c], n)
		}
	}
	// The moments that are widely used for this data: 0.2860 and 0.3530.
	mean, std, err := data.Moments(t.Context(), data.Sample(s.Train, 5000, testSeed), imaging.Recipe{Color: imaging.Gray})
	if err != nil || math.Abs(float64(mean[0])-.286) > .005 || math.Abs(float64(std[0])-.353) > .005 {
		t.Errorf("mean %v, std %v, %v", mean, std, err)
	}
}

func TestCIFAR(t *testing.T) {
	s := cifar(t, data.PackOff) // packing decodes 50,000 images: the benchmark's business
	if s.Train.Len() != 40500 || s.Val.Len() != 4500 || s.Test.Len() != 5000 {
		t.Fatalf("%d, %d, %d images", s.Train.Len(), s.Val.Len(), s.Test.Len())
	}
	if s.Classes[0] != "airplane" || s.Classes[9] != "truck" {
		t.Errorf("classes %q", s.Classes)
	}
	// Widely used: mean .4914 .4822 .4465, deviation .2470 .2435 .2616, of all
	// 50,000 uncompressed images.
	mean, std, err := data.Moments(t.Context(), data.Sample(s.Train, 2000, testSeed), imaging.Recipe{})
	for c, want := range []float64{.4914, .4822, .4465} {
		if err != nil || math.Abs(float64(mean[c])-want) > .01 || std[c] < .23 || std[c] > .28 {
			t.Errorf("mean %v, std %v, %v", mean, std, err)
		}
	}
}

func benchmarkLoader(b *testing.B, d data.Dataset, r imaging.Recipe) {
	b.Helper()
	l := &data.Loader{Data: d, Recipe: r, Size: 128, Train: true, Augment: imaging.Augment{PadCrop: 4, Flip: .5}}
	n := 0
	b.ReportAllocs()
	b.ResetTimer()
	for _, err := range l.Batches(b.Context(), data.Position{}) {
		if err != nil {
			b.Fatal(err)
		}
		if n++; n >= b.N {
			break
		}
	}
	b.ReportMetric(128*float64(b.N)/b.Elapsed().Seconds(), "img/s")
}

func BenchmarkLoaderFashion(b *testing.B) {
	benchmarkLoader(b, fashion(b).Train, imaging.Recipe{Color: imaging.Gray, Height: 28, Width: 28, Mean: []float32{.286}, Std: []float32{.353}})
}

func BenchmarkLoaderCIFAR(b *testing.B) {
	benchmarkLoader(b, cifar(b, data.PackAuto).Train, imaging.Recipe{Height: 32, Width: 32, Mean: []float32{.49, .48, .45}, Std: []float32{.25}})
}

func BenchmarkDecode(b *testing.B) {
	dir := tree{}
	for i := range 100 {
		dir["train/a/"+string(rune('0'+i))+".jpg"] = picture(b, ".jpg", 32, 32, uint8(i))
	}
	d := open(b, data.Spec{Path: dir.write(b), Pack: data.PackOff}).Train
	r := rand.New(rand.NewPCG(testSeed, 0))
	for b.Loop() {
		if _, err := d.Image(r.IntN(d.Len())); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "img/s")
}
