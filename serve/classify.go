package serve

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

const (
	defaultTop = 5
	maxTop     = 1000
)

// prediction is one class of an answer.
type prediction struct {
	Label       string  `json:"label,omitempty"`
	Index       int     `json:"index"`
	Probability float64 `json:"probability"`
}

// classify answers POST …/classify: a JPEG or PNG as the body, as the one file of a form, or in base64 as the member
// "image" of a JSON object, whose member "images" holds a list instead. Pictures go through the model's own recipe,
// and the softmax of its first output is answered, largest first, equal ones by index.
func (s *Server) classify(w http.ResponseWriter, r *http.Request, c *call) (err error) {
	v, err := s.find(w, r, c)
	if err != nil {
		return err
	}
	t := &c.spans
	defer func() { v.stats.request(t, err) }()
	if v.info.Recipe == nil {
		return badRequest("model %q came without preprocessing: send tensors to …/infer", v.info.Name)
	}
	top, err := topOf(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if err := v.gate.refuse(); err != nil {
		return err
	}
	mem := &arena{m: &s.memory}
	defer mem.free()
	pictures, several, err := s.readPictures(w, r, mem)
	if err != nil {
		return err
	}
	in, out := v.info.Inputs[0], v.info.Outputs[0]
	answers, err := s.compute(r.Context(), v, &inferRequest{
		inputs:   []Tensor{{Name: in.Name, Type: Bytes, Shape: []int64{int64(len(pictures))}}},
		pictures: pictures, outputs: []wantedOutput{{TensorInfo: out}},
	}, mem, t)
	if err != nil {
		return err
	}
	ranking := time.Now()
	a := classified{Model: v.info.Name, Version: v.info.Version}
	if a.Results, err = rankAll(answers[0].Data, len(pictures), v.info.Labels, top); err != nil {
		return err
	}
	if !several {
		a.Predictions, a.Results = a.Results[0].Predictions, nil
	}
	t.end = time.Now()
	t.output = t.end.Sub(ranking)
	return s.writeJSON(w, a)
}

// classified is the answer: predictions for one picture, results for a list of them.
type classified struct {
	Model       string        `json:"model_name"`
	Version     string        `json:"model_version"`
	Predictions []prediction  `json:"predictions,omitempty"`
	Results     []predictions `json:"results,omitempty"`
}

type predictions struct {
	Predictions []prediction `json:"predictions"`
}

// rankAll ranks the logits of n pictures.
func rankAll(data []byte, n int, labels []string, top int) (all []predictions, err error) {
	if len(data) == 0 || len(data)%(4*n) != 0 {
		return nil, fmt.Errorf("the model answered %d bytes for %d pictures", len(data), n)
	}
	logits := make([]float32, len(data)/4)
	if _, err := binary.Decode(data, binary.LittleEndian, logits); err != nil {
		return nil, err
	}
	for row := range slices.Chunk(logits, len(logits)/n) {
		best, err := rank(row, labels, top)
		if err != nil {
			return nil, err
		}
		all = append(all, predictions{best})
	}
	return all, nil
}

// rank returns the top classes.
func rank(logits []float32, labels []string, top int) ([]prediction, error) {
	if labels != nil && len(labels) != len(logits) {
		return nil, fmt.Errorf("the model answered %d values for %d labels", len(logits), len(labels))
	}
	peak := float32(math.Inf(-1))
	for i, x := range logits {
		if x != x || math.IsInf(float64(x), 1) {
			return nil, fmt.Errorf("the model's output %d is %v", i, x)
		}
		peak = max(peak, x)
	}
	sum := 0.
	for _, x := range logits {
		sum += math.Exp(float64(x) - float64(peak))
	}
	best := make([]prediction, 0, min(top, len(logits)))
	for _, i := range largest(logits, top) {
		p := prediction{Index: i, Probability: math.Exp(float64(logits[i])-float64(peak)) / sum}
		if labels != nil {
			p.Label = labels[i]
		}
		best = append(best, p)
	}
	return best, nil
}

// topOf reads ?k=.
func topOf(query string) (int, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return 0, badRequest("the query string is malformed")
	}
	switch ks := q["k"]; {
	case len(ks) == 0:
		return defaultTop, nil
	default:
		k, err := strconv.Atoi(ks[0])
		if len(ks) > 1 || err != nil || k < 1 || k > maxTop {
			return 0, badRequest("k is not one number from 1 to %d", maxTop)
		}
		return k, nil
	}
}
