#!/usr/bin/env bash
# From a fresh clone to a converted model and its report, on one machine without a GPU.
#   deploy/quickstart.sh [JOB.yaml] [--work DIR]     default: examples/ssd.yaml, work/quickstart
set -euo pipefail
cd "$(dirname "$0")/.."

job=examples/ssd.yaml
work=work/quickstart
while [ $# -gt 0 ]; do
  case "$1" in
    --work) work=${2:?--work needs a folder}; shift 2 ;;
    --work=*) work=${1#--work=}; shift ;;
    -h|--help) sed -n '2,3s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "quickstart.sh: unknown option $1; known: --work DIR" >&2; exit 2 ;;
    *) job=$1; shift ;;
  esac
done
[ -f "$job" ] || { echo "quickstart.sh: no such job file: $job; try examples/ssd.yaml" >&2; exit 2; }

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
deploy/setup.sh
deploy/build.sh tandem tandem-coordinator tandem-worker tandem-rank
say "build/bin/tandem run $job --work $work"
exec build/bin/tandem run "$job" --work "$work"
