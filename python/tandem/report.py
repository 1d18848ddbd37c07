"""The job's report: one HTML file, no script, nothing from outside, the same bytes each time.

    python -m tandem.report --job JOB_FOLDER --out FILE

Reads artifacts/report.json, attempts/*/{metrics.jsonl,plan.json}, artifacts/model/manifest.json and
the tokens' manifest. What is missing is named in the page. Exit codes: 0 written, 1 anything else.
"""

import argparse
import os
import sys
from html import escape

from tandem.report_cost import estimates
from tandem.report_inputs import read_inputs
from tandem.report_layers import layer_stops
from tandem.report_origin import loading, provenance
from tandem.report_quality import beats_window, early_stop, lengths, suites
from tandem.report_recall import recall
from tandem.report_sections import components, linear_mass, tiles, verdict
from tandem.report_story import story
from tandem.report_training import loss_curves, stages

STYLE = os.path.join(os.path.dirname(__file__), "report_style.css")


def render(inputs):
    """The whole page."""
    with open(STYLE, encoding="utf-8") as file:
        style = file.read()
    name = str(inputs.evaluation.get("job") or inputs.plan.get("job_name") or "unnamed job")
    name = name.removeprefix("projects/default/jobs/")
    body = "".join(
        part(inputs)
        for part in (
            verdict,
            tiles,
            story,
            components,
            beats_window,
            recall,
            suites,
            lengths,
            linear_mass,
            loss_curves,
            layer_stops,
            early_stop,
            stages,
            estimates,
            loading,
            provenance,
        )
    )
    word = inputs.evaluation.get("verdict", "not evaluated")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)}: {escape(str(word))}</title><style>{style}</style></head>\n"
        "<body><main>"
        f'<p class="kicker">Tandem component report</p><h1>{escape(name)}</h1>\n{body}'
        "<footer>The verdict's rule and limits are Tandem's own; the diagnosis, switching each "
        "component off, is that of arXiv 2510.05901.</footer></main></body></html>\n"
    )


def write_report(job_folder, out):
    page = render(read_inputs(os.path.abspath(job_folder)))
    aside = f"{out}.{os.getpid()}.part"
    with open(aside, "w", encoding="utf-8") as file:
        file.write(page)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, out)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tandem.report", description="The job's HTML report."
    )
    parser.add_argument("--job", required=True, help="<work>/jobs/<uid>")
    parser.add_argument("--out", required=True, help="the file to write")
    options = parser.parse_args(arguments)
    if not os.path.isdir(options.job):
        print(
            f"{options.job} is no folder; give a job's folder, <work>/jobs/<uid>", file=sys.stderr
        )
        return 1
    write_report(options.job, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
