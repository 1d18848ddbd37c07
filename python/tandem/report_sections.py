"""The report's sections: each takes the inputs and returns HTML, or says what is absent."""

import os
from html import escape

from tandem.report_charts import heat_map, line_chart
from tandem.report_inputs import number

COMPONENTS = {  # in the table's order: who, what it reads
    "softmax": ("Base model", "the original: full softmax attention"),
    "hybrid": ("Hybrid", "the converted model, as it is used"),
    "window_only": ("Window alone", "linear branch switched off"),
    "linear_only": ("Linear branch alone", "window switched off"),
    "sinks_only": ("First tokens alone", "no context but the first {sinks}: the zero of the scale"),
    "none": ("No attention", "each token on its own"),
}
HEADLINES = {
    "balanced": "Balanced: both components pull",
    "leaning": "Leaning: one component pulls more than its share",
    "collapsed": "Collapsed: the linear branch is bypassed",
}
MEANING = {
    "balanced": (
        "Switch the softmax window off, and the linear branch still carries most of what attention is worth; "
        "switch the linear branch off, and the text gets measurably harder to predict. This model is the hybrid that "
        "it says it is."
    ),
    "leaning": (
        "Both components do something, but one of them could nearly be left out. Look at the table below for which, "
        "and at the threshold that was missed."
    ),
    "collapsed": (
        "The hybrid's loss may look fine, but its small softmax window of {window} tokens does the work. The linear "
        "branch, which should carry everything older, contributes too little: what lies further back is largely lost. "
        "Benchmarks with short prompts do not show this."
    ),
}


def percent(value, digits=0):
    value = number(value)
    return "–" if value is None else f"{100 * value:.{digits}f} %".replace("-", "−")


def figure(value, digits=3):
    value = number(value)
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def section(title, body, note=""):
    lead = f'<p class="note">{note}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{body}</section>\n"


def missing(what):
    return f'<p class="note">Not available: {escape(what)}.</p>'


def verdict(inputs):
    found = inputs.evaluation
    word = found.get("verdict")
    if word not in HEADLINES:
        body = "The job has no evaluation, so nothing can be said about its components."
        return f'<section class="verdict unknown"><p class="word">Not evaluated</p><p>{body}</p></section>\n'
    window = inputs.plan.get("attention", {}).get("window_size", "a few")
    reason = escape(str(found.get("verdict_reason", "")))
    return (
        f'<section class="verdict {word}"><p class="word">{HEADLINES[word]}</p>'
        f"<p>{MEANING[word].format(window=escape(str(window)))}</p>"
        f"<p><b>Why:</b> {reason}.</p></section>\n"
    )


def tiles(inputs):
    found = inputs.evaluation
    if not found:
        return ""
    thresholds = found.get("thresholds", {})
    parts = found.get("components", {})
    hybrid, base = (number(parts.get(mode, {}).get("loss")) for mode in ("hybrid", "softmax"))
    gap = (
        ""
        if hybrid is None or base is None
        else f"{hybrid - base:+.3f} nats against the base".replace("-", "−")
    )
    interval = f"95 % interval {figure(found.get('linear_delta_low'))} to {figure(found.get('linear_delta_high'))}"
    limits = (
        f"alone; collapsed below {percent(thresholds.get('collapsed_below'))}, "
        f"balanced from {percent(thresholds.get('leaning_below'))}"
    )
    entries = [
        ("Linear branch recovers", percent(found.get("linear_capability")), limits),
        ("Hybrid's loss", figure(hybrid), gap),
        ("Worth of the linear branch", f"{figure(found.get('linear_delta'))} nats", interval),
        (
            "Beyond the window",
            percent(found.get("beyond_window")),
            "of what lies outside the window is brought back by the linear branch",
        ),
    ]
    cells = "".join(
        f'<div class="tile"><p class="note">{title}</p><div class="figure">{value}</div>'
        f'<p class="note">{escape(note)}</p></div>'
        for title, value, note in entries
    )
    return f'<div class="tiles">{cells}</div>\n'


