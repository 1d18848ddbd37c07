"""Converted models beside each other: one HTML file, no script, nothing from outside.

    python -m tandem.compare_page --comparison FILE --out FILE

Reads what `tandem compare -o json` prints. Exit codes: 0 written, 1 anything else.
"""

import argparse
import json
import os
import sys
from html import escape

from tandem.report import STYLE
from tandem.report_inputs import number
from tandem.report_words import COMPONENTS, bar, cell, duration, figure, percent, section
from tandem.report_words import signed, size, table

BRANCHES = ("hybrid", "window_only", "linear_only")
MEASURES = ("distance", "facts", "pairs")


def render(comparison):
    with open(STYLE, encoding="utf-8") as file:
        style = file.read()
    jobs = [job for job in comparison.get("jobs") or [] if isinstance(job, dict)]
    parts = (components, judgements, recall, suites)
    body = "".join(part(jobs) for part in parts) + differences(comparison)
    notes = "".join(f'<p class="note">{escape(str(n))}.</p>' for n in comparison.get("notes") or [])
    title = f"{len(jobs)} conversions compared"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>\n"
        f'<body><main><p class="kicker">Tandem comparison</p><h1>{title}</h1>\n{notes}{body}'
        "</main></body></html>\n"
    )


def part_of(job, *keys):
    """job[key][key]…, or None."""
    for key in keys:
        job = job.get(key) if isinstance(job, dict) else None
    return job


def served(job):
    mode = job.get("served_mode")
    return mode if mode in COMPONENTS else "hybrid"


def who(job, note=""):
    name = f'<span class="who">{escape(str(job.get("name", "?")))}</span>'
    return f'{name}<span class="note">{escape(note)}</span>'


def base_loss(jobs):
    losses = [number(part_of(job, "components", "softmax", "loss")) for job in jobs]
    same = losses and None not in losses and max(losses) - min(losses) <= 1e-4
    return losses[0] if same else None


def components(jobs):
    """Per job: verdict, and each branch's bar with its loss."""
    rows = "".join(component_row(job) for job in jobs)
    head = [("wide", "Conversion"), *(("", COMPONENTS[mode][0]) for mode in BRANCHES)]
    base = base_loss(jobs)
    note = (
        "What each component recovers of attention's worth: 100 % is the base model"
        f"{'' if base is None else f' (loss {figure(base)})'}, 0 % no context. Below it the loss "
        "in nats per token on held-out text; <b>as used</b> marks what the model is used with. "
        "<b>A linear branch alone below 55 % is bypassed.</b>"
    )
    return section("Components", table(head, rows, "passkey compared"), note)


def component_row(job):
    verdict = str(job.get("verdict") or "not evaluated")
    if job.get("recipe") == "window_control":
        verdict = "control"  # it has no linear branch to judge
    css = verdict if verdict in ("balanced", "leaning", "collapsed") else "unknown"
    word = f'<span class="badge {css}">{escape(verdict)}</span>'
    cells = ""
    for mode in BRANCHES:
        found = part_of(job, "components", mode) or {}
        used = ", <b>as used</b>" if mode == served(job) else ""
        loss = f'<span class="note">{figure(found.get("loss"))}{used}</span>'
        inner = f'<div class="grow">{bar(found.get("recovered"))}{loss}</div>'
        cells += f'<td class="{mode}" data-name="{COMPONENTS[mode][0]}">{inner}</td>'
    return f"<tr><td>{who(job)}{word}</td>{cells}</tr>"


def judgements(jobs):
    rows = [judgement(job) for job in jobs]
    columns = [name for name in rows[0] if any(row[name] != "–" for row in rows)] if rows else []
    if not columns:
        return ""
    body = ""
    for job, row in zip(jobs, rows):
        cells = "".join(cell(name, row[name]) for name in columns)
        body += f"<tr><td>{who(job, str(job.get('recipe') or ''))}</td>{cells}</tr>"
    head = [("wide", "Conversion"), *(("n", name) for name in columns)]
    note = (
        "As each model is used. <b>Recall</b>: what is found again beyond the reach of all windows, "
        "as a share of the base's. <b>Suites</b>: mean percent right."
    )
    return section("Is it worth it?", table(head, body, "figures"), note)


def judgement(job):
    """{column: words}; a dash where the report does not say."""
    beats = part_of(job, "beats_window", "value")
    answer = "–"
    if isinstance(beats, bool):
        answer = f'<b class="{"good" if beats else "bad"}">{"yes" if beats else "no"}</b>'
    tokens = number(part_of(job, "cost", "tokens"))
    average = number(part_of(job, "suites_average", served(job)))
    return {
        "Better than a plain window": answer,
        "Recall": percent(part_of(job, "recall", "value")),
        "Suites": "–" if average is None else f"{100 * average:.1f}",
        "Time": duration(number(part_of(job, "cost", "seconds"))),
        "Tokens": "–" if tokens is None else f"{tokens:,.0f}",
        "Peak memory": size(part_of(job, "cost", "peak_memory_bytes")),
    }


