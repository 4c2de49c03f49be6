#!/usr/bin/env bash
# Builds the native layer: finds or fetches libtorch and ONNX Runtime, compiles
# gotorch's C++ and ours against that libtorch, and writes .native/env.sh, which
# is all that `go build` needs to know.
#
# Everything made lies in the user's cache, under names that hold its content's
# key, so a second checkout only looks things up. Inputs from the environment:
#   LIBTORCH          a directory with include/ and lib/ to use as libtorch
#   SPOS_ONNXRUNTIME  the path of a libonnxruntime.so to use
#   XDG_CACHE_HOME    where the cache is (default ~/.cache)
#   CXX, PYTHON       the compiler (g++) and the interpreter (python3)
#
# `native.sh library NAME ARCH` builds nothing: it finds or fetches the ONNX
# Runtime of another pinned wheel, or of another machine, and prints its path.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
pins=$here/pins
csrc=$root/supernet/internal/torchx/csrc
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/spos
cxx=${CXX:-g++}
python=${PYTHON:-python3}
arch=$(uname -m)

say() { printf 'native: %s\n' "$*" >&2; }
die() { printf 'native: %s\n' "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 is missing; install it with: $2"; }
digest() { sha256sum | cut -c1-16; }
has_cuda() {
	[[ -e /proc/driver/nvidia/version || -d /usr/local/cuda ]] || command -v nvidia-smi >/dev/null
}

# publish TMP DIR: makes DIR appear whole or not at all.
publish() { mv -T "$1" "$2" 2>/dev/null || [[ -d $2 ]] || die "cannot write $2"; }

pinned() { sed -n "s/^$1==\([^ ]*\) .*/\1/p" "$pins"; }

# fetch DIR KEEP DROP NAME…: downloads the pinned wheels NAME… and unpacks into
# DIR the members that match KEEP and do not match DROP (Python patterns).
fetch() {
	local dir=$1 keep=$2 drop=$3 tmp name m platforms=()
	shift 3
	need "$python" "apt-get install python3 python3-pip"
	"$python" -m pip --version >/dev/null 2>&1 || die "pip is missing; install it with: apt-get install python3-pip"
	tmp=$(mktemp -d "$cache/tmp.XXXXXX")
	for name in "$@"; do grep "^$name==" "$pins"; done >"$tmp/requirements.txt"
	for m in {5..39}; do platforms+=(--platform "manylinux_2_${m}_$arch"); done
	say "downloading $*$([[ $1 != torch ]] || echo ' (540 MB; with CUDA, several GB)')"
	"$python" -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --require-hashes --no-cache-dir \
		--implementation cp --python-version 3.11 --abi cp311 "${platforms[@]}" --platform "manylinux2014_$arch" \
		--dest "$tmp/wheels" -r "$tmp/requirements.txt" ||
		die "cannot download $*; without a network, set LIBTORCH and SPOS_ONNXRUNTIME, or copy $cache from a machine that has it"
	"$python" - "$tmp/out" "$keep" "$drop" "$tmp"/wheels/*.whl <<-'PY'
		import re, sys, zipfile
		out, keep, drop, *wheels = sys.argv[1:]
		for wheel in wheels:
		    with zipfile.ZipFile(wheel) as z:
		        z.extractall(out, [n for n in z.namelist() if re.search(keep, n) and not re.search(drop, n)])
	PY
	publish "$tmp/out" "$dir"
	rm -rf "$tmp"
}

# torch_version DIR: the version that DIR's headers declare, or nothing.
torch_version() {
	local part v=()
	for part in MAJOR MINOR PATCH; do
		v+=("$(sed -n "s/^#define TORCH_VERSION_$part \([0-9]*\).*/\1/p" \
			"$1"/include/torch/headeronly/version.h "$1"/include/torch/csrc/api/include/torch/version.h 2>/dev/null | head -n 1)")
	done
	[[ -z ${v[0]} ]] || (IFS=. && echo "${v[*]}")
}

# unfound FILE: the shared libraries that FILE needs and does not find.
unfound() { ldd "$1" | sed -n 's/^\s*\(\S*\) => not found/\1/p' | tr '\n' ' '; }

# unusable DIR: says why DIR cannot serve as libtorch; silent when it can.
unusable() {
	local version missing
	version=$(torch_version "$1")
	[[ -n $version ]] || { echo "it has no torch headers under include/"; return; }
	[[ -f $1/lib/libtorch_cpu.so ]] || { echo "it has no lib/libtorch_cpu.so"; return; }
	[[ $(printf '2.4.0\n%s\n' "$version" | sort -V | head -n 1) == 2.4.0 ]] || { echo "its version $version is older than 2.4"; return; }
	missing=$(unfound "$1/lib/libtorch_cpu.so")
	[[ -z $missing ]] || echo "libtorch_cpu.so does not find $missing"
}

