"""Which layers of an attention transfer stopped by themselves, when and why."""

from html import escape

from tandem.report_inputs import number
from tandem.report_words import cell, figure, section, table

COLUMNS = ("Stopped", "Kept from step", "Its loss")


def layer_stops(inputs):
    parts = []
    for index in sorted(inputs.steps):
        lines = inputs.steps[index]
        last = max(lines)
        found = lines[last].get("layer_stops")
        if isinstance(found, dict):
            parts.append(stage_part(index, last, found))
    note = (
        "Layers are taught one by one, and each was watched on held-out text: it stopped when its "
        "own loss there no longer fell. The feature maps of its lowest loss are kept."
    )
    return section("When each layer stopped learning", "".join(parts), note) if any(parts) else ""


def stage_part(index, last, found):
    rows = found.get("layers") if isinstance(found.get("layers"), list) else []
    rows = [row for row in rows if isinstance(row, dict)]
    if not rows:
        return ""
    ends = [row.get("stopped_at") for row in rows if number(row.get("stopped_at")) is not None]
    taught = sum(ends) + last * (len(rows) - len(ends))
    share = f"{100 * taught / (last * len(rows)):.0f} %" if last else "–"
    words = (
        f"Stage {index + 1}: {len(ends)} of {len(rows)} layers stopped before the stage's end at "
        f"step {last}, after {found.get('patience', '?')} measurements in a row, one every "
        f"{found.get('every_steps', '?')} steps, without a loss lower by "
        f"{gain(found.get('min_gain'))}. Layers were taught in {share} of the steps made."
    )
    body = "".join(layer_row(i, row) for i, row in enumerate(rows))
    head = [("", "Layer"), *(("n", name) for name in COLUMNS)]
    return f"<p>{escape(words)}</p>" + table(head, body, "figures")


def gain(share):
    share = number(share)
    return "–" if share is None else f"{100 * share:g} %"


def layer_row(layer, row):
    stopped = number(row.get("stopped_at"))
    kept = number(row.get("kept_step"))
    cells = (
        "ran to the end" if stopped is None else f"at step {stopped:.0f}",
        "–" if kept is None else f"{kept:.0f}",
        figure(row.get("loss"), 4),
    )
    return (
        f'<tr><td><span class="who">Layer {layer}</span></td>'
        + "".join(cell(name, words) for name, words in zip(COLUMNS, cells))
        + "</tr>"
    )
