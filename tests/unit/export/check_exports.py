"""check_exports.py NAME=ARTIFACTS ...: tandem.check_export of several exports in one process.

ARTIFACTS holds model/ and check.safetensors. Prints a line per export; exit code 1 if one is wrong.
"""

import sys

from tandem.check_export import check


def main(arguments):
    wrong = False
    for argument in arguments:
        name, artifacts = argument.split("=", 1)
        result = check(artifacts + "/model", artifacts + "/check.safetensors")
        print(name, result)
        wrong = wrong or not result["ok"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
