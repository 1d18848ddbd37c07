"""The report's account of the training: loss curves, stages, cost."""

from html import escape

from tandem.report_charts import line_chart
from tandem.report_inputs import number
from tandem.report_words import duration, figure, missing, section, table

TITLES = {"attention_transfer": "Attention transfer", "finetune": "Finetuning"}
TAUGHT = {
    "weights": "the teacher's attention weights",
    "hybrid_outputs": "the teacher's attention outputs",
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
    title, plan = "What was done", inputs.plan.get("stages", [])
    if not plan:
        return section(title, missing("no attempt left plan.json"))
    names = ("Steps", "Batch", "Learning rate", "Tokens", "Time", "Tokens/s", "Last loss")
    head = [("wide", "Stage"), *(("n", name) for name in names)]
    rows = "".join(stage_row(inputs.steps.get(i, {}), stage) for i, stage in enumerate(plan))
    return section(title, table(head, rows) + attention_words(inputs) + cost(inputs))


def stage_row(lines, stage):
    seconds = sum(number(line.get("seconds")) or 0 for line in lines.values())
    tokens = sum(number(line.get("tokens")) or 0 for line in lines.values())
    cells = (
        stage.get("steps", "–"),
        stage.get("batch_size", "–"),
        f"{stage.get('learning_rate', 0):g}",
        f"{tokens:,.0f}",
        duration(seconds),
        f"{tokens / seconds:,.0f}" if seconds else "–",
        figure(lines[max(lines)]["loss"] if lines else None),
    )
    title = TITLES.get(stage.get("kind"), str(stage.get("kind")))
    return (
        f'<tr><td><span class="who">{escape(title)}</span>'
        f'<span class="note">{escape(stage_words(stage))}</span></td>'
        + "".join(f'<td class="n">{cell}</td>' for cell in cells)
        + "</tr>"
    )


def stage_words(stage):
    if stage.get("kind") == "attention_transfer":
        return f"feature maps learn {TAUGHT.get(stage.get('objective'), stage.get('objective'))}"
    words = f"LoRA rank {stage.get('lora_rank')}, mode {stage.get('mode')}"
    if stage.get("train_maps"):
        words += ", with feature maps"
    if stage.get("ssd_schedule"):
        chances = " / ".join(f"{p:g}" for p in stage["ssd_schedule"])
        words += f", window dropped with probability {chances}"
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
    if not inputs.measured_seconds:
        return ""
    ranks = inputs.plan.get("ranks", 1)
    words = (
        f"Cost: {inputs.measured_tokens:,} tokens in {duration(inputs.measured_seconds)} of "
        f"training steps on {ranks} rank{'s' if ranks != 1 else ''}"
    )
    if inputs.attempts > 1:
        words += f", over {inputs.attempts} attempts (repeated steps are counted)"
    seconds = number(inputs.evaluation.get("seconds"))
    if seconds:
        words += f"; evaluation {duration(seconds)}"
    return f'<p class="note">{escape(words)}.</p>'
