package ort

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrExternal is wrapped by errors about a model that keeps weights in files beside it where only its own bytes were
// given: the library would look for them in the directory that the program happens to be in.
var ErrExternal = errors.New("ort: the model keeps weights in other files")

// part is a message of onnx.proto that tensors lie in, as the fields that lead to them.
type part map[protowire.Number]*part

var (
	tensorPart = &part{} // where the search ends
	sparsePart = &part{1: tensorPart, 2: tensorPart}
	attrPart   = &part{5: tensorPart, 10: tensorPart, 22: sparsePart, 23: sparsePart}
	nodePart   = &part{5: attrPart}
	graphPart  = &part{1: nodePart, 5: tensorPart, 15: sparsePart}
	modelPart  = &part{7: graphPart, 25: {7: nodePart, 11: attrPart}}
)

const (
	attrGraph, attrGraphs          = 6, 11
	tensorExternal, tensorLocation = 13, 14
	maxNesting                     = 100 // the library's protobuf reads no deeper
)

// checkInternal reports a tensor anywhere in a model, bodies of loops and functions included, that is not in it.
func checkInternal(model []byte) error { return modelPart.check(model, 0) }

func (p *part) check(b []byte, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("%w: it nests more than %d deep", errNotONNX, maxNesting)
	}
	return fields(b, func(n protowire.Number, b []byte, v uint64) error {
		if p == tensorPart {
			if n == tensorExternal || n == tensorLocation && v != 0 {
				return ErrExternal
			}
			return nil
		}
		inner := (*p)[n]
		if p == attrPart && (n == attrGraph || n == attrGraphs) {
			inner = graphPart // written here, for a variable cannot refer to itself
		}
		if inner == nil {
			return nil
		}
		return inner.check(b, depth+1)
	})
}
