"""The report's account of the cost: what each stage was expected to take, and what it took."""

from html import escape

from tandem.report_inputs import number
from tandem.report_words import cell, duration, percent, section, signed_percent, size, table

TITLES = {
    "prepare": "Preparing the text",
    "attention_transfer": "Attention transfer",
    "finetune": "Finetuning",
    "evaluate": "Evaluation",
    "export": "Export",
}
COLUMNS = ("Tokens", "Time", "Error of time", "Memory", "Error of memory", "GFLOP/s")
NOTE = (
    "Expected: useful operations of the stage by its formula, divided by the rate of a rehearsal "
    "on a few tokens before the first step; memory counted tensor by tensor. Preparing is rehearsed "
    "on the first documents, the export by writing a file. Actual: the steps "
    "alone, those of a crashed attempt once; largest resident set of the first rank in the stage "
    "(on a GPU the most that its tensors held so far). GFLOP/s are of useful operations, which the "
    "method needs: recomputation is not among them."
)


def estimates(inputs):
    """A row per stage; no section in reports that do not know their stages' cost."""
    rows = cost_rows(inputs)
    if not rows:
        return ""
    title = "What it was expected to cost, and what it cost"
    head = [("wide", "Stage"), *(("n", name) for name in COLUMNS)]
    body = "".join(row(stage) for stage in rows) + total(rows)
    return section(title, table(head, body, "figures"), escape(NOTE))


def cost_rows(inputs):
    stages = (inputs.evaluation.get("cost") or {}).get("stages")
    stages = stages if isinstance(stages, list) else []
    return [stage for stage in [*stages, inputs.export_cost] if isinstance(stage, dict) and stage]


def part(stage, name):
    found = stage.get(name)
    return found if isinstance(found, dict) else {}


def row(stage):
    expected, error = part(stage, "estimate"), part(stage, "error")
    tokens = number(stage.get("tokens"))
    rate = number(stage.get("flop_per_second"))
    cells = (
        f"{tokens:,.0f}" if tokens else "–",
        both(duration(number(stage.get("seconds"))), duration(number(expected.get("seconds")))),
        signed_percent(error.get("seconds")),
        both(size(stage.get("peak_memory_bytes")), size(expected.get("memory_bytes"))),
        signed_percent(error.get("memory_bytes")),
        "–" if rate is None else f"{rate * 1e-9:,.0f}",
    )
    title = TITLES.get(stage.get("stage"), str(stage.get("stage")))
    return line(title, words_of(stage), cells)


def both(actual, expected):
    note = "" if expected == "–" else f'<span class="note">expected {escape(expected)}</span>'
    return f'<span class="stack"><span>{escape(actual)}</span>{note}</span>'


def share_read(stage):
    """Of the plan's tokens: less than 1 where early stop ended the stage."""
    if not number(stage.get("steps")):
        return 1.0
    planned, read = number(part(stage, "estimate").get("tokens")), number(stage.get("tokens"))
    return min(1.0, read / planned) if planned and read else 1.0


def words_of(stage):
    if stage.get("reused") and stage.get("stage") == "prepare":
        return "the tokens lay in the cache; this is the time of checking that"
    if stage.get("reused"):
        return "taken over from an equal stage of another job, whose time this is"
    share = share_read(stage)
    if share == 1:
        return ""
    return f"stopped after {percent(share)} of the plan's tokens; the error is that of so many"


def total(rows):
    """Of the stages that were run here and have both."""
    pairs = [
        (number(part(stage, "estimate").get("seconds")), share_read(stage), stage.get("seconds"))
        for stage in rows
        if not stage.get("reused")
    ]
    pairs = [(e * share, number(a)) for e, share, a in pairs if e and number(a)]
    if len(pairs) < 2:
        return ""
    expected, actual = (sum(column) for column in zip(*pairs))
    cells = (both(duration(actual), duration(expected)), signed_percent(actual / expected - 1))
    return line("Together", "", ("–", *cells, "–", "–", "–"), ' class="total"')


def line(title, note, cells, css=""):
    words = f'<span class="note">{escape(note)}</span>' if note else ""
    return (
        f'<tr{css}><td><span class="who">{escape(title)}</span>{words}</td>'
        + "".join(cell(name, words) for name, words in zip(COLUMNS, cells))
        + "</tr>"
    )
