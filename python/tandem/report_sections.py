"""The report's judgement: verdict, components, recall, and where the linear branch is used.

Each function takes the inputs and returns HTML, or says what is absent.
"""

from html import escape

from tandem.report_charts import heat_map
from tandem.report_inputs import number
from tandem.report_words import MINUS, bar, figure, missing, percent, section, table

COMPONENTS = {  # in the table's order: who, what it reads
    "softmax": ("Base model", "the original: full softmax attention"),
    "hybrid": ("Hybrid", "the converted model, as it is used"),
    "window_only": ("Window alone", "linear branch switched off"),
    "linear_only": (
        "Linear branch alone",
        "window switched off; the marks are the verdict's limits",
    ),
    "sinks_only": ("First tokens alone", "sees its first {sinks} tokens only: the scale's zero"),
    "none": ("No attention", "each token on its own"),
}
HEADLINES = {
    "balanced": "Balanced: both components pull",
    "leaning": "Leaning: one component does nearly all the work",
    "collapsed": "Collapsed: the linear branch is bypassed",
}
MEANING = {
    "balanced": (
        "Switch the softmax window off, and the linear branch still carries most of what attention "
        "is worth; switch the linear branch off, and the text gets measurably harder to predict. "
        "This model is the hybrid that it says it is."
    ),
    "leaning": (
        "Both components do something, but one of them could nearly be left out. The sentence "
        "below says which, and which limit was missed."
    ),
    "collapsed": (
        "The hybrid's loss may look fine, but its small softmax window of {window} tokens does the "
        "work. The linear branch, which should carry everything older, contributes too little: "
        "what lies further back is largely lost. Benchmarks with short prompts do not show this."
    ),
}


def verdict(inputs):
    found = inputs.evaluation
    word = found.get("verdict")
    if word not in HEADLINES:
        return (
            '<section class="verdict unknown"><p class="word">Not evaluated</p><p>The job has no '
            "evaluation, so nothing can be said about its components.</p></section>\n"
        )
    window = inputs.plan.get("attention", {}).get("window_size", "a few")
    meaning = MEANING[word].format(window=escape(str(window)))
    reason = escape(str(found.get("verdict_reason", "no reason was given")))
    return (
        f'<section class="verdict {word}"><p class="word">{HEADLINES[word]}</p>'
        f"<p>{meaning}</p><p><b>Why:</b> {reason}.</p></section>\n"
    )


def tiles(inputs):
    found = inputs.evaluation
    if not found:
        return ""
    limits, parts = found.get("thresholds", {}), found.get("components", {})
    hybrid, base = (number(parts.get(mode, {}).get("loss")) for mode in ("hybrid", "softmax"))
    known = hybrid is not None and base is not None
    low, high = figure(found.get("linear_delta_low")), figure(found.get("linear_delta_high"))
    entries = [
        (
            "Linear branch alone recovers",
            percent(found.get("linear_capability")),
            f"collapsed below {percent(limits.get('collapsed_below'))}, "
            f"balanced from {percent(limits.get('leaning_below'))}",
        ),
        (
            "Hybrid's loss",
            figure(hybrid),
            f"{hybrid - base:+.3f} nats against the base".replace("-", MINUS) if known else "",
        ),
        (
            "Worth of the linear branch",
            f"{figure(found.get('linear_delta'))} nats",
            f"in the mix; 95 % interval {low} to {high}",
        ),
        (
            "Beyond the window",
            percent(found.get("beyond_window")),
            "of what lies outside the window comes back by the linear branch",
        ),
    ]
    cells = "".join(
        f'<div class="tile"><p class="note">{title}</p><div class="figure">{value}</div>'
        f'<p class="note">{escape(note)}</p></div>'
        for title, value, note in entries
    )
    return f'<div class="tiles">{cells}</div>\n'


