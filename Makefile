# make              builds bin/spos and bin/spos-edge
# make quickstart   trains, searches, exports and serves on Fashion-MNIST
# make test         runs every test; make check adds format, lint and walls

SHELL      := bash
.SHELLFLAGS = -eu -o pipefail -c

GO       ?= go
VERSION  := $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)
STAMP     = -X spos/cmd/internal/cli.Version=$(VERSION)
NATIVE    = . .native/env.sh;
LINT      = $(GO) tool -modfile=tools/go.mod golangci-lint
FUZZTIME ?= 20s
H2SPEC   ?= v2.2.1+incompatible
BENCH    ?= .

# A Python with the projects that ours is compared with: tests that need one
# skip without it.
PEERS     = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/spos/peers
export SPOS_PYTHON ?= $(wildcard $(PEERS)/bin/python)

# Packages with tests. The race detector sees nothing of native threads, so what
# links libtorch runs without it, and so does export, whose tests multiply whole
# networks in plain Go on one goroutine.
TESTED    = $(GO) list -test -f '{{.ImportPath}} {{join .Deps " "}}' ./... | sed -n 's/^\([^ ]*\)\.test /\1 /p'
RACELESS  = $(TESTED) | awk '/wangkuiyi\/gotorch/ || $$1 == "spos/export" {print $$1}'
RACING    = $(TESTED) | awk '!/wangkuiyi\/gotorch/ && $$1 != "spos/export" {print $$1}'

.PHONY: all native peers build quickstart test clients conformance promtool check format vet modern lint generated torchless edge fuzz bench originals soak-serve fmt generate clean agents-chaos agents-clock agents-pair latency-table-proof

all: build

# Finds or fetches libtorch and ONNX Runtime and writes .native/env.sh.
native:
	@internal/native/native.sh

peers: $(PEERS)/made

$(PEERS)/made: internal/native/peers
	python3 -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install -q -r internal/native/peers
	touch $@

$(PEERS)/bin/schemathesis: internal/native/conformance $(PEERS)/made
	$(PEERS)/bin/python -m pip install -q -r $<
	touch $@

# Prometheus's own checker, held against what /metrics answers. It takes minutes
# to build, once.
PROMTOOL = $(dir $(PEERS))promtool/promtool

promtool: $(PROMTOOL)
	SPOS_PROMTOOL=$(PROMTOOL) $(GO) test -count=1 -v -run '^TestPromtool$$' ./serve

$(PROMTOOL):
	GOBIN=$(@D) GOFLAGS=-tags=remove_all_sd $(GO) install github.com/prometheus/prometheus/cmd/promtool@v0.316.0

build: native
	$(NATIVE) $(GO) build -ldflags "$$SPOS_LDFLAGS $(STAMP)" -o bin/ ./cmd/spos
	$(GO) build -ldflags "$(STAMP)" -o bin/ ./cmd/spos-edge

quickstart: build
	bin/spos quickstart --work-dir work/quickstart

test: native
	$(NATIVE) packages=$$($(RACING)); $(GO) test -race -ldflags= $$packages
	$(NATIVE) packages=$$($(RACELESS)); $(GO) test $$packages

check: format vet modern lint generated torchless test

# Every client and judge of the server that others wrote, in one table: it
# installs them into the user's cache, and says which could not be.
clients:
	@internal/native/clients.sh

# Programs that others wrote judge the server.
conformance: $(PEERS)/bin/schemathesis
	SPOS_PYTHON=$(PEERS)/bin/python SPOS_SCHEMATHESIS=$< $(GO) test -count=1 -run 'OfficialClient|Schemathesis' ./serve

format:
	@$(LINT) fmt --diff | sed -n 's/^+++ /not formatted: /p' || { echo "mend with: make fmt"; exit 1; }

vet:
	$(GO) vet ./...

# What a newer Go says in fewer words.
modern:
	$(GO) fix -diff ./...

lint:
	$(LINT) run

generated:
	@if command -v $(firstword $(or $(PROTOC),protoc)) >/dev/null; then \
		$(GO) generate ./... && git diff --exit-code -- '*.pb.go'; \
	else echo "generated: skipped, no protoc (apt-get install protobuf-compiler)"; fi

