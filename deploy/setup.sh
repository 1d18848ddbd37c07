#!/usr/bin/env bash
# Installs what Tandem is built with and runs on. Safe to run again: it does only what is missing.
#   deploy/setup.sh           packages, and the runtime environment .venv (Python steps, LibTorch's libraries)
#   deploy/setup.sh --tests   also .venv-tests and .venv-tests-4: PyTorch and transformers 5 and 4, the tests' oracles
# Debian 12 is what it is tried on. Elsewhere, install the packages listed here by your own means and set
# TANDEM_SKIP_PACKAGES=1.
set -euo pipefail
cd "$(dirname "$0")/.."

runtime_packages=(openmpi-bin python3 python3-venv)
build_packages=(g++ make cmake ninja-build ccache lld git pkg-config
  libgrpc++-dev libgrpc-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libre2-dev libc-ares-dev libabsl-dev
  libsqlite3-dev libyaml-cpp-dev prometheus-cpp-dev nlohmann-json3-dev libcli11-dev libssl-dev zlib1g-dev libopenmpi-dev
  libgtest-dev)
test_packages=(clang-14 libclang-rt-14-dev clang-format-14)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || echo "$package"
  done
}

# Two set-ups in one checkout would remove each other's environments: the second waits, and then finds all done. The
# lock is this file itself, and ends with the process.
lock_checkout() {
  exec 9<deploy/setup.sh
  flock -n 9 || { say "another deploy/setup.sh is at work in $PWD; waiting for it to end"; flock 9; }
}

install_packages() {
  [ "${TANDEM_SKIP_PACKAGES:-}" != 1 ] || return 0
  local missing
  if ! command -v dpkg-query >/dev/null; then
    say "This is not a Debian system. Install these by your own means, then set TANDEM_SKIP_PACKAGES=1: $*"
    exit 1
  fi
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { say "Needs root, or sudo, to install: ${missing[*]}"; exit 1; }
    as_root=(sudo)
  fi
  say "installing ${#missing[@]} packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 9<&-
}

# Of all files at once on every core: pip compiles one after the other, a minute of CPU for .venv-tests. What is no
# Python of this version (templates, other versions' syntax) stays as it is, as with pip.
compile_modules() {
  "$1" -m compileall -q -j 0 "$2" >/dev/null 2>&1 || true
}

# environment FOLDER REQUIREMENTS... : a virtual environment that holds exactly these files' packages; a stamp with
# their digest makes the second run free. A file named *no-deps* is installed without dependencies.
environment() {
  local folder=$1 stamp file
  shift
  stamp="$folder/.made-from-$(cat "$@" | sha256sum | cut -c1-16)"
  [ ! -e "$stamp" ] || return 0
  say "making $folder"
  rm -rf "$folder"
  python3 -m venv "$folder"
  for file in "$@"; do
    case "$file" in
      *no-deps*) "$folder/bin/python" -m pip install -q --disable-pip-version-check --no-compile --no-deps -r "$file" ;;
      *) "$folder/bin/python" -m pip install -q --disable-pip-version-check --no-compile -r "$file" ;;
    esac
  done
  compile_modules "$folder/bin/python" "$folder/lib"
  touch "$stamp"
}

# transformers 4 beside 5: its own packages alone, put before .venv-tests on PYTHONPATH; torch and the rest are shared.
transformers_4() {
  local stamp=.venv-tests-4/.made-from-$(sha256sum deploy/requirements-tests-4.txt | cut -c1-16)
  [ ! -e "$stamp" ] || return 0
  say "making .venv-tests-4"
  rm -rf .venv-tests-4
  .venv-tests/bin/python -m pip install -q --disable-pip-version-check --no-compile --no-deps --target .venv-tests-4 \
    -r deploy/requirements-tests-4.txt
  compile_modules .venv-tests/bin/python .venv-tests-4
  touch "$stamp"
}

lock_checkout
packages=("${runtime_packages[@]}" "${build_packages[@]}")
[ "${1:-}" != --tests ] || packages+=("${test_packages[@]}")
install_packages "${packages[@]}"
# Side by side: each is one process, and waits for the network half of its time.
environment .venv deploy/requirements.txt deploy/requirements-no-deps.txt &
runtime=$!
if [ "${1:-}" = --tests ]; then
  environment .venv-tests deploy/requirements-tests.txt
  transformers_4
fi
wait "$runtime"