def components(inputs):
    parts = inputs.evaluation.get("components", {})
    if not parts:
        return section("What each component can do", missing("the evaluation has no components"))
    sinks = inputs.plan.get("evaluate", {}).get("sinks", "few")
    rows = "".join(
        component_row(mode, who, what.format(sinks=sinks), parts[mode])
        for mode, (who, what) in COMPONENTS.items()
        if mode in parts
    )
    head = (
        '<thead><tr><th>Model</th><th>Recovered</th><th class="n">Loss</th>'
        '<th class="n">Perplexity</th></tr></thead>'
    )
    note = (
        "Loss on held-out text, in nats per token, with each component switched off in turn. "
        "<b>Recovered</b> is the share of attention's worth: 100 % is the base model's full attention, 0 % a model "
        "that sees its first tokens only."
    )
    table = (
        f'<div class="scroll"><table class="components">{head}<tbody>{rows}</tbody></table></div>'
    )
    counted = (
        f'<p class="note">{inputs.evaluation.get("sequences", "?")} sequences of '
        f'{inputs.evaluation.get("sequence_length", "?")} tokens; ± is one standard error. The linear branch alone '
        "reads all earlier tokens, also those that the hybrid reads through its window.</p>"
    )
    return section("What each component can do", table + counted, note)


def component_row(mode, who, what, figures):
    recovered = number(figures.get("recovered"))
    width = 0 if recovered is None else 100 * min(max(recovered, 0.0), 1.0)
    error = number(figures.get("standard_error"))
    spread = "" if error is None else f' <span class="note">± {error:.3f}</span>'
    return (
        f'<tr class="{mode}"><td><span class="who">{who}</span><span class="note">{escape(what)}</span></td>'
        f'<td><div class="bar"><span class="track"><span class="fill" style="width:{width:.1f}%"></span></span>'
        f"<b>{percent(recovered)}</b></div></td>"
        f'<td class="n" data-name="loss">{figure(figures.get("loss"))}{spread}</td>'
        f'<td class="n" data-name="perplexity">{figure(figures.get("perplexity"), 2)}</td></tr>'
    )


# ---------------------------------------------------------------- training


def stage_title(inputs, index, lines):
    stages = inputs.plan.get("stages", [])
    kind = (
        stages[index].get("kind")
        if index < len(stages)
        else next(iter(lines.values())).get("stage", "stage")
    )
    return {"attention_transfer": "Attention transfer", "finetune": "Finetuning"}.get(
        kind, str(kind)
    )


def key(css, words):
    return f'<span class="key {css}"><i class="{css}"></i>{escape(words)}</span>'


def loss_curves(inputs):
    if not inputs.steps:
        return section("How it was trained", missing("no attempt left metrics.jsonl"))
    charts = "".join(
        stage_chart(inputs, index, inputs.steps[index]) for index in sorted(inputs.steps)
    )
    return section(
        "How it was trained", f'<div class="pair">{charts}</div>', "Training loss by step."
    )


def stage_chart(inputs, index, lines):
    title = stage_title(inputs, index, lines)
    steps = [lines[step] for step in sorted(lines)]
    points = [(line["step"], line["loss"]) for line in steps]
    if any(line.get("layers") for line in steps):
        series, keys = layer_series(steps, points)
        drawing = line_chart(series, f"{title}: loss by step", log=True)
    else:
        series, keys = dropout_series(steps, points)
        drawing = line_chart(series, f"{title}: loss by step")
    return f"<div><h3>{index + 1}. {escape(title)}</h3>{drawing}<div>{keys}</div></div>"


def layer_series(steps, points):
    layers = max(len(line.get("layers") or []) for line in steps)
    series = []
    for layer in range(layers):
        own = [
            (line["step"], line["layers"][layer])
            for line in steps
            if len(line.get("layers") or []) > layer and number(line["layers"][layer]) is not None
        ]
        series.append({"points": own, "class": "faint"})
    series.append({"points": points, "class": "linear_only"})
    return series, key("linear_only", "mean of the layers") + key("faint", "each layer")


def dropout_series(steps, points):
    """With window dropout the two kinds of steps have different losses: two lines."""
    dropped = [
        (line["step"], line["loss"])
        for line in steps
        if (number(line.get("window_dropped")) or 0) >= 0.5
    ]
    kept = [
        (line["step"], line["loss"])
        for line in steps
        if (number(line.get("window_dropped")) or 0) < 0.5
    ]
    if not dropped:
        return [{"points": points, "class": "hybrid"}], key("hybrid", "hybrid")
    series = [{"points": dropped, "class": "linear_only"}]
    keys = key("linear_only", "steps with the window dropped")
    if kept:
        series.append({"points": kept, "class": "hybrid"})
        keys = key("hybrid", "steps with the window") + keys
    return series, keys


