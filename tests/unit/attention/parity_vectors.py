"""Writes the anchor's parity vectors where the tests look for them: FOLDER/{t40_w16,t12_w16,t150_w64}.

The anchor is the plain PyTorch trainer in shared/anchors, beside the repository or under TANDEM_SHARED. It is not part
of the repository: without it this step says so and the tests that read the vectors skip themselves. Written once; a
newer anchor makes them anew.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
# T <= w, T divisible by nothing, and several chunks of 64.
CASES = {"t40_w16": (40, 16, 1), "t12_w16": (12, 16, 1), "t100_w64": (100, 64, 2)}


def main():
    target = Path(sys.argv[1])
    shared = Path(os.environ.get("TANDEM_SHARED", REPOSITORY.parent / "shared"))
    anchor = shared / "anchors" / "eager_trainer.py"
    python = REPOSITORY / ".venv-tests/bin/python"
    for needed in (anchor, python, shared / "models/base-4m/config.json"):
        if not needed.exists():
            shutil.rmtree(target, ignore_errors=True)  # the tests must not read what nothing renews
            print(f"SKIPPED: parity vectors: no {needed}")
            return 0
    for name, (length, window, batch) in CASES.items():
        folder, done = target / name, target / name / "meta.json"
        if done.exists() and done.stat().st_mtime > anchor.stat().st_mtime:
            continue
        command = [str(python), str(anchor), "--model", str(shared / "models/base-4m")]
        command += ["--data", str(shared / "data/text/wiki.valid.tokens"), "--batch", str(batch)]
        command += ["--seq-len", str(length), "--window", str(window), "--init", "random"]
        command += ["--seed", "3", "--dump-parity", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(f"wrote {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
