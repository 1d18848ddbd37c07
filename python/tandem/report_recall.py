"""What the model finds again in a long text: passkeys, needles, facts, keys and values."""

from html import escape

from tandem.report_inputs import number
from tandem.report_story import retained_words, served_mode
from tandem.report_words import COMPONENTS, bar, missing, percent, section, table

KINDS = {  # kind: title, what is asked, measure
    "passkey": (
        "Passkey",
        "A number is hidden in the text and asked for so many tokens later.",
        "distance",
    ),
    "needle": (
        "Needle in a haystack",
        "A sentence is hidden in a long text and asked for so many tokens later.",
        "distance",
    ),
    "recall": (
        "Facts in filler",
        "Facts stand between filler text and are asked for in random order.",
        "facts",
    ),
    "key_value": (
        "Keys and values",
        "Pairs of keys and values stand in the text; the value of a key is asked for.",
        "pairs",
    ),
}
MEASURES = {"distance": "Distance in tokens", "facts": "Facts", "pairs": "Pairs"}


def recall(inputs):
    groups = groups_of(inputs.evaluation)
    title = "Recall by distance"
    if not groups:
        return section(title, missing("no passkey prompts were evaluated"))
    body = "".join(group_table(inputs, kind, rows) for kind, rows in groups.items())
    note = (
        "Share of the answers in which every token is the model's first choice. Only what lies "
        "beyond the reach of the windows of all layers, stacked on top of each other, proves the "
        f"linear branch{retained_note(inputs)}.{share_words(inputs)}"
    )
    return section(title, body, note)


def retained_note(inputs):
    """Why the window alone, too, may find what no window reaches."""
    kept = retained_words(inputs)
    return f", or the retained attention: {kept} it in every column" if kept else ""


def groups_of(evaluation):
    """{kind: rows}, each row once, in the order of the report."""
    groups, seen = {}, set()
    rows = [{**row, "kind": "passkey"} for row in evaluation.get("passkey") or []]
    for row in rows + list(evaluation.get("long_range") or []):
        if not isinstance(row, dict):
            continue
        kind = str(row.get("kind", "recall"))
        key = (kind, *(row.get(name) for name in ("distance", "facts", "pairs")))
        if key not in seen:
            seen.add(key)
            groups.setdefault(kind, []).append(row)
    return groups


def share_words(inputs):
    found = inputs.evaluation.get("recall") or {}
    share = number(found.get("value"))
    if share is None:
        return f" {escape(str(found['words']))}." if found.get("words") else ""
    return f" <b>Beyond it this model has {percent(share)} of the base's recall.</b>"


def group_table(inputs, kind, rows):
    title, what, measure = KINDS.get(kind, (kind, "", "distance"))
    modes = [m for m in COMPONENTS if any(m in row.get("accuracy", {}) for row in rows)]
    served = served_mode(inputs)
    names = [COMPONENTS[m][0] + (" (as used)" if m == served else "") for m in modes]
    head = [("", MEASURES[measure]), *(("", name) for name in names)]
    body = "".join(recall_row(inputs, row, measure, modes) for row in rows)
    lengths = sorted({row["length"] for row in rows if row.get("length")})
    extent = f" Prompts of {' / '.join(f'{n:,}' for n in lengths)} tokens." if lengths else ""
    lead = f'<p class="note">{escape(what)}{extent}</p>'
    return f"<h3>{escape(title)}</h3>{lead}{table(head, body, 'passkey')}"


def recall_row(inputs, row, measure, modes):
    value, accuracy = row.get(measure, 0), row.get("accuracy", {})
    cells = "".join(
        f'<td class="{mode}" data-name="{COMPONENTS[mode][0]}">{bar(accuracy.get(mode))}</td>'
        for mode in modes
    )
    where = reach(inputs, value) if measure == "distance" else ""
    return (
        f'<tr><td><span class="who">{value}</span><span class="note">{where}</span></td>'
        f"{cells}</tr>"
    )


def reach(inputs, distance):
    """Whether one layer's window covers the distance, or all layers' on top of each other."""
    window = inputs.plan.get("attention", {}).get("window_size")
    layers = len(inputs.evaluation.get("linear_mass") or [])
    if not isinstance(window, int) or not layers or number(distance) is None:
        return ""
    if distance <= window:
        return "inside the window"
    stacked = layers * (window - 1)
    return "in reach of stacked windows" if distance <= stacked else "beyond the windows"
