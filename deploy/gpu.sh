#!/usr/bin/env bash
# Tandem on a machine with a GPU that has LibTorch for CUDA, Open MPI and a compiler, but no gRPC (Ubuntu 24.04 was tried).
# tandem-rank is built there; the control plane comes from a Debian 12 build and runs there as it is.
#   deploy/gpu.sh pack FOLDER     on Debian, after deploy/build.sh: the control plane and its libraries into FOLDER
#   deploy/gpu.sh build FOLDER    on the GPU machine: tandem-rank (preset torch) into build-torch/, FOLDER beside it
#   deploy/gpu.sh tandem VERB ... on the GPU machine: `tandem run JOB` and every other verb, with this machine's python3
# The GPU machine's python3 has torch 2.11, and tokenizers for preparing data. CMAKE_PREFIX_PATH may name further packages
# (nlohmann_json, OpenSSL).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }

pack() {
  local folder=$1 name
  mkdir -p "$folder/bin" "$folder/lib"
  for name in tandem tandem-coordinator tandem-worker; do
    strip -o "$folder/bin/$name" "build/bin/$name"
  done
  # The system's own libraries are everywhere; Prometheus's client is not.
  ldd build/bin/tandem-worker build/bin/tandem-coordinator | awk '/prometheus|civetweb/ { print $3 }' | sort -u |
    xargs -I{} cp -L {} "$folder/lib/"
  say "packed $(du -sh "$folder" | cut -f1) into $folder"
}

build() {
  local folder=$1 torch
  torch=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')
  cmake --preset torch -DTANDEM_TORCH_DIR="$torch"
  cmake --build build-torch --target tandem-rank
  cp -r "$folder/bin" "$folder/lib" build-torch/
  say "built build-torch/bin/tandem-rank for $torch"
}

case "${1:-}" in
  pack) pack "${2:?pack needs a folder}" ;;
  build) build "${2:?build needs the packed folder}" ;;
  tandem)
    shift
    export TANDEM_PYTHON=${TANDEM_PYTHON:-$(command -v python3)}
    export TANDEM_PYTHONPATH=${TANDEM_PYTHONPATH:-$PWD/python}
    exec build-torch/bin/tandem "$@" ;;
  -h|--help) usage ;;
  *) usage >&2; exit 2 ;;
esac