def stages_table(inputs):
    stages = inputs.plan.get("stages", [])
    if not stages:
        return section("What was done", missing("no attempt left plan.json"))
    length = inputs.plan.get("data", {}).get("sequence_length")
    head = "".join(
        f'<th class="{css}">{name}</th>'
        for css, name in (
            ("", "Stage"), ("n", "Steps"), ("n", "Batch"), ("n", "Learning rate"), ("n", "Tokens"),
            ("n", "Time"), ("n", "Tokens/s"), ("n", "Last loss"),
        )
    )  # fmt: skip
    rows = "".join(stage_row(inputs, index, stage) for index, stage in enumerate(stages))
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    attention = inputs.plan.get("attention", {})
    words = (
        f"Attention: {attention.get('feature_map_kind', '?')} feature map of {attention.get('feature_dim', '?')}; "
        f"{attention.get('window_kind', '?')} window of {attention.get('window_size', '?')} tokens, "
        f"{attention.get('window_sinks', 0)} sinks; the linear branch reads "
        f"{'all earlier keys' if attention.get('linear_span') == 'all' else 'the keys outside the window'}. "
        f"Sequences of {length} tokens."
    )
    return section("What was done", table + f'<p class="note">{escape(words)}</p>' + cost(inputs))


def stage_row(inputs, index, stage):
    lines = inputs.steps.get(index, {})
    seconds = sum(number(line.get("seconds")) or 0 for line in lines.values())
    tokens = sum(number(line.get("tokens")) or 0 for line in lines.values())
    last = lines[max(lines)]["loss"] if lines else None
    rate = f"{tokens / seconds:,.0f}" if seconds else "–"
    title = {"attention_transfer": "Attention transfer", "finetune": "Finetuning"}.get(
        stage.get("kind"), "Stage"
    )
    return (
        f'<tr><td><span class="who">{title}</span><span class="note">{escape(stage_words(stage))}</span></td>'
        f'<td class="n">{stage.get("steps", "–")}</td><td class="n">{stage.get("batch_size", "–")}</td>'
        f'<td class="n">{stage.get("learning_rate", 0):g}</td><td class="n">{tokens:,.0f}</td>'
        f'<td class="n">{duration(seconds)}</td><td class="n">{rate}</td><td class="n">{figure(last)}</td></tr>'
    )


def stage_words(stage):
    if stage.get("kind") == "attention_transfer":
        taught = {
            "weights": "the teacher's attention weights",
            "hybrid_outputs": "the teacher's attention outputs",
        }
        return f"feature maps learn {taught.get(stage.get('objective'), stage.get('objective'))}"
    words = f"LoRA rank {stage.get('lora_rank')}, mode {stage.get('mode')}"
    if stage.get("train_maps"):
        words += ", with feature maps"
    if stage.get("ssd_schedule"):
        words += ", window dropped with probability " + " / ".join(
            f"{p:g}" for p in stage["ssd_schedule"]
        )
    return words


def duration(seconds):
    if not seconds:
        return "–"
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    )


def cost(inputs):
    if not inputs.measured_seconds:
        return ""
    ranks = inputs.plan.get("ranks", 1)
    words = (
        f"Cost: {inputs.measured_tokens:,} tokens in {duration(inputs.measured_seconds)} of training steps on "
        f"{ranks} rank{'s' if ranks != 1 else ''}"
    )
    if inputs.attempts > 1:
        words += f", over {inputs.attempts} attempts (steps that were repeated are counted)"
    seconds = number(inputs.evaluation.get("seconds"))
    if seconds:
        words += f"; evaluation {duration(seconds)}"
    return f'<p class="note">{escape(words)}.</p>'


# ---------------------------------------------------------------- inside the model


def linear_mass(inputs):
    rows = inputs.evaluation.get("linear_mass") or []
    rows = [[number(share) for share in row] for row in rows if isinstance(row, list) and row]
    title = "Where the linear branch is used"
    if not rows:
        return section(title, missing("the evaluation has no shares by layer and head"))
    note = (
        "Share of the attention weight, in percent, that each head gives to the linear branch, over tokens that are at "
        "least two windows from the start. It describes; it does not decide: a branch can have weight and no content."
    )
    return section(title, f'<div class="scroll">{heat_map(rows, title)}</div>', note)


