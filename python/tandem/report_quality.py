"""Is the model any good: against a plain window, on suites, at other lengths, while it trained."""

from html import escape

from tandem.report_charts import line_chart
from tandem.report_inputs import number
from tandem.report_story import served_mode
from tandem.report_training import key
from tandem.report_words import COMPONENTS, MINUS, cell, figure, percent, section, signed, table

BRANCHES = ("softmax", "hybrid", "window_only", "linear_only")
CONTROLS = {
    "training_free": ("Window, untrained", "the base model, cut to window and first tokens"),
    "trained": ("Window, trained", "the same window alone, finetuned for as long"),
}


def beats_window(inputs):
    found = inputs.evaluation.get("beats_window")
    if not isinstance(found, dict):
        return ""
    margin = number(found.get("margin"))
    rows = "".join(control_row(name, found.get(name), margin) for name in CONTROLS)
    head = [("wide", "Control"), ("n", "Its loss"), ("n", "This model is better by"), ("n", "Enough")]
    note = (
        "A conversion is worth its trouble only if a plain window could not do the same. The model "
        "as it is used, against the window alone on the same text, in nats per token"
        f"{'' if margin is None else f'; at least {margin:g} counts'}."
    )
    words = found.get("words")
    answer = f"<b>{answer_word(found.get('value'))}</b>"
    answer += f": {escape(str(words))}." if words else "."
    title = "Is it better than a plain window?"
    return section(title, f"<p>{answer}</p>" + table(head, rows, "figures"), note)


def answer_word(value):
    return {True: "Yes", False: "No"}[value] if isinstance(value, bool) else "Not decided"


def control_row(name, found, margin):
    who, what = CONTROLS[name]
    head = f'<tr><td><span class="who">{who}</span><span class="note">{what}</span></td>'
    if not isinstance(found, dict):
        return f'{head}{cell("", "not measured")}<td></td><td></td></tr>'
    low, high = number(found.get("low")), number(found.get("high"))
    spread = "" if low is None or high is None else f"95 %: {signed(low)} to {signed(high)}"
    enough = low is not None and low >= (margin or 0)
    better = f'{signed(found.get("delta"))} <span class="note">{spread}</span>'
    answer = f'<b class="{"good" if enough else "bad"}">{"yes" if enough else "no"}</b>'
    return (
        f"{head}{cell('its loss', figure(found.get('loss')))}"
        f"{cell('this model is better by', better)}{cell('enough', answer)}</tr>"
    )


def suites(inputs):
    rows = [row for row in inputs.evaluation.get("suites") or [] if isinstance(row, dict)]
    if not rows:
        return ""
    modes = [m for m in BRANCHES if any(m in (row.get("scores") or {}) for row in rows)]
    head = [("", "Suite"), *(("n", COMPONENTS[m][0]) for m in modes), ("n", "Linear branch active")]
    body = "".join(suite_row(row, modes) for row in rows)
    average = inputs.evaluation.get("suites_average")
    if isinstance(average, dict):
        cells = "".join(cell(COMPONENTS[m][0], score(average.get(m))) for m in modes)
        name = '<span class="who">Average</span>'
        body += f'<tr class="total"><td>{name}</td>{cells}<td></td></tr>'
    note = (
        "Percent right, with one standard error. Short prompts fit into the window, so that the "
        "linear branch has nothing to do: <b>linear branch active</b> is the share of the scored "
        "tokens at which it had anything to read. Where that is small, the suite says nothing "
        "about the linear branch."
    )
    return section("Benchmark suites", table(head, body, "figures"), note)


def suite_row(row, modes):
    scores, items = row.get("scores") or {}, row.get("items")
    cells = "".join(cell(COMPONENTS[m][0], suite_score(scores.get(m))) for m in modes)
    count = f"{items:,} items, " if isinstance(items, int) else ""
    return (
        f'<tr><td><span class="who">{escape(str(row.get("name", "?")))}</span>'
        f'<span class="note">{count}{escape(str(row.get("metric", "")))}</span></td>{cells}'
        f"{cell('Linear branch active', percent(row.get('linear_active')))}</tr>"
    )


def suite_score(found):
    if not isinstance(found, dict):
        return "–"
    value, error = number(found.get("value")), number(found.get("standard_error"))
    if value is not None and value > 1:  # a perplexity
        return figure(value, 2)
    spread = "" if error is None else f' <span class="note">± {100 * error:.1f}</span>'
    return score(value) + spread


def score(value):
    value = number(value)
    return "–" if value is None else f"{100 * value:.1f}".replace("-", MINUS)


def lengths(inputs):
    rows = [row for row in inputs.evaluation.get("lengths") or [] if isinstance(row, dict)]
    if not rows:
        return ""
    modes = [m for m in BRANCHES if any(m in (row.get("components") or {}) for row in rows)]
    head = [("", "Tokens"), *(("n", COMPONENTS[m][0]) for m in modes)]
    body = "".join(
        f'<tr><td><span class="who">{row.get("length", "?")} tokens</span></td>'
        + "".join(
            cell(COMPONENTS[m][0], figure((row["components"].get(m) or {}).get("loss")))
            for m in modes
        )
        + "</tr>"
        for row in rows
        if isinstance(row.get("components"), dict)
    )
    trained = inputs.plan.get("data", {}).get("sequence_length", "?")
    note = (
        f"Loss in nats per token at other lengths than the {escape(str(trained))} tokens of "
        "training. The linear branch adds up more and more as the text grows: a loss that rises "
        "with the length shows that it was not trained for that."
    )
    return section("At other lengths", table(head, body, "figures"), note)


def early_stop(inputs):
    found = inputs.evaluation.get("early_stop")
    if not isinstance(found, dict):
        return ""
    curve = found.get("curve") if isinstance(found.get("curve"), list) else []
    curve = [point for point in curve if isinstance(point, dict)]
    series, keys = [], ""
    for mode in ("hybrid", "window_only", "linear_only"):
        points = [
            (point["step"], point[mode])
            for point in curve
            if number(point.get("step")) is not None and number(point.get(mode)) is not None
        ]
        if points:
            series.append({"points": points, "class": mode})
            keys += key(mode, COMPONENTS[mode][0].lower())
    kept = number(found.get("step"))
    name = COMPONENTS.get(str(found.get("component")), ("a component", ""))[0].lower()
    words = f"<p>{escape(str(found['words']))}.</p>" if found.get("words") else ""
    drawing = ""
    if series:
        chart = line_chart(series, "Loss of each component while training", kept)
        drawing = f'<div class="wide-chart">{chart}<div>{keys}</div></div>'
    note = (
        "While it trained, the components were measured again and again on held-out text. "
        f"Training ends when the {escape(name)} has become worse than it was at the start; the "
        f"state before is kept (dashed line, mode {served_mode(inputs)})."
    )
    return section("When training was stopped", words + drawing, note)
