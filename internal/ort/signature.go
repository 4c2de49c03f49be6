package ort

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Info describes one input or output of a model.
type Info struct {
	Name string
	Type Type
	// Shape has -1 for an extent that is free, is empty for a scalar, and nil
	// where not even the rank is known.
	Shape []int64
	// Symbols names the free extents, "" where one has no name (and for the
	// fixed ones). Extents of one name are equal in a run.
	Symbols []string
}

// signature is what a model file says of itself outside its nodes.
type signature struct {
	in, out []Info
	opset   int64 // of the default operator set; 0 where none is imported
	weights Type  // of most bytes of initializers
}

// The field numbers of onnx.proto that are read here.
const (
	modelGraph, modelOpset              = 7, 8
	opsetDomain, opsetVersion           = 1, 2
	graphInit, graphIn, graphOut        = 5, 11, 12
	graphSparse, sparseValues, tensName = 15, 1, 8
	tensType                            = 2
	valueName, valueType                = 1, 2
	typeTensor                          = 1
	tensorElem, tensorShape, shapeDim   = 1, 2, 1
	dimValue, dimParam                  = 1, 2
)

var errNotONNX = errors.New("ort: not an ONNX model")

// scan reads the signature out of a serialised ModelProto. The library tells
// the same, but through this binding only from a second session made for the
// purpose, and without the symbols.
func scan(model []byte) (signature, error) {
	var s signature
	var graph []byte
	err := fields(model, func(n protowire.Number, b []byte, _ uint64) error {
		switch n {
		case modelGraph:
			graph = b
		case modelOpset:
			return s.scanOpset(b)
		}
		return nil
	})
	if err != nil {
		return signature{}, err
	}
	if graph == nil {
		return signature{}, fmt.Errorf("%w: it has no graph", errNotONNX)
	}
	return s, s.scanGraph(graph)
}

func (s *signature) scanOpset(b []byte) error {
	var domain string
	var version uint64
	err := fields(b, func(n protowire.Number, b []byte, v uint64) error {
		switch n {
		case opsetDomain:
			domain = string(b)
		case opsetVersion:
			version = v
		}
		return nil
	})
	if domain == "" || domain == "ai.onnx" {
		s.opset = int64(version)
	}
	return err
}

func (s *signature) scanGraph(graph []byte) error {
	weights := map[string]bool{}
	size := map[Type]int{}
	tensor := func(b []byte) error {
		var t Type
		err := fields(b, func(n protowire.Number, b []byte, v uint64) error {
			switch n {
			case tensName:
				weights[string(b)] = true
			case tensType:
				t = typeOfProto(v)
			}
			return nil
		})
		if size[t] += len(b); size[t] > size[s.weights] && t != Undefined {
			s.weights = t
		}
		return err
	}
	var in []Info
	err := fields(graph, func(n protowire.Number, b []byte, _ uint64) error {
		switch n {
		case graphInit:
			return tensor(b)
		case graphSparse:
			return fields(b, func(n protowire.Number, b []byte, _ uint64) error {
				if n != sparseValues {
					return nil
				}
				return tensor(b)
			})
		case graphIn:
			i, err := scanValue(b)
			in = append(in, i)
			return err
		case graphOut:
			o, err := scanValue(b)
			s.out = append(s.out, o)
			return err
		}
		return nil
	})
	// An initializer may be listed as an input with a default: not ours to give.
	for _, i := range in {
		if !weights[i.Name] {
			s.in = append(s.in, i)
		}
	}
	return err
}

func scanValue(b []byte) (Info, error) {
	var info Info
	err := fields(b, func(n protowire.Number, b []byte, _ uint64) error {
		switch n {
		case valueName:
			info.Name = string(b)
		case valueType:
			return fields(b, func(n protowire.Number, b []byte, _ uint64) error {
				if n != typeTensor {
					return nil // a sequence, a map: Type stays Undefined
				}
				return info.scanTensor(b)
			})
		}
		return nil
	})
	return info, err
}

func (i *Info) scanTensor(b []byte) error {
	return fields(b, func(n protowire.Number, b []byte, v uint64) error {
		switch n {
		case tensorElem:
			i.Type = typeOfProto(v)
		case tensorShape:
			i.Shape, i.Symbols = []int64{}, []string{}
			return fields(b, func(n protowire.Number, b []byte, _ uint64) error {
				if n != shapeDim {
					return nil
				}
				return i.scanDim(b)
			})
		}
		return nil
	})
}

func (i *Info) scanDim(b []byte) error {
	extent, symbol := int64(-1), ""
	err := fields(b, func(n protowire.Number, b []byte, v uint64) error {
		switch n {
		case dimValue:
			extent = int64(v)
		case dimParam:
			symbol = string(b)
		}
		return nil
	})
	i.Shape = append(i.Shape, extent)
	i.Symbols = append(i.Symbols, symbol)
	return err
}

// fields calls f with every field of a serialised message: its bytes or its
// integer, whichever it has.
func fields(b []byte, f func(n protowire.Number, b []byte, v uint64) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errNotONNX, protowire.ParseError(n))
		}
		b = b[n:]
		var data []byte
		var v uint64
		switch typ {
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d: %w", errNotONNX, num, protowire.ParseError(n))
		}
		b = b[n:]
		if err := f(num, data, v); err != nil {
			return err
		}
	}
	return nil
}
