package main

import (
	"encoding/json"
	"math"
	"testing"

	"spos/supernet"
)

// A net that says no numbers is a bad one, and no end of the search.
func TestScoresCanBeWritten(t *testing.T) {
	for _, loss := range []float64{math.NaN(), math.Inf(1), 2.5} {
		s := scoreOf(supernet.Accuracy{N: 4, Top1: 0.25, Top5: 0.75, Loss: loss})
		got, ok := s.Values["loss"]
		if s.Accuracy != 0.25 || s.Values["top5"] != 0.75 || ok != (loss == 2.5) || ok && got != loss {
			t.Errorf("loss %v: %+v", loss, s)
		}
		if _, err := json.Marshal(s); err != nil {
			t.Error(err)
		}
	}
}
