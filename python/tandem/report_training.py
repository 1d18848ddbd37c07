"""The report's account of the training: loss curves, stages, cost."""

from html import escape

from tandem.report_charts import line_chart
from tandem.report_inputs import number
from tandem.report_words import cell, duration, figure, missing, section, size, table

COLUMNS = ("Steps", "Batch", "Learning rate", "Tokens", "Time", "Tokens/s", "Last loss")
TITLES = {"attention_transfer": "Attention transfer", "finetune": "Finetuning"}
TAUGHT = {
    "weights": "the teacher's attention weights",
    "outputs": "the teacher's attention outputs, by the linear branch alone",
    "hybrid_outputs": "the teacher's attention outputs",
    "hybrid_weights": "the teacher's attention weights, together with the window",
    "mixture": "a mixture of the teacher's weights and outputs",
}


def loss_curves(inputs):
    title = "How it was trained"
    if not inputs.steps:
        return section(title, missing("no attempt left metrics.jsonl"))
    charts = "".join(stage_chart(index, inputs.steps[index]) for index in sorted(inputs.steps))
    return section(title, f'<div class="pair">{charts}</div>', "Training loss by step.")


def stage_chart(index, lines):
    steps = [lines[step] for step in sorted(lines)]
    kind = str(steps[0].get("stage", "stage"))
    title = TITLES.get(kind, kind)
    points = [(line["step"], line["loss"]) for line in steps]
    if any(line.get("layers") for line in steps):
        series, keys = layer_series(steps, points)
    else:
        series, keys = dropout_series(steps, points)
    drawing = line_chart(series, f"{title}: loss by step")
    return f"<div><h3>{index + 1}. {escape(title)}</h3>{drawing}<div>{keys}</div></div>"


def layer_series(steps, points):
    """A line per layer behind their mean."""
    layers = {}
    for line in steps:
        for layer, loss in enumerate(line.get("layers") or []):
            if number(loss) is not None:
                layers.setdefault(layer, []).append((line["step"], loss))
    series = [{"points": layers[layer], "class": "faint"} for layer in sorted(layers)]
    series.append({"points": points, "class": "linear_only"})
    return series, key("linear_only", "mean of the layers") + key("faint", "each layer")


def dropout_series(steps, points):
    """Steps without the window have another loss than steps with it: two lines."""
    without, within = [], []
    for line in steps:
        dropped = (number(line.get("window_dropped")) or 0) >= 0.5
        (without if dropped else within).append((line["step"], line["loss"]))
    if not without:
        return [{"points": points, "class": "hybrid"}], key("hybrid", "hybrid")
    series = [{"points": without, "class": "linear_only"}]
    keys = key("linear_only", "steps with the window dropped")
    if within:
        series.append({"points": within, "class": "hybrid"})
        keys = key("hybrid", "steps with the window") + keys
    return series, keys


def key(css, words):
    return f'<span class="key {css}"><i class="{css}"></i>{escape(words)}</span>'


def stages(inputs):
    title, plan = "The plan, and what came of it", inputs.plan.get("stages", [])
    if not inputs.plan:
        return section(title, missing("no attempt left plan.json"))
    if not plan:
        return section(title, "<p>No training: the model was taken as it is.</p>" + cost(inputs))
    head = [("wide", "Stage"), *(("n", name) for name in COLUMNS)]
    rows = "".join(stage_row(inputs, i, stage) for i, stage in enumerate(plan))
    return section(title, table(head, rows, "figures") + attention_words(inputs) + cost(inputs))


def stage_row(inputs, index, stage):
    lines = inputs.steps.get(index, {})
    seconds = sum(number(line.get("seconds")) or 0 for line in lines.values())
    tokens = sum(number(line.get("tokens")) or 0 for line in lines.values())
    cells = (
        steps_words(lines, stage),
        stage.get("batch_size", "–"),
        f"{stage.get('learning_rate', 0):g}",
        f"{tokens:,.0f}" if lines else "–",
        duration(seconds),
        f"{tokens / seconds:,.0f}" if seconds else "–",
        figure(lines[max(lines)]["loss"] if lines else None),
    )
    title = TITLES.get(stage.get("kind"), str(stage.get("kind")))
    what = stage_words(stage)
    reused = any(line.get("reused") for line in lines.values())
    if reused or (not lines and inputs.evaluation and inputs.attempts):
        what += "; no step was made here: the result of an equal stage was taken over"
    return (
        f'<tr><td><span class="who">{escape(title)}</span>'
        f'<span class="note">{escape(what)}</span></td>'
        + "".join(cell(name, words) for name, words in zip(COLUMNS, cells))
        + "</tr>"
    )


def steps_words(lines, stage):
    planned = stage.get("steps", "–")
    return f"{planned}" if not lines or max(lines) == planned else f"{max(lines)} of {planned}"


def stage_words(stage):
    if stage.get("kind") == "attention_transfer":
        words = f"feature maps learn {TAUGHT.get(stage.get('objective'), stage.get('objective'))}"
        return words + (", each layer until it no longer gains" if stage.get("stop_patience") else "")
    words = f"LoRA rank {stage.get('lora_rank')}, mode {stage.get('mode')}"
    trained = [
        name
        for flag, name in (("train_maps", "feature maps"), ("train_factor", "window factors"))
        if stage.get(flag)
    ]
    if trained:
        words += f", with {' and '.join(trained)}"
    if stage.get("loss") in ("distill", "mixture"):
        words += ", the base's predictions as the goal"
        words += " in part" if stage["loss"] == "mixture" else ""
    if stage.get("ssd_schedule"):
        chances = " / ".join(f"{p:g}" for p in stage["ssd_schedule"])
        words += f", window dropped with probability {chances}"
    if stage.get("ssd_window_schedule"):
        words += f", windows of {' / '.join(str(w) for w in stage['ssd_window_schedule'])}"
    if stage.get("stop_component") not in (None, "", "none"):
        words += f", to stop when {stage['stop_component']} gets worse"
    return words


def attention_words(inputs):
    attention = inputs.plan.get("attention", {})
    span = (
        "all earlier keys" if attention.get("linear_span") == "all" else "keys outside the window"
    )
    words = (
        f"Attention: {attention.get('feature_map_kind', '?')} feature map of "
        f"{attention.get('feature_dim', '?')}; {attention.get('window_kind', '?')} window of "
        f"{attention.get('window_size', '?')} tokens, {attention.get('window_sinks', 0)} sinks; "
        f"the linear branch reads {span}. Sequences of "
        f"{inputs.plan.get('data', {}).get('sequence_length', '?')} tokens."
    )
    return f'<p class="note">{escape(words)}</p>'


def cost(inputs):
    known = inputs.evaluation.get("cost")
    known = known if isinstance(known, dict) else {}
    seconds = inputs.measured_seconds or number(known.get("seconds"))
    tokens = inputs.measured_tokens or int(number(known.get("tokens")) or 0)
    if not seconds:
        return ""
    ranks = inputs.plan.get("ranks", 1)
    words = (
        f"Cost: {tokens:,} tokens in {duration(seconds)} of "
        f"training steps on {ranks} rank{'s' if ranks != 1 else ''}"
    )
    if inputs.attempts > 1:
        words += f", over {inputs.attempts} attempts (repeated steps are counted)"
    seconds = number(inputs.evaluation.get("seconds"))
    if seconds:
        words += f"; evaluation {duration(seconds)}"
    if number(known.get("peak_memory_bytes")):
        words += f"; at most {size(known['peak_memory_bytes'])} of memory"
    return f'<p class="note">{escape(words)}.</p>'
