#!/bin/sh
# run_pytest.sh 5|4 [pytest arguments]: the Python tests against that line of transformers. 77: skipped, with the reason.
# TANDEM_TESTS_PYTHON names another interpreter than .venv-tests's.
line=$1
shift
cd "$(dirname "$0")/../../.." || exit 1
python=${TANDEM_TESTS_PYTHON:-.venv-tests/bin/python}
if ! "$python" -c 'import pytest, torch, transformers' 2>/dev/null; then
  echo "skipped: $python lacks the packages of deploy/requirements-tests.txt"
  exit 77
fi
tests="tests/unit/python"
if [ "$line" = 4 ]; then
  if [ ! -d .venv-tests-4/transformers ]; then
    echo "skipped: .venv-tests-4 is not there (how to make it: deploy/requirements-tests-4.txt)"
    exit 77
  fi
  PYTHONPATH=.venv-tests-4${PYTHONPATH:+:$PYTHONPATH}
  export PYTHONPATH
  tests="tests/unit/python/test_hybrid_linear.py tests/unit/python/test_check_export.py"
fi
PYTHONDONTWRITEBYTECODE=1 exec "$python" -m pytest -q -rs -p no:cacheprovider $tests "$@"
