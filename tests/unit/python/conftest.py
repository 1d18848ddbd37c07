"""Tests run in the environment of deploy/requirements-tests.txt, against the sources in python/."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "python"))
sys.path.insert(0, str(Path(__file__).parent))

# Before transformers is imported: its copies of the classes go to a folder of this run, and nothing
# asks the network. One thread: the models are tiny and the machine may be busy.
CACHE = tempfile.mkdtemp(prefix="tandem-python-tests-")
os.environ.update(HF_HOME=CACHE, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")


def pytest_unconfigure():
    shutil.rmtree(CACHE, ignore_errors=True)
