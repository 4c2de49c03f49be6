package arch

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Spec is a search space as its YAML file spells it (configs/space/*.yaml).
// [NewSpace] checks it and turns it into a [Space].
type Spec struct {
	Name  string `yaml:"name" json:"name"`
	About string `yaml:"about" json:"about,omitempty"`
	// Input is the image the space is defined for: channels, height, width.
	Input   [3]int   `yaml:"input,flow" json:"input"`
	Classes int      `yaml:"classes" json:"classes"`
	Init    InitRule `yaml:"init" json:"init"`
	Norm    NormSpec `yaml:"norm" json:"norm"`
	// Shuffle says how shuffle blocks wire their branches; absent where the
	// space has none.
	Shuffle    *ShuffleSpec    `yaml:"shuffle,omitempty" json:"shuffle,omitempty"`
	Stem       []LayerSpec     `yaml:"stem" json:"stem"`
	Candidates []CandidateSpec `yaml:"candidates" json:"candidates"`
	Stages     []StageSpec     `yaml:"stages" json:"stages"`
	Tail       []LayerSpec     `yaml:"tail" json:"tail"`
	Head       HeadSpec        `yaml:"head" json:"head"`
}

// InitRule names how weights start.
type InitRule string

// The rules. Norms start at gamma one; beta at 0.0001 under InitSPOS as the
// official code has it, and at zero under the others. A linear layer's weight
// is N(0, 0.01) and its bias zero, except under InitTorch.
const (
	InitSPOS    InitRule = "spos"    // stem N(0, 0.01), other convolutions N(0, 1/shape[1]), depthwise ones too
	InitKaiming InitRule = "kaiming" // convolutions N(0, √(2/fan_out)), fan_out counting a depthwise one's single group
	InitMMCV    InitRule = "mmcv"    // convolutions N(0, √(2/(k²·out))), depthwise ones too: mmcv's kaiming_init
	InitTorch   InitRule = "torch"   // everything uniform in ±1/√fan_in: what PyTorch's modules do by themselves
)

var initRules = []InitRule{InitSPOS, InitKaiming, InitMMCV, InitTorch}

// NormSpec sets every batch norm of the space.
type NormSpec struct {
	Eps      float64 `yaml:"eps" json:"eps"`
	Momentum float64 `yaml:"momentum" json:"momentum"`
	// SupernetAffine gives the supernet's norms gamma and beta. Stand-alone
	// nets always have them.
	SupernetAffine bool `yaml:"supernet_affine" json:"supernet_affine"`
}

// ShuffleSpec is the wiring of shuffle blocks. With projections of half the
// output all three wirings are the same function up to an order of channels;
// with those as wide as the input, deinterleave and main_first are.
type ShuffleSpec struct {
	// Wiring is "deinterleave" (at the entry of a stride-1 block even channels
	// pass and odd ones enter the main branch, which comes second at the exit;
	// official SPOS), "main_first" (even ones enter the main branch, which comes
	// first at the exit; ShunLu91's code for CIFAR-10) or "shuffle" (halves at
	// the entry, channel shuffle at every exit; mmrazor).
	Wiring string `yaml:"wiring" json:"wiring"`
	// Projection is the width of a stride-2 block's projection branch: "input"
	// (as many channels as enter; official) or "half" (half of those that
	// leave; mmrazor).
	Projection string `yaml:"projection" json:"projection"`
}

// LayerSpec is one fixed layer of the stem or the tail: a convolution with
// norm and activation, or a candidate block.
type LayerSpec struct {
	Out    int            `yaml:"out" json:"out"`
	Kernel int            `yaml:"kernel" json:"kernel,omitempty"`
	Stride int            `yaml:"stride" json:"stride,omitempty"`
	Act    string         `yaml:"act" json:"act,omitempty"`
	Block  *CandidateSpec `yaml:"block,omitempty" json:"block,omitempty"`
}

// CandidateSpec names one candidate block: a kind from the library of blocks
// and its attributes.
type CandidateSpec struct {
	Name   string `yaml:"name" json:"name"`
	Block  string `yaml:"block" json:"block"`
	Kernel int    `yaml:"kernel" json:"kernel,omitempty"`
	Expand int    `yaml:"expand" json:"expand,omitempty"`
	Act    string `yaml:"act" json:"act,omitempty"`
	// WidthScales makes one candidate of each number, NAME@NUMBER, whose middle
	// layers are that many times half the block's output wide. They share
	// tensors of the greatest width, of which each takes the leading channels
	// (SPOS, section 3.4).
	WidthScales []float64 `yaml:"width_scales,omitempty,flow" json:"width_scales,omitempty"`
}

// candidate is a CandidateSpec at one of its width scales.
type candidate struct {
	CandidateSpec
	scale float64
}

// StageSpec is a run of choice blocks of one width. The first has the stage's
// stride, the others stride one.
type StageSpec struct {
	Out    int `yaml:"out" json:"out"`
	Blocks int `yaml:"blocks" json:"blocks"`
	Stride int `yaml:"stride" json:"stride"`
	// Choices names the candidates of this stage; absent means all, in order. A
	// name without its @NUMBER means all of its widths.
	Choices []string `yaml:"choices,omitempty,flow" json:"choices,omitempty"`
	// FirstChoices are those of the stage's first block, where they differ.
	FirstChoices []string `yaml:"first_choices,omitempty,flow" json:"first_choices,omitempty"`
}

// HeadSpec is what follows the tail: global pool, dropout, linear.
type HeadSpec struct {
	Dropout float64 `yaml:"dropout" json:"dropout"`
	// SupernetDropout is the supernet's, where it differs.
	SupernetDropout *float64 `yaml:"supernet_dropout,omitempty" json:"supernet_dropout,omitempty"`
	Bias            bool     `yaml:"bias" json:"bias"`
}

// ErrSpec is wrapped by every error about a malformed [Spec].
var ErrSpec = errors.New("space is malformed")

// bounds of a specification that comes from a file: far above any published
// space, low enough that building it cannot exhaust memory.
const (
	maxSide       = 4096
	maxChannels   = 65536
	maxBlocks     = 512
	maxCandidates = 36
	maxWidthScale = 16
)

func (s *Spec) validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if s.Name == "" {
		bad("name: is missing")
	}
	for i, what := range []string{"channels", "height", "width"} {
		if s.Input[i] < 1 || s.Input[i] > maxSide {
			bad("input: %s %d is not in 1..%d", what, s.Input[i], maxSide)
		}
	}
	if s.Classes < 1 || s.Classes > maxChannels {
		bad("classes: %d is not in 1..%d", s.Classes, maxChannels)
	}
	if !slices.Contains(initRules, s.Init) {
		bad("init: %q is none of %v", s.Init, initRules)
	}
	if s.Norm.Eps <= 0 || s.Norm.Momentum <= 0 || s.Norm.Momentum > 1 {
		bad("norm: eps %g and momentum %g: eps must be positive, momentum in (0, 1]", s.Norm.Eps, s.Norm.Momentum)
	}
	if sh := s.Shuffle; sh != nil {
		if wirings := []string{wireDeinterleave, wireMainFirst, wireShuffle}; !slices.Contains(wirings, sh.Wiring) {
			bad("shuffle.wiring: %q is none of %v", sh.Wiring, wirings)
		}
		if sh.Projection != projectInput && sh.Projection != projectHalf {
			bad("shuffle.projection: %q is neither %q nor %q", sh.Projection, projectInput, projectHalf)
		}
	}
	for key, p := range map[string]*float64{"dropout": &s.Head.Dropout, "supernet_dropout": s.Head.SupernetDropout} {
		if p != nil && !(*p >= 0 && *p < 1) {
			bad("head.%s: %g is not in [0, 1)", key, *p)
		}
	}
	s.validateCandidates(bad)
	s.validateStages(bad)
	if len(errs) > 0 {
		return fmt.Errorf("space %q: %w: %w", s.Name, ErrSpec, errors.Join(errs...))
	}
	return nil
}

func (s *Spec) validateCandidates(bad func(string, ...any)) {
	if n := len(s.expanded()); n < 1 || n > maxCandidates {
		bad("candidates: %d of them; 1..%d are possible", n, maxCandidates)
	}
	seen := map[string]bool{}
	for i, c := range s.Candidates {
		if c.Name == "" || seen[c.Name] || strings.Contains(c.Name, "@") {
			bad("candidates[%d]: name %q is empty, used twice, or has an @", i, c.Name)
		}
		seen[c.Name] = true
		if err := c.validate(s.Shuffle != nil); err != nil {
			bad("candidates[%d] %q: %w", i, c.Name, err)
		}
	}
}

func (s *Spec) validateStages(bad func(string, ...any)) {
	layers := func(where string, ls []LayerSpec) {
		for i, l := range ls {
			if l.Out < 1 || l.Out > maxChannels || l.Stride < 0 || l.Stride > 2 {
				bad("%s[%d]: out %d or stride %d is out of range", where, i, l.Out, l.Stride)
			}
			if l.Block == nil && (l.Kernel < 1 || l.Kernel%2 == 0 || l.Kernel > 31) {
				bad("%s[%d]: kernel %d is not an odd number in 1..31", where, i, l.Kernel)
			}
			if _, err := parseAct(l.Act); err != nil {
				bad("%s[%d]: %w", where, i, err)
			}
			if l.Block != nil {
				if err := l.Block.validate(s.Shuffle != nil); err != nil {
					bad("%s[%d].block: %w", where, i, err)
				}
			}
		}
	}
	layers("stem", s.Stem)
	layers("tail", s.Tail)
	if len(s.Stages) == 0 {
		bad("stages: there are none")
	}
	total := 0
	for i, st := range s.Stages {
		total += max(st.Blocks, 0)
		if st.Out < 1 || st.Out > maxChannels || st.Blocks < 1 || st.Stride < 1 || st.Stride > 2 {
			bad("stages[%d]: out %d, blocks %d, stride %d: out and blocks must be positive, stride 1 or 2", i, st.Out, st.Blocks, st.Stride)
		}
		for key, names := range map[string][]string{"choices": st.Choices, "first_choices": st.FirstChoices} {
			for _, name := range names {
				if len(s.named(name)) == 0 {
					bad("stages[%d].%s: no candidate is called %q", i, key, name)
				}
			}
		}
	}
	if total > maxBlocks {
		bad("stages: %d choice blocks, more than %d", total, maxBlocks)
	}
}

func parseAct(name string) (Act, error) {
	if name == "" {
		return None, nil
	}
	if i := slices.Index(actNames[:], name); i >= 0 {
		return Act(i), nil
	}
	return None, fmt.Errorf("act: %q is none of %v", name, actNames)
}

// expanded is the candidates with each width scale one of its own.
func (s *Spec) expanded() []candidate {
	var all []candidate
	for _, c := range s.Candidates {
		all = append(all, c.expand()...)
	}
	return all
}

func (c CandidateSpec) expand() []candidate {
	if len(c.WidthScales) == 0 {
		return []candidate{{CandidateSpec: c}}
	}
	all := make([]candidate, len(c.WidthScales))
	for i, w := range c.WidthScales {
		all[i] = candidate{c, w}
		all[i].Name += "@" + strconv.FormatFloat(w, 'f', -1, 64)
	}
	return all
}

// named is the candidates that a name in a stage's choices stands for.
func (s *Spec) named(name string) []candidate {
	base, _, one := strings.Cut(name, "@")
	var all []candidate
	for _, c := range s.Candidates {
		if c.Name != base {
			continue
		}
		for _, e := range c.expand() {
			if !one || e.Name == name {
				all = append(all, e)
			}
		}
	}
	return all
}

// choices is the candidates of one block of a stage, in the order of their
// indices.
func (s *Spec) choices(st StageSpec, first bool) []candidate {
	names := st.Choices
	if first && st.FirstChoices != nil {
		names = st.FirstChoices
	}
	if names == nil {
		return s.expanded()
	}
	var cs []candidate
	for _, name := range names {
		cs = append(cs, s.named(name)...)
	}
	return cs
}
