"""Prints which tests skipped themselves and why, from ctest's log: one line each.

gtest prints the reason before `[  SKIPPED ] Name`; pytest (-rs) prints `SKIPPED [n] file:line: reason`; scripts print
`SKIPPED: reason`.
"""
import re
import sys
from pathlib import Path


def skipped(text):
    previous = ""
    for line in text.splitlines():
        if match := re.match(r"\[  SKIPPED \] (\S+\.\S+) \(", line):
            yield f"{match[1]}: {previous}"
        elif match := re.match(r"SKIPPED \[\d+\] (.+)", line):
            yield match[1]
        elif line.startswith("SKIPPED: "):
            yield line[len("SKIPPED: "):]
        if line.strip() and not line.startswith("["):
            previous = line.strip()


def main():
    log = Path(sys.argv[1])
    lines = dict.fromkeys(skipped(log.read_text(errors="replace"))) if log.exists() else {}
    print("\n".join(f"  {line}" for line in lines))


if __name__ == "__main__":
    main()
