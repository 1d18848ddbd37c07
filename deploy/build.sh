#!/usr/bin/env bash
# Configures and builds into build/. With names: only these targets.
#   deploy/build.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
mkdir -p build
log=build/build.log
# Each torch unit takes about 1 GB; the CMake pools hold those at two.
if [ ! -f build/build.ninja ]; then
  cmake --preset all >"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 1; }
fi
say "building ${*:-everything} (log: $log)"
targets=()
[ $# -eq 0 ] || targets=(--target "$@")
if [ -t 2 ]; then
  cmake --build build "${targets[@]}"
else
  cmake --build build "${targets[@]}" >>"$log" 2>&1 || { tail -n 60 "$log" >&2; exit 1; }
fi
