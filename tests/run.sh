#!/usr/bin/env bash
# Installs, builds and runs every test that this machine can run; says what was skipped and why.
#   tests/run.sh             all labels but those marked "on request"
#   tests/run.sh LABEL...    these alone; `tests/run.sh --list` names them
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --list ]; then
  cat <<'LIST'
tidy       the tree itself: arrows between rooms, sizes, names, documents
unit       every room alone
scenario   the coordinator's core as stories
sim        the core in seeded worlds with crashes and lost messages
fuzz       parsers under mutated input (a short smoke; the fuzz preset runs them for as long as you like)
kernels    attention operators against their double-precision reference
python     data preparation, report, the transformers classes
parity     whole-model losses and gradients against the plain PyTorch anchor
golden     first losses per stage
multirank  several MPI ranks
gpu        the same losses, gradients and steps on a GPU as on the CPU; skips itself without one
e2e        the real binaries: submit, watch, kill -9, resume, export, load in transformers
on request:
kill       kill -9 at 20 random moments (tests/run.sh kill)
LIST
  exit 0
fi

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
SECONDS=0
deploy/setup.sh --tests
deploy/build.sh
say "set up and built in ${SECONDS} s"

on_request='^(kill)$'
choose=(--label-exclude "$on_request")
if [ $# -gt 0 ]; then
  choose=(--label-regex "^($(IFS='|'; echo "$*"))\$")
fi
log=build/ctest.log
status=0
SECONDS=0
# One test at a time: many start ranks or a service of their own, and the machine may have two cores.
ctest --test-dir build --output-on-failure --no-tests=error "${choose[@]}" | tee "$log" || status=$?
say "tests took ${SECONDS} s"

# Whole tests that ctest marks as skipped, then gtest and pytest cases that skipped themselves, with their reasons.
skipped=$(python3 tests/skipped.py build/Testing/Temporary/LastTest.log)
if [ -n "$skipped" ]; then
  printf '\nSkipped:\n%s\n' "$skipped"
else
  printf '\nNothing was skipped.\n'
fi
[ $# -gt 0 ] || printf 'Not run (on request): tests/run.sh kill\n'
exit "$status"
