package report_test

import (
	"math"
	"math/rand/v2"

	"spos/internal/report"
)

// cloud is a plausible search: accuracy saturates with latency.
func cloud(name string, seed uint64, n int, skill float64) report.Cloud {
	r := rand.New(rand.NewPCG(seed, 0))
	cl := report.Cloud{Name: name, BestLabel: name + ": 91.2 % in 1.31 ms"}
	for i := range n {
		ms := 0.9 + 0.7*r.Float64()
		p := report.Point{Cost: ms, Low: ms * 0.985, High: ms * 1.02, Feasible: ms*1.02 < 1.4}
		p.Accuracy = 0.93 - 0.06*math.Exp(-2*(ms-0.6)) - 0.02*(1-skill*float64(i)/float64(n))*r.ExpFloat64()
		if !p.Feasible {
			p.Accuracy = math.NaN()
		}
		cl.Points = append(cl.Points, p)
		if b := cl.Points[cl.Best]; p.Feasible && (!b.Feasible || p.Accuracy > b.Accuracy) {
			cl.Best = i
		}
	}
	return cl
}

func tradeoff() report.Tradeoff {
	return report.Tradeoff{
		Title: "Search of shufflenetv2-small on Fashion-MNIST", Cost: "latency of one image, ms (ONNX Runtime, median)",
		Limit: 1.4, LimitLabel: "limit 1.4 ms", Clouds: []report.Cloud{cloud("evolution", 1, 200, 0.95), cloud("random", 2, 200, 0)},
	}
}

func anytime() report.Anytime {
	r := rand.New(rand.NewPCG(3, 0))
	a := report.Anytime{Title: "Evolution against random search"}
	for _, m := range []struct {
		name  string
		skill float64
	}{{"evolution", 0.97}, {"random", 0}} {
		p := report.Progress{Name: m.name}
		for range 5 {
			run := make([]float64, 300)
			for i := range run {
				run[i] = 0.93 - 0.02*(1-m.skill*float64(i)/300)*r.ExpFloat64() - 0.003*(1-m.skill*float64(i)/300)
			}
			p.Runs = append(p.Runs, run)
		}
		a.Methods = append(a.Methods, p)
	}
	return a
}

func training() report.Training {
	var x, loss, val, acc []float64
	for i := range 60 {
		s := float64(i * 20)
		x = append(x, s)
		loss = append(loss, 0.3+2*math.Exp(-s/200)+0.03*math.Sin(s))
		val = append(val, math.NaN())
		acc = append(acc, math.NaN())
		if i%10 == 9 {
			val[i], acc[i] = loss[i]+0.05, 0.92-0.5*math.Exp(-s/250)
		}
	}
	keep := func(y []float64) report.Series {
		s := report.Series{Name: "validation"}
		for i := range y {
			if !math.IsNaN(y[i]) {
				s.X, s.Y = append(s.X, x[i]), append(s.Y, y[i])
			}
		}
		return s
	}
	return report.Training{
		Title: "Training of 013210213", X: "step",
		Loss: []report.Series{{Name: "training", X: x, Y: loss}, keep(val)}, Accuracy: []report.Series{keep(acc)},
	}
}

func confusion(names ...string) *report.Confusion {
	m := report.NewConfusion("Fashion-MNIST test set, top-1 91.5 %", names)
	r := rand.New(rand.NewPCG(4, 0))
	for i := range names {
		for range 200 {
			j := i
			if r.Float64() < 0.09 {
				j = (i + 2*r.IntN(3)) % len(names)
			}
			m.Add(i, j)
		}
	}
	return m
}

var fashion = []string{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"}
