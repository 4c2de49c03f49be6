// Package oippb is the Open Inference Protocol's gRPC service as Go types, and nothing else.
package oippb

//go:generate ./generate.sh