# find_torch sets torch (the directory) and origin (how it was found).
find_torch() {
	local why
	if [[ -n ${LIBTORCH:-} ]]; then
		torch=$(realpath "$LIBTORCH") origin=LIBTORCH
		why=$(unusable "$torch")
		[[ -z $why ]] || die "LIBTORCH=$LIBTORCH cannot be used: $why"
		return
	fi
	# find_spec locates the package without running its several seconds of imports.
	torch=$("$python" -c 'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] if s else "")' 2>/dev/null || true)
	if [[ -n $torch ]]; then
		origin=python
		why=$(unusable "$torch")
		if [[ -z $why && ! -f $torch/lib/libtorch_cuda.so ]] && has_cuda; then
			why="it has no CUDA, and this machine does (LIBTORCH=$torch takes it all the same)"
		fi
		[[ -n $why ]] || return 0
		say "passing over the Python torch in $torch: $why"
	fi
	local kind=cpu keep='^torch/(lib|include)/|^nvidia/.*/lib/lib(cudart|cupti)\.so' drop='libtorch_(cuda|python|nvshmem)|libc10_cuda|libcaffe2_nvrtc'
	local wheels=(torch nvidia-cuda-runtime nvidia-cuda-cupti)
	if has_cuda; then
		kind=cuda keep='^torch/(lib|include)/|^nvidia/.*/(lib|include)/' drop='libtorch_python'
		mapfile -t wheels < <(sed -n 's/^\(torch\|nvidia-[^=]*\)==.*/\1/p' "$pins")
	fi
	origin=wheel
	local dir
	dir=$cache/libtorch-$(pinned torch)-$arch-$kind
	[[ -d $dir ]] || fetch "$dir" "$keep" "$drop" "${wheels[@]}"
	torch=$dir/torch
	why=$(unusable "$torch")
	[[ -z $why ]] || die "the libtorch in $dir cannot be used: $why; remove that directory and try again"
}

