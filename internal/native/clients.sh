#!/usr/bin/env bash
# Runs the clients and judges of the server that others wrote, and shows which of
# them passed, failed or were skipped, and why. What they need is installed into
# the user's cache, once, each in a place of its own.
set -uo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/spos
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# provide FILE COMMAND… runs the command unless there is the file that it makes.
# What cannot be made is missing, and its tests say so.
provide() {
	local file=$1
	shift
	[[ -e $file ]] && return
	echo "making $file" >&2
	(set -e; "$@") >"$log" 2>&1 && [[ -e $file ]] && return
	echo "  not made: $(grep -iE 'error|no |not ' "$log" | tail -n 1)" >&2
	return 1
}

venv() {
	python3 -m venv --clear "$1"
	"$1/bin/python" -m pip install -q "${@:2}"
}

# The program's own wheels ask for glibc 2.38. An older client's wheel holds one
# that does not, but asks for two libraries besides.
perf_analyzer() {
	local dir=$1
	if venv "$dir" 'perf-analyzer>=2.58'; then
		ln -sf bin/perf_analyzer "$dir/perf_analyzer"
		return
	fi
	venv "$dir" nvidia-cuda-runtime-cu12
	"$dir/bin/python" -m pip install -q --no-deps tritonclient==2.50.0
	(cd "$dir" && apt-get -q download libb64-0d && dpkg -x libb64-0d_*.deb .)
	cat >"$dir/perf_analyzer" <<-END
		#!/bin/sh
		export LD_LIBRARY_PATH=$(dirname "$(find "$dir" -name 'libcudart.so*' | head -n 1)"):$(dirname "$(find "$dir" -name 'libb64.so*' | head -n 1)")
		exec $dir/bin/perf_analyzer "\$@"
	END
	chmod +x "$dir/perf_analyzer"
}

peers=$cache/peers/bin/python
provide "$peers" make -s peers
if [[ -e $peers ]] && ! "$peers" -c 'import tritonclient.grpc' 2>/dev/null; then # of an older list
	"$peers" -m pip install -q -r internal/native/peers
fi
provide "$cache/peers/bin/schemathesis" make -s "$cache/peers/bin/schemathesis"
provide "$cache/kserve/bin/python" venv "$cache/kserve" kserve==0.21.0
provide "$cache/perf/perf_analyzer" perf_analyzer "$cache/perf"
provide "$cache/promtool/promtool" make -s "$cache/promtool/promtool"
provide "$cache/h2spec/h2spec" env GOBIN="$cache/h2spec" go install "github.com/summerwind/h2spec/cmd/h2spec@${H2SPEC:-v2.2.1+incompatible}"

# name VARIABLE FILE points the tests to a program, if it is there.
name() { if [[ -e $2 ]]; then export "$1=$2"; fi; }
name SPOS_PYTHON "$peers"
name SPOS_SCHEMATHESIS "$cache/peers/bin/schemathesis"
name SPOS_KSERVE "$cache/kserve/bin/python"
name SPOS_PERF_ANALYZER "$cache/perf/perf_analyzer"
name SPOS_PROMTOOL "$cache/promtool/promtool"
name SPOS_H2SPEC "$cache/h2spec/h2spec"

go test -count=1 -v -run '^Test(OfficialClient.*|KServeClient|PerfAnalyzer|Schemathesis|Promtool|H2spec|PageInBrowser|Readme.*)$' \
	./serve ./cmd/internal/cli 2>&1 | awk '
	BEGIN {
		what["OfficialClient"] = "tritonclient, HTTP"
		what["OfficialClientExtensions"] = "tritonclient, HTTP: extensions, asynchronous"
		what["OfficialClientControls"] = "tritonclient, HTTP: loading and unloading"
		what["OfficialClientRPC"] = "tritonclient, gRPC: synchronous, asynchronous, streams"
		what["KServeClient"] = "kserve, REST and gRPC"
		what["PerfAnalyzer"] = "perf_analyzer, HTTP and gRPC"
		what["Schemathesis"] = "schemathesis over the OpenAPI document"
		what["Promtool"] = "promtool check metrics"
		what["H2spec"] = "h2spec over TLS"
		what["PageInBrowser"] = "the page in a headless Chromium"
		what["ReadmeClients"] = "the examples of the README"
		word["PASS:"] = "passed"; word["FAIL:"] = "failed"; word["SKIP:"] = "skipped"
		row = "%-56s %-8s %8s  %s\n"
		printf row, "CLIENT", "RESULT", "TIME", "WHY"
	}
	/^--- (PASS|FAIL|SKIP): Test/ {
		test = substr($3, 5)
		why = $2 == "PASS:" ? "" : reason
		printf row, (test in what) ? what[test] : test, word[$2], substr($4, 2, length($4) - 2), substr(why, 1, 160)
		failed = failed || $2 ~ /FAIL/
		reason = ""
	}
	/^    [a-z_0-9]+\.go:[0-9]+: / { sub(/^ *[^ ]+ /, ""); reason = $0 }
	/^(FAIL|panic:)/ { failed = 1; if (/build failed|panic/) print }
	{ lines[NR] = $0 }
	END {
		if (failed) for (i = 1; i <= NR; i++) print lines[i] > "/dev/stderr"
		exit failed
	}'
