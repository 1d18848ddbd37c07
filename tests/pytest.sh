#!/usr/bin/env bash
# pytest in the tests' own environment; a line that ctest reads as "skipped" where that environment is not there.
here=$(cd "$(dirname "$0")/.." && pwd)
python=$here/.venv-tests/bin/python
if [ ! -x "$python" ]; then
  echo "SKIPPED: $*: no .venv-tests; deploy/setup.sh --tests makes it"
  exit 0
fi
exec "$python" -m pytest -q -rs -p no:cacheprovider "$@"
