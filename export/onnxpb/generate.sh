#!/bin/sh
# Writes onnx.pb.go from onnx.proto. PROTOC is the compiler: Debian's
# protobuf-compiler by default, or the one in Python's grpcio-tools:
# PROTOC='python3 -m grpc_tools.protoc'. Its version is no part of the result.
set -eu
${PROTOC:-protoc} --proto_path=. --plugin="protoc-gen-go=$(go tool -n protoc-gen-go)" \
	--go_out=. --go_opt=paths=source_relative --go_opt=Monnx.proto=spos/export/onnxpb onnx.proto
sed -i '/^\/\/ \tprotoc  */d' onnx.pb.go