# library NAME KEEP sets ort to the libonnxruntime of the pinned wheel NAME, of
# which the members that match KEEP are kept. Only the plain wheel's directory
# has a name that programs look for by themselves.
library() {
	local dir
	dir=$cache/${1#onnxruntime-}-$(pinned "$1")-$arch
	[[ -d $dir ]] || fetch "$dir" "$2|^onnxruntime/(LICENSE|ThirdParty)" '^$' "$1"
	ort=$(find "$dir" -name 'libonnxruntime.so*' | head -n 1)
	[[ -n $ort ]] || die "$dir holds no libonnxruntime.so; remove that directory and try again"
}

# find_onnxruntime sets ort, the path of the shared library.
find_onnxruntime() {
	# One of ours is what an earlier env.sh named: the pins decide anew.
	if [[ -n ${SPOS_ONNXRUNTIME:-} && $SPOS_ONNXRUNTIME != "$cache"/* ]]; then
		[[ -f $SPOS_ONNXRUNTIME ]] || die "SPOS_ONNXRUNTIME=$SPOS_ONNXRUNTIME is not a file; name the libonnxruntime.so itself"
		ort=$(realpath "$SPOS_ONNXRUNTIME")
		return
	fi
	library onnxruntime '^onnxruntime/capi/libonnxruntime\.so'
}

# object FILE FLAG…: prints the cached object of FILE, compiling it if need be.
# The key covers the source, the headers beside it, the compiler, the libtorch
# and the flags, but not where the checkout lies.
object() {
	local src=$1 out tmp
	shift
	out=$cache/obj/$({ cat "$src"; cat "$(dirname "$src")"/*.h 2>/dev/null; echo "$compiler torch $version $*"; } | digest).o
	if [[ ! -f $out ]]; then
		say "compiling $(basename "$src")"
		tmp=$(mktemp "$cache/obj/tmp.XXXXXX")
		"$cxx" "$@" -I"$(dirname "$src")" -ffile-prefix-map="$root"=. -c "$src" -o "$tmp" || { rm -f "$tmp"; return 1; }
		mv "$tmp" "$out"
	fi
	echo "$out"
}

# shared NAME OBJECT…: links OBJECT… into $out/NAME against libtorch.
shared() {
	local name=$1
	shift
	"$cxx" -shared -fopenmp -Wl,-z,defs -o "$out/$name" "$@" -Wl,-rpath,"$torch/lib" -L"$torch/lib" "${libs[@]}"
}

need go "the instructions of go.dev/doc/install (Go 1.26 or newer)"
need "$cxx" "apt-get install g++"
[[ $cache$root != *[[:space:]:\'\"\\]* ]] || die "the paths $cache and $root must hold no spaces, quotes, colons or backslashes"
mkdir -p "$cache/obj" "$cache/lib" "$root/.native"
if command -v flock >/dev/null; then
	exec 9>"$cache/lock"
	flock -n 9 || { say "waiting for another build"; flock 9; }
fi
rm -rf "$cache"/tmp.* "$cache"/obj/tmp.*

if [[ ${1:-} == library ]]; then
	arch=$3
	library "$2" '^onnxruntime/capi/lib'
	echo "$ort"
	exit
fi

find_torch
find_onnxruntime
version=$(torch_version "$torch")
gotorch=$(cd "$root" && go mod download -json github.com/wangkuiyi/gotorch | sed -n 's/^\s*"Dir": "\(.*\)",\?$/\1/p')
[[ -d $gotorch/cgotorch ]] || die "the module github.com/wangkuiyi/gotorch cannot be downloaded; run: go mod download github.com/wangkuiyi/gotorch"

abi=0
if [[ $(nm -D "$torch/lib/libc10.so") == *__cxx11* ]]; then abi=1; fi
flags=(-std=c++20 -O2 -fPIC "-D_GLIBCXX_USE_CXX11_ABI=$abi" -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include")
libs=("-Wl,--as-needed" -ltorch_cpu -lc10)
cuda=false
if [[ -f $torch/lib/libtorch_cuda.so ]] && has_cuda; then
	missing=$(unfound "$torch/lib/libtorch_cuda.so")
	if [[ -z $missing ]]; then
		cuda=true
		# Nothing refers to the CUDA library by symbol: it registers itself when loaded.
		libs=("-Wl,--no-as-needed" -ltorch_cuda -lc10_cuda "${libs[@]}")
	else
		say "building for the CPU only: libtorch_cuda.so does not find $missing"
	fi
fi
compiler="$(basename "$cxx") $("$cxx" -dumpfullversion) $("$cxx" -dumpmachine)"
say "libtorch $version ($origin$($cuda && echo ', CUDA')) in $torch"

# gotorch's files in one unit: parsing torch's headers is nearly all of the cost.
unit=$(mktemp -d "$cache/tmp.XXXXXX")
trap 'rm -rf "$unit"' EXIT
{ echo "// $(cat "$gotorch"/cgotorch/*.{cc,h} | digest)"; printf '#include "%s"\n' "$gotorch"/cgotorch/*.cc; } >"$unit/gotorch.cc"
mapfile -t ours < <(find "$csrc" -name '*.cc' 2>/dev/null | sort)

# One compiler per core, but none without 2 GB of memory to itself.
jobs=$(($(awk '/MemAvailable/ {print $2}' /proc/meminfo) / 2000000))
((jobs <= $(nproc))) || jobs=$(nproc)
((jobs >= 1)) || jobs=1
compile() { # SLOT, so that the order of objects does not depend on timing
	if ((${1} == 0)); then
		object "$unit/gotorch.cc" "${flags[@]}" -I"$gotorch" -I"$gotorch/cgotorch" >"$unit/0"
	else
		object "${ours[$1 - 1]}" "${flags[@]}" -fopenmp -Wall -Wextra -Wno-unused-parameter >"$unit/$1"
	fi
}
running=0
for ((i = 0; i <= ${#ours[@]}; i++)); do
	if ((running == jobs)); then
		wait -n || die "compilation failed"
		running=$((running - 1))
	fi
	compile "$i" &
	running=$((running + 1))
done
for (( ; running > 0; running--)); do wait -n || die "compilation failed"; done
gotorch_o=$(cat "$unit/0")
objects=()
for ((i = 1; i <= ${#ours[@]}; i++)); do objects+=("$(cat "$unit/$i")"); done

key=$(echo "$gotorch_o ${objects[*]} $torch ${libs[*]} $ort" | digest)
dir=$cache/lib/$key
if [[ ! -d $dir ]]; then
	say "linking"
	out=$unit/lib
	mkdir -p "$out/link"
	shared libcgotorch.so "$gotorch_o"
	shared libtorchx.so "${objects[@]}"
	# gotorch's link flags name these three. Only our two libraries call them, so
	# the Go linker gets empty scripts, and the binary depends on no libtorch.
	for lib in c10 torch torch_cpu; do echo '/* GNU ld script: nothing */' >"$out/link/lib$lib.so"; done
	cat >"$out/build.json" <<-JSON
		{
		  "torch": "$version",
		  "origin": "$origin",
		  "cuda": $cuda,
		  "torch_dir": "$torch",
		  "onnxruntime": "$ort",
		  "compiler": "$compiler",
		  "gotorch": "$(basename "$gotorch")"
		}
	JSON
	publish "$out" "$dir"
fi

cat >"$root/.native/env.sh.tmp" <<ENV
# Written by make native; read it with: . .native/env.sh
[ "\${SPOS_NATIVE:-}" != $dir ] || return 0
export SPOS_NATIVE=$dir
export SPOS_ONNXRUNTIME=$ort
export LIBRARY_PATH=$dir:$dir/link\${LIBRARY_PATH:+:\$LIBRARY_PATH}
# Only the last link step is told where the libraries are, so that Go packages
# compiled before stay in Go's cache, and tests run again when a library changes.
export SPOS_LDFLAGS=-r=$dir
export GOFLAGS="\${GOFLAGS:+\$GOFLAGS }-ldflags=-r=$dir"
# Tests of several packages share the cores: threads that spin while they wait
# cost four times the time.
export OMP_WAIT_POLICY=\${OMP_WAIT_POLICY:-passive}
ENV
mv "$root/.native/env.sh.tmp" "$root/.native/env.sh"
say "ready: $dir"