def recall_rows(job):
    """{("passkey", "distance", 16): accuracy by mode}."""
    rows = [{**row, "kind": "passkey"} for row in job.get("passkey") or [] if isinstance(row, dict)]
    rows += [row for row in job.get("long_range") or [] if isinstance(row, dict)]
    found = {}
    for row in rows:
        measure = next((name for name in MEASURES if name in row), None)
        if measure:
            key = (str(row.get("kind")), measure, row[measure])
            found.setdefault(key, row.get("accuracy") or {})
    return found


def recall(jobs):
    by_job = [recall_rows(job) for job in jobs]
    keys = list(dict.fromkeys(key for rows in by_job for key in rows))
    if not keys:
        return ""
    titles = [f"{kind} {value}" + ("" if m == "distance" else f" {m}") for kind, m, value in keys]
    head = [("", "Conversion"), *(("n", title.replace("_", " ")) for title in titles)]
    rows = ""
    if base_loss(jobs) is not None:
        rows = recall_row("<span class=\"who\">the base</span>", by_job[0], keys, titles, "softmax")
    for job, found in zip(jobs, by_job):
        rows += recall_row(who(job), found, keys, titles, served(job))
    note = "Percent of the prompts, as each model is used; behind the name the tokens, facts, pairs."
    return section("Recall", table(head, rows, "figures"), note)


def recall_row(name, found, keys, titles, mode):
    cells = "".join(
        cell(title, percent(part_of(found.get(key), mode))) for key, title in zip(keys, titles)
    )
    return f"<tr><td>{name}</td>{cells}</tr>"


def suites(jobs):
    names = list(
        dict.fromkeys(
            str(row.get("name"))
            for job in jobs
            for row in job.get("suites") or []
            if isinstance(row, dict)
        )
    )
    if not names:
        return ""
    rows = ""
    if base_loss(jobs) is not None:
        rows = suite_row('<span class="who">the base</span>', jobs[0], names, "softmax")
    for job in jobs:
        for mode in BRANCHES:
            rows += suite_row(who(job, COMPONENTS[mode][0].lower()), job, names, mode)
    head = [("", "Conversion"), *(("n", name) for name in names)]
    note = "Percent right; perplexities as they are. Modes that were not measured are left out."
    return section("Benchmark suites", table(head, rows, "figures"), note)


def suite_row(name, job, names, mode):
    scores = {
        row.get("name"): number(part_of(row, "scores", mode, "value"))
        for row in job.get("suites") or []
        if isinstance(row, dict)
    }
    if not any(value is not None for value in scores.values()):
        return ""
    cells = ""
    for suite in names:
        value = scores.get(suite)
        words = "–" if value is None else f"{value:.2f}" if value > 1 else f"{100 * value:.1f}"
        cells += cell(suite, words)
    return f"<tr><td>{name}</td>{cells}</tr>"


def differences(comparison):
    body = paired(comparison.get("paired"))
    rows = ""
    for difference in comparison.get("differences") or []:
        field = f"<code>{escape(str(difference.get('field')))}</code>"
        for entry in difference.get("values") or []:
            value = entry.get("value")
            text = "–" if value is None else value if isinstance(value, str) else json.dumps(value)
            names = ", ".join(str(name) for name in entry.get("jobs") or [])
            rows += (
                f'<tr><td>{field}</td><td class="digest">{escape(text)}</td>'
                f"<td>{escape(names)}</td></tr>"
            )
            field = ""
    if not rows:
        return body
    head = [("", "Field"), ("", "Value"), ("", "Conversions")]
    note = "Of the resolved job files: only fields in which they differ."
    return body + section("What differs", table(head, rows, "differences"), note)


def paired(found):
    if not isinstance(found, dict):
        return ""
    rows = "".join(
        f'<tr><td><span class="who">{escape(str(row.get("name")))}</span></td>'
        f"{cell('loss above the lowest', signed(row.get('difference'), 4))}"
        f"{cell('95 %', signed(row.get('low'), 4) + ' to ' + signed(row.get('high'), 4))}</tr>"
        for row in found.get("rows") or []
        if row.get("name") != found.get("best")
    )
    best = escape(str(found.get("best")))
    note = (
        f"Loss as used, against that of <b>{best}</b>, the lowest, sequence by sequence over "
        f"{found.get('sequences')} sequences. An interval that holds 0 is no difference."
    )
    head = [("", "Conversion"), ("n", "Loss above the lowest"), ("n", "95 %")]
    return section("How sure is the order?", table(head, rows, "figures"), note)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tandem.compare_page", description="The page of a comparison."
    )
    parser.add_argument("--comparison", required=True, help="what `tandem compare -o json` printed")
    parser.add_argument("--out", required=True, help="the file to write")
    options = parser.parse_args(arguments)
    try:
        with open(options.comparison, encoding="utf-8") as file:
            comparison = json.load(file)
    except (OSError, ValueError) as error:
        print(f"cannot read the comparison {options.comparison}: {error}", file=sys.stderr)
        return 1
    aside = f"{options.out}.{os.getpid()}.part"
    with open(aside, "w", encoding="utf-8") as file:
        file.write(render(comparison))
    os.replace(aside, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
