"""The report's judgement: verdict, components, and where the linear branch is used.

Each function takes the inputs and returns HTML, or says what is absent.
"""

from html import escape

from tandem.report_charts import heat_map
from tandem.report_inputs import number
from tandem.report_story import recipe_of, retained_words, served_mode
from tandem.report_words import COMPONENTS, bar, figure, missing, percent, section, signed, table

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
LOST = (
    "Collapsed: the conversion lost the model",
    "Neither component works: the hybrid is no better than no context at all.",
)


def verdict(inputs):
    found = inputs.evaluation
    word = found.get("verdict")
    if word not in HEADLINES:
        return (
            '<section class="verdict unknown"><p class="word">Not evaluated</p><p>The job has no '
            "evaluation, so nothing can be said about its components.</p></section>\n"
        )
    if recipe_of(inputs) == "window_control":
        return (
            '<section class="verdict unknown"><p class="word">A control, not a conversion</p><p>'
            "The window alone, trained: what a conversion must beat to be worth its trouble. It "
            "has no linear branch to judge.</p></section>\n"
        )
    window = inputs.plan.get("attention", {}).get("window_size", "a few")
    headline, meaning = HEADLINES[word], MEANING[word].format(window=escape(str(window)))
    if word == "collapsed" and is_lost(found):
        headline, meaning = LOST
    reason = escape(str(found.get("verdict_reason", "no reason was given")))
    return (
        f'<section class="verdict {word}"><p class="word">{headline}</p>'
        f"<p>{meaning}</p><p><b>Why:</b> {reason}.</p></section>\n"
    )


def is_lost(found):
    """The hybrid itself recovers nothing: training diverged, and no branch is bypassed."""
    components = found.get("components")
    hybrid = components.get("hybrid") if isinstance(components, dict) else None
    recovered = hybrid.get("recovered") if isinstance(hybrid, dict) else None
    return isinstance(recovered, (int, float)) and recovered <= 0


def tiles(inputs):
    if not inputs.evaluation:
        return ""
    entries = [capability_tile, loss_tile, worth_tile, beyond_tile, recall_tile]
    cells = "".join(
        f'<div class="tile"><p class="note">{escape(title)}</p><div class="figure">{value}</div>'
        f'<p class="note">{escape(note)}</p></div>'
        for title, value, note in (entry(inputs) for entry in entries)
        if value
    )
    return f'<div class="tiles">{cells}</div>\n'


def capability_tile(inputs):
    found = inputs.evaluation
    limits = found.get("thresholds", {})
    note = (
        f"collapsed below {percent(limits.get('collapsed_below'))}, "
        f"balanced from {percent(limits.get('leaning_below'))}"
    )
    return "Linear branch alone recovers", percent(found.get("linear_capability")), note


def loss_tile(inputs):
    parts, mode = inputs.evaluation.get("components", {}), served_mode(inputs)
    own, base = (number((parts.get(m) or {}).get("loss")) for m in (mode, "softmax"))
    note = "" if own is None or base is None else f"{signed(own - base)} nats against the base"
    title = "Hybrid's loss" if mode == "hybrid" else f"Loss as used: {COMPONENTS[mode][0].lower()}"
    return title, figure(own), note


def worth_tile(inputs):
    found = inputs.evaluation
    low, high = figure(found.get("linear_delta_low")), figure(found.get("linear_delta_high"))
    value = f"{figure(found.get('linear_delta'))} nats"
    return "Worth of the linear branch", value, f"in the mix; 95 % interval {low} to {high}"


def beyond_tile(inputs):
    note = "of what lies outside the window comes back by the linear branch"
    return "Beyond the window", percent(inputs.evaluation.get("beyond_window")), note


def recall_tile(inputs):
    share = (inputs.evaluation.get("recall") or {}).get("value")
    note = "of the base's, for what lies further back than all windows reach"
    return "Recall", percent(share) if number(share) is not None else "", note


def components(inputs):
    title, parts = "What each component can do", inputs.evaluation.get("components", {})
    if not parts:
        return section(title, missing("the evaluation has no components"))
    rows = "".join(
        component_row(inputs, mode, parts[mode])
        for mode in COMPONENTS
        if isinstance(parts.get(mode), dict)
    )
    head = [("", "Model"), ("wide", "Recovered"), ("n", "Loss"), ("n", "Perplexity")]
    note = (
        "Loss on held-out text, in nats per token (lower is better), with each component switched "
        "off in turn. "
        "<b>Recovered</b> is the share of attention's worth: 100 % is the base model's full "
        "attention, 0 % a model that sees its first tokens only."
    )
    counted = (
        f'<p class="note">{inputs.evaluation.get("sequences", "?")} sequences of '
        f'{inputs.evaluation.get("sequence_length", "?")} tokens; ± is one standard error. The '
        "linear branch alone reads all earlier tokens, also those that the hybrid reads through "
        f"its window.{retained_note(inputs)}</p>"
    )
    return section(title, table(head, rows, "components") + counted, note)


def retained_note(inputs):
    kept = retained_words(inputs)
    return f" In every row but the last two {kept} full attention." if kept else ""


def component_row(inputs, mode, figures):
    who, what = COMPONENTS[mode]
    what = what.format(sinks=inputs.plan.get("evaluate", {}).get("sinks", "few"))
    if mode == served_mode(inputs):
        what += "; the model as it is used"
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
    kept = retained_heads(inputs, rows)
    note = (
        "Share of the attention weight, in percent, that each head gives to the linear branch, "
        "over tokens at least two windows from the start. It describes, it does not decide: a "
        "branch can have weight and no content."
    )
    if kept:
        note += " <b>S</b>: this head keeps the base's full softmax attention."
    drawing = f'<div class="scroll">{heat_map(rows, title, kept)}</div>'
    return section(title, drawing + retain_scores(inputs), note)


def retained_heads(inputs, rows):
    """{(layer, query head)}: a key-value group is shared by several query heads."""
    groups = [pair for pair in inputs.evaluation.get("retained") or [] if is_pair(pair)]
    kv_heads = inputs.model_config.get("num_key_value_heads")
    heads = max(len(row) for row in rows)
    if not isinstance(kv_heads, int) or kv_heads < 1:
        kv_heads = heads
    size = max(1, heads // kv_heads)
    return {(layer, group * size + i) for layer, group in groups for i in range(size)}


def is_pair(value):
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) for v in value)


def retain_scores(inputs):
    rows = inputs.evaluation.get("retain_scores") or []
    rows = [[number(value) for value in row] for row in rows if isinstance(row, list) and row]
    values = [value for row in rows for value in row if value is not None]
    if not values or max(values) <= 0:
        return ""
    top = max(values)
    shares = [[None if v is None else max(v, 0.0) / top for v in row] for row in rows]
    kept = {tuple(pair) for pair in inputs.evaluation.get("retained") or [] if is_pair(pair)}
    title = "How much each key-value group looks up earlier text"
    note = (
        "Induction score, in percent of the highest; measured without training. The best groups "
        "(<b>S</b>) keep their softmax attention."
    )
    drawing = heat_map(shares, title, kept, "group")
    return f'<h3 class="further">{title}</h3><p class="note">{note}</p><div class="scroll">{drawing}</div>'
