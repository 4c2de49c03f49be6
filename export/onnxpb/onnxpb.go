// Package onnxpb is ONNX's protobuf schema as Go types, and nothing else.
// onnx.proto is the schema of the onnx package 1.23.2 (Apache-2.0, © ONNX
// Project Contributors) under another protobuf package name: the reason stands
// at its head.
package onnxpb

//go:generate ./generate.sh