def passkey(inputs):
    rows = inputs.evaluation.get("passkey") or []
    title = "Recall by distance"
    if not rows:
        return section(title, missing("no passkey prompts were evaluated"))
    modes = [mode for mode in COMPONENTS if any(mode in row.get("accuracy", {}) for row in rows)]
    head = "".join(f"<th>{COMPONENTS[mode][0]}</th>" for mode in modes)
    body = "".join(passkey_row(inputs, row, modes) for row in rows)
    note = (
        "A number is hidden in the text and asked for so many tokens later. Share of prompts in which every digit is "
        "the model's first choice. Only distances beyond the reach of the stacked windows prove the linear branch."
    )
    table = (
        f'<div class="scroll"><table><thead><tr><th>Distance in tokens</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    return section(title, table, note)


def passkey_row(inputs, row, modes):
    distance, accuracy = row.get("distance", 0), row.get("accuracy", {})
    cells = ""
    for mode in modes:
        share = number(accuracy.get(mode))
        width = 0 if share is None else 100 * share
        cells += (
            f'<td class="{mode}"><div class="bar"><span class="track"><span class="fill" '
            f'style="width:{width:.1f}%"></span></span><b>{percent(share)}</b></div></td>'
        )
    return (
        f'<tr><td><span class="who">{distance}</span><span class="note">{reach(inputs, distance)}</span></td>'
        f"{cells}</tr>"
    )


def reach(inputs, distance):
    """Whether the window of one layer, or of all layers on top of each other, covers the distance."""
    window, layers = inputs.plan.get("attention", {}).get("window_size"), inputs.evaluation.get(
        "linear_mass"
    )
    if not isinstance(window, int) or not layers:
        return ""
    if distance <= window:
        return "inside the window"
    return (
        "in reach of stacked windows"
        if distance <= len(layers) * (window - 1)
        else "beyond the windows"
    )


# ---------------------------------------------------------------- provenance


def loading(inputs):
    folder = os.path.join(inputs.job_folder, "artifacts", "model")
    if not os.path.isdir(folder):
        return section("How to use the model", missing("no model was exported"))
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'path = "{folder}"\n'
        "model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)\n"
        "tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)\n"
        'inputs = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))"
    )
    note = (
        "Works with transformers 4.56 and later, and 5; needs torch and transformers only. The classes lie in the "
        "folder, hence trust_remote_code. Generation keeps a cache of constant size."
    )
    return section("How to use the model", f"<pre>{escape(code)}</pre>", note)


def provenance(inputs):
    entries = [
        ("Job", inputs.evaluation.get("job") or inputs.plan.get("job_name")),
        ("Job uid", inputs.evaluation.get("uid") or inputs.plan.get("job_uid")),
        ("Base model", inputs.plan.get("model")),
        ("Seed", inputs.plan.get("seed")),
        ("Spec SHA-256", inputs.plan.get("spec_sha256")),
        ("Tokenizer SHA-256", inputs.tokens.get("tokenizer_sha256")),
        ("Tokens", tokens_words(inputs.tokens)),
    ]
    for split in ("train", "validation"):
        for source in inputs.tokens.get("sources", {}).get(split, []):
            words = f"{source.get('name')}, {source.get('bytes', 0):,} bytes, SHA-256 {source.get('sha256')}"
            entries.append((f"Text ({split})", words))
    entries += list(manifest_digests(inputs.manifest))
    rows = "".join(
        f'<dt>{escape(str(name))}</dt><dd class="digest">{escape(str(value))}</dd>'
        for name, value in entries
        if value not in (None, "")
    )
    absent = ""
    if inputs.absent:
        absent = (
            '<p class="note">Not found when this report was made: '
            + escape("; ".join(inputs.absent))
            + ".</p>"
        )
    return section("Where it comes from", f"<dl>{rows}</dl>{absent}")


def tokens_words(manifest):
    tokens = manifest.get("tokens")
    if not isinstance(tokens, dict):
        return None
    words = ", ".join(f"{count:,} {split}" for split, count in tokens.items())
    return f"{words} (validation: {manifest.get('validation', '?')})"


def manifest_digests(manifest):
    """The digests of the export's manifest, whatever its groups are called: name and hexadecimal digits."""
    for group, value in sorted(manifest.items()):
        if isinstance(value, str) and group.endswith("sha256"):
            yield group, value
        elif isinstance(value, dict):
            for name, entry in sorted(value.items()):
                digest = entry.get("sha256") if isinstance(entry, dict) else entry
                if isinstance(digest, str) and len(digest) == 64:
                    yield f"{group}: {name}", digest
