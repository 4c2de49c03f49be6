#!/bin/sh
# Writes the .pb.go files. PROTOC is the compiler, as for export/onnxpb.
set -eu
cd ..
${PROTOC:-protoc} --proto_path=. --plugin="protoc-gen-go=$(go tool -n protoc-gen-go)" \
	--plugin="protoc-gen-go-grpc=$(go tool -n protoc-gen-go-grpc)" \
	--go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative \
	oippb/model_config.proto oippb/service.proto
sed -i '/^\/\/ -* *protoc  */d;/^\/\/ \tprotoc  */d' oippb/*.pb.go
