package dialect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"spos/internal/arch"
)

// layer is one convolution with its norm and activation, or the linear layer,
// as a dialect needs to know it to name it.
type layer struct {
	op    *arch.Op
	alone bool // of a stand-alone net, not of the supernet

	part   string // stem, blocks, tail or head
	index  int    // of the stem's or the tail's layer, or of the choice block
	stage  int    // of a choice block
	place  int    // of a choice block in its stage
	nth    int    // of a choice block, counting only those with layers
	stages int    // of the space
	stems  int    // layers in the stem

	candidate string // its name
	choice    int    // its index, counting candidates that share their layers as one
	block     string // what it is built as: shuffle, xception, mbconv or identity
	branch    string // main or proj; empty outside of a block's branches
	n         int    // of the branch's convolutions
	slot      int    // in a torch.nn.Sequential of the branch's convolutions, norms and activations
}

// layers are the target's, each once.
func (t Target) layers() ([]layer, error) {
	if t.Arch != "" {
		n, err := t.Space.Net(t.Arch)
		if err != nil {
			return nil, err
		}
		return t.layersOf(n)
	}
	most := 0
	for i := range t.Space.Len() {
		most = max(most, len(t.Space.Candidates(i)))
	}
	var list []layer
	seen := map[string]bool{}
	for c := range most {
		choices := make([]int, t.Space.Len())
		for i := range choices {
			choices[i] = min(c, len(t.Space.Candidates(i))-1)
		}
		n, err := t.Space.Path(arch.Make(choices))
		if err != nil {
			return nil, err
		}
		ls, err := t.layersOf(n)
		if err != nil {
			return nil, err
		}
		for _, l := range ls {
			if !seen[l.op.Name] {
				seen[l.op.Name] = true
				list = append(list, l)
			}
		}
	}
	return list, nil
}

func (t Target) layersOf(n *arch.Net) ([]layer, error) {
	var list []layer
	slots, blocks := map[string]int{}, map[int]int{}
	spec := t.Space.Spec()
	for i := range n.Ops {
		o := &n.Ops[i]
		if o.Kind != arch.Conv && o.Kind != arch.Linear {
			continue
		}
		l := layer{op: o, alone: t.Arch != "", stages: len(spec.Stages), stems: len(spec.Stem)}
		if err := l.parse(t.Space); err != nil {
			return nil, err
		}
		if l.part == "blocks" {
			if _, ok := blocks[l.index]; !ok {
				blocks[l.index] = len(blocks)
			}
			l.nth = blocks[l.index]
		}
		if l.branch != "" {
			path := o.Name[:strings.LastIndexByte(o.Name, '.')]
			l.slot = slots[path]
			slots[path] += 2
			if o.Act != arch.None {
				slots[path]++
			}
		}
		list = append(list, l)
	}
	return list, nil
}

// parse takes an op's name apart: stem.1.main.0, blocks.3.mb_k3e6.proj.1,
// blocks.4.identity.0, tail.0, head.
func (l *layer) parse(s *arch.Space) error {
	fields := strings.Split(l.op.Name, ".")
	l.part = fields[0]
	if l.part == "head" {
		return nil
	}
	unknown := fmt.Errorf("dialect: op name %q is in no known form", l.op.Name)
	if len(fields) < 2 {
		return unknown
	}
	var err error
	if l.index, err = strconv.Atoi(fields[1]); err != nil {
		return unknown
	}
	rest := fields[2:]
	if k := len(rest); k > 0 {
		if l.n, err = strconv.Atoi(rest[k-1]); err != nil {
			return unknown
		}
		rest = rest[:k-1]
	}
	if k := len(rest); k > 0 && (rest[k-1] == "main" || rest[k-1] == "proj") {
		l.branch, rest = rest[k-1], rest[:k-1]
	}
	l.candidate = strings.Join(rest, ".")
	l.resolve(s)
	return nil
}

// resolve looks up the candidate.
func (l *layer) resolve(s *arch.Space) {
	spec := s.Spec()
	if l.part != "blocks" {
		ls := spec.Stem
		if l.part == "tail" {
			ls = spec.Tail
		}
		if b := ls[l.index].Block; b != nil {
			l.candidate, l.block = b.Name, b.Block
		}
		return
	}
	l.stage = s.Stage(l.index)
	for i := l.index - 1; i >= 0 && s.Stage(i) == l.stage; i-- {
		l.place++
	}
	var bases []string
	for _, name := range s.Candidates(l.index) {
		if base, _, _ := strings.Cut(name, "@"); !slices.Contains(bases, base) {
			bases = append(bases, base)
		}
	}
	l.choice = slices.Index(bases, l.candidate)
	for _, c := range spec.Candidates {
		if c.Name == l.candidate {
			l.block = c.Block
		}
	}
}

// sequential is the paths of a convolution and its norm that follow one
// another in a torch.nn.Sequential.
func sequential(path string, slot int) (conv, norm string) {
	return fmt.Sprintf("%s.%d", path, slot), fmt.Sprintf("%s.%d", path, slot+1)
}

// chosen is the path of a choice block in a list of blocks: of a supernet the
// list holds lists of candidates.
func (l layer) chosen() string {
	if l.alone {
		return strconv.Itoa(l.index)
	}
	return fmt.Sprintf("%d.%d", l.index, l.choice)
}

// single tells whether the layer is the only one of the stem or the tail.
func (l layer) single(part string) bool { return l.part == part && l.index == 0 && l.branch == "" }

// shuffled tells whether the layer belongs to a branch of a shuffle block.
func (l layer) shuffled() bool { return l.block == "shuffle" || l.block == "xception" }