# spos-edge must build and start where no libtorch is.
torchless:
	@deps=$$($(GO) list -deps ./cmd/spos-edge | grep -E 'gotorch|^spos/supernet' || true); \
		test -z "$$deps" || { echo "spos-edge reaches libtorch through:" $$deps; exit 1; }
	env -u LIBRARY_PATH -u GOFLAGS $(GO) build -ldflags "$(STAMP)" -o bin/ ./cmd/spos-edge
	bin/spos-edge --version

# The program for boards: one file each, that needs a C library and ONNX Runtime.
# Built from the same commit by the same compilers they are the same bytes.
edge: bin/spos-edge-linux-amd64 bin/spos-edge-linux-arm64

.PHONY: bin/spos-edge-linux-amd64 bin/spos-edge-linux-arm64 edge-arm64-proof openvino

bin/spos-edge-linux-amd64: GOARCH = amd64
bin/spos-edge-linux-amd64: CROSS  = x86_64-linux-gnu
bin/spos-edge-linux-arm64: GOARCH = arm64
bin/spos-edge-linux-arm64: CROSS  = aarch64-linux-gnu
bin/spos-edge-linux-amd64 bin/spos-edge-linux-arm64:
	@command -v $(CROSS)-gcc >/dev/null || { echo "no $(CROSS)-gcc; install it with:" \
		"apt-get install gcc-$(subst _,-,$(CROSS)) libc6-dev-$(GOARCH)-cross"; exit 1; }
	@deps=$$($(GO) list -deps ./cmd/spos-edge | grep -E 'gotorch|^spos/supernet' || true); \
		test -z "$$deps" || { echo "spos-edge reaches libtorch through:" $$deps; exit 1; }
	env -u LIBRARY_PATH -u GOFLAGS CGO_ENABLED=1 GOOS=linux GOARCH=$(GOARCH) CC=$(CROSS)-gcc \
		$(GO) build -trimpath -buildvcs=false -ldflags "-s -w $(STAMP)" -o $@ ./cmd/spos-edge
	@echo "$@: $$(stat -c %s $@) bytes, needs$$($(CROSS)-readelf -d $@ | sed -n 's/.*NEEDED.*\[\(.*\)\]/ \1/p' | tr -d '\n')," \
		"$$($(CROSS)-objdump -T $@ | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)"

# That the arm64 program works, under emulation: what it says of time is nothing.
edge-arm64-proof: bin/spos-edge-linux-arm64
	@command -v qemu-aarch64-static >/dev/null || { echo "no qemu-aarch64-static; install it with:" \
		"apt-get install qemu-user-static libstdc++6-arm64-cross"; exit 1; }
	library=$$(internal/native/native.sh library onnxruntime aarch64); \
		SPOS_ARM64=$(CURDIR)/$< SPOS_ARM64_ONNXRUNTIME=$$library \
		$(GO) test -ldflags "$(STAMP)" -count=1 -v -run '^TestARM64' ./cmd/spos-edge

# Measures on an execution provider other than the processor's.
openvino:
	library=$$(internal/native/native.sh library onnxruntime-openvino x86_64); \
		SPOS_OPENVINO=$$library $(GO) test -count=1 -v -run '^TestOpenVINO$$' ./cmd/spos-edge

# Kills a broker, an agent and a searcher fifty times during 300 measurements:
# made up, so that the table is known beforehand, and by ONNX Runtime.
agents-chaos:
	SPOS_CHAOS=50 $(GO) test -count=1 -race -v -run '^TestChaos$$' ./latency
	SPOS_CHAOS=50 $(GO) test -count=1 -v -timeout 30m -run '^TestKills$$' ./cmd/spos-edge

# Sets the clocks of a broker, an agent and a searcher on and back while they
# measure. They run under emulation (apt-get install qemu-user libfaketime).
agents-clock:
	SPOS_CLOCK=1 $(GO) test -count=1 -v -timeout 30m -run '^TestClocks$$' ./cmd/spos-edge

# Two agents, each on a processor of its own, against one: what they take for a
# thousand candidates. It wants a quiet machine with two processors.
agents-pair:
	SPOS_PAIR=1000 $(GO) test -count=1 -v -timeout 30m -run '^TestPair$$' ./cmd/spos-edge

# Tables of two spaces, audited on nets that were held out. Forty minutes; ended,
# it goes on from work/latency-table.
TABLE_SESSIONS ?= 6,36