def components(inputs):
    title, parts = "What each component can do", inputs.evaluation.get("components", {})
    if not parts:
        return section(title, missing("the evaluation has no components"))
    rows = "".join(component_row(inputs, mode, parts[mode]) for mode in COMPONENTS if mode in parts)
    head = [("", "Model"), ("wide", "Recovered"), ("n", "Loss"), ("n", "Perplexity")]
    note = (
        "Loss on held-out text, in nats per token, with each component switched off in turn. "
        "<b>Recovered</b> is the share of attention's worth: 100 % is the base model's full "
        "attention, 0 % a model that sees its first tokens only."
    )
    counted = (
        f'<p class="note">{inputs.evaluation.get("sequences", "?")} sequences of '
        f'{inputs.evaluation.get("sequence_length", "?")} tokens; ± is one standard error. The '
        "linear branch alone reads all earlier tokens, also those that the hybrid reads through "
        "its window.</p>"
    )
    return section(title, table(head, rows, "components") + counted, note)


def component_row(inputs, mode, figures):
    who, what = COMPONENTS[mode]
    what = what.format(sinks=inputs.plan.get("evaluate", {}).get("sinks", "few"))
    limits = inputs.evaluation.get("thresholds", {})
    names = ("collapsed_below", "leaning_below") if mode == "linear_only" else ()
    marks = [limits[name] for name in names if number(limits.get(name)) is not None]
    error = number(figures.get("standard_error"))
    spread = "" if error is None else f' <span class="note">± {error:.3f}</span>'
    return (
        f'<tr class="{mode}"><td><span class="who">{who}</span>'
        f'<span class="note">{escape(what)}</span></td>'
        f"<td>{bar(figures.get('recovered'), marks)}</td>"
        f'<td class="n" data-name="loss">{figure(figures.get("loss"))}{spread}</td>'
        f'<td class="n" data-name="perplexity">{figure(figures.get("perplexity"), 2)}</td></tr>'
    )


def linear_mass(inputs):
    rows = inputs.evaluation.get("linear_mass") or []
    rows = [[number(share) for share in row] for row in rows if isinstance(row, list) and row]
    title = "Where the linear branch is used"
    if not rows:
        return section(title, missing("the evaluation has no shares by layer and head"))
    note = (
        "Share of the attention weight, in percent, that each head gives to the linear branch, "
        "over tokens at least two windows from the start. It describes, it does not decide: a "
        "branch can have weight and no content."
    )
    return section(title, f'<div class="scroll">{heat_map(rows, title)}</div>', note)


def passkey(inputs):
    rows = inputs.evaluation.get("passkey") or []
    title = "Recall by distance"
    if not rows:
        return section(title, missing("no passkey prompts were evaluated"))
    modes = [mode for mode in COMPONENTS if any(mode in row.get("accuracy", {}) for row in rows)]
    head = [("", "Distance in tokens"), *(("", COMPONENTS[mode][0]) for mode in modes)]
    body = "".join(passkey_row(inputs, row, modes) for row in rows)
    note = (
        "A number is hidden in the text and asked for so many tokens later. Share of the prompts "
        "in which every part of the number is the model's first choice. Only distances beyond the "
        "reach of the stacked windows prove the linear branch."
    )
    return section(title, table(head, body, "passkey"), note)


def passkey_row(inputs, row, modes):
    distance, accuracy = row.get("distance", 0), row.get("accuracy", {})
    cells = "".join(
        f'<td class="{mode}" data-name="{COMPONENTS[mode][0]}">{bar(accuracy.get(mode))}</td>'
        for mode in modes
    )
    return (
        f'<tr><td><span class="who">{distance}</span>'
        f'<span class="note">{reach(inputs, distance)}</span></td>{cells}</tr>'
    )


def reach(inputs, distance):
    """Whether one layer's window covers the distance, or all layers' on top of each other."""
    window = inputs.plan.get("attention", {}).get("window_size")
    layers = len(inputs.evaluation.get("linear_mass") or [])
    if not isinstance(window, int) or not layers:
        return ""
    if distance <= window:
        return "inside the window"
    stacked = layers * (window - 1)
    return "in reach of stacked windows" if distance <= stacked else "beyond the windows"