latency-table-proof:
	mkdir -p work/latency-table
	SPOS_TABLE_SESSIONS=$(TABLE_SESSIONS) SPOS_TABLE_DIR=$(CURDIR)/work/latency-table \
		$(GO) test -run '^$$' -bench TableProof -benchtime 1x -timeout 60m ./cmd/internal/cli

fuzz: native
	@$(NATIVE) grep -rl --include='*_test.go' '^func Fuzz' . | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$file); do \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s ./$$(dirname $$file) || exit 1; \
		done; \
	done

bench: native
	$(NATIVE) $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

# Full-size checkpoints of every published code base, by a Python with torch
# that SPOS_TORCH_PYTHON names, imported and compared. Takes minutes.
originals: native
	@test -n "$(SPOS_TORCH_PYTHON)" || { echo "name a Python with torch: make originals SPOS_TORCH_PYTHON=PATH"; exit 1; }
	$(NATIVE) $(GO) test -run TestOriginals -v -timeout 60m ./supernet ./cmd/spos

# A server and the same model in this process, under load from outside, for
# ten minutes; see docs/lab.md.
bench-serve:
	mkdir -p work
	$(GO) test -run '^Test(Overload|Measure)$$' -v -timeout 60m ./serve/internal/load -measure -report $(CURDIR)/work/bench-serve.json

# A thousand reloads under load, and a million requests: nothing fails, and
# memory stays level.
soak-serve:
	SPOS_SOAK=1000 $(GO) test -run ReloadsUnderLoad -v -timeout 30m ./serve
	$(GO) test -run ManyRequests -v -timeout 60m ./serve/internal/load -requests 1000000

.PHONY: latency-repeat latency-screening

# Do repeats in other processes at other times give the same latencies? NETS
# random nets a space are measured TIMES times, in turns: nets below 2 ms, and of
# 4 to 10 ms, for which those of a space see pictures of several sizes. LOAD=1
# loads another processor meanwhile; SESSIONS=1 is a screening; KEEP=DIR keeps
# the measurements with their samples, so that another estimate can be tried on
# them. Two or three minutes each time.
SPACES   ?= nasbench-macro shufflenetv2-spos@160,184,208,232,256
NETS     ?= 40
SESSIONS ?= 6
TIMES    ?= 2

latency-repeat:
	SPOS_REPEAT="$(SPACES)" SPOS_NETS=$(NETS) SPOS_SESSIONS=$(SESSIONS) SPOS_TIMES=$(TIMES) SPOS_WITH_LOAD=$(LOAD) SPOS_KEEP="$(abspath $(KEEP))" \
		$(GO) test -count=1 -v -timeout 30m -run '^TestLatencyRepeat$$' ./cmd/internal/cli

# Seconds of one screening, export and session included.
latency-screening:
	$(GO) test -run '^$$' -bench '^BenchmarkScreening$$' -benchtime 20x ./cmd/internal/cli

.PHONY: telemetry readonly h2spec deploy fleet-chaos

# The server of a process of its own: what it says to the world in 20 seconds,
# and that it needs to write nowhere and be nobody.
telemetry: native
	$(NATIVE) SPOS_TELEMETRY=20 $(GO) test -count=1 -v -run '^TestTelemetry$$' ./cmd/spos-edge

readonly: native
	$(NATIVE) SPOS_READONLY=1 $(GO) test -count=1 -v -run '^TestReadOnly$$' ./cmd/spos-edge

h2spec:
	GOBIN=$(CURDIR)/bin $(GO) install github.com/summerwind/h2spec/cmd/h2spec@$(H2SPEC)
	SPOS_H2SPEC=$(CURDIR)/bin/h2spec $(GO) test -count=1 -v -run '^TestH2spec$$' ./serve

# Broker, worker and asker are killed 50 times each during 300 jobs, and a
# worker is cut off in a network namespace of its own, which takes root: no
# answer is lost, none is counted twice.
fleet-chaos:
	SPOS_FLEET_CHAOS=50 $(GO) test -race -count=1 -v -timeout 30m -run '^Test(Kills|Split)' ./internal/fleet

# Everything under docs/deploy that a tool on this machine knows how to check.
deploy:
	docs/deploy/check

fmt:
	$(LINT) fmt

generate:
	$(GO) generate ./...

clean:
	rm -rf bin .native
