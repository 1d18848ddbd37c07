"""What the report is made of: the evaluation, all attempts' metrics, plan and manifests.

Everything but the job folder may be missing or damaged: then the report says so in its place.
"""

import json
import math
import os
from dataclasses import dataclass, field


@dataclass
class ReportInputs:
    job_folder: str
    evaluation: dict = field(default_factory=dict)  # report.json
    export_cost: dict = field(default_factory=dict)  # export_cost.json, later than report.json
    plan: dict = field(default_factory=dict)  # of the newest attempt
    manifest: dict = field(default_factory=dict)  # of the exported model
    model_config: dict = field(default_factory=dict)  # its config.json
    tokens: dict = field(default_factory=dict)  # manifest of the token shards
    steps: dict = field(default_factory=dict)  # stage_index -> lines of metrics.jsonl by step
    attempts: int = 0
    measured_seconds: float = 0.0  # of all steps, repeated ones too
    measured_tokens: int = 0
    absent: list = field(default_factory=list)  # sentences


def read_inputs(job_folder):
    inputs = ReportInputs(job_folder)
    artifacts = os.path.join(job_folder, "artifacts")
    inputs.evaluation = read_object(
        inputs, os.path.join(artifacts, "report.json"), "the evaluation"
    )
    export_cost = os.path.join(artifacts, "export_cost.json")
    if os.path.exists(export_cost):
        inputs.export_cost = read_object(inputs, export_cost, "the export's cost")
    early_stop = os.path.join(artifacts, "early_stop.json")
    if inputs.evaluation and "early_stop" not in inputs.evaluation and os.path.exists(early_stop):
        inputs.evaluation["early_stop"] = read_object(inputs, early_stop, "the early stop")
    drop_odd_parts(inputs.evaluation)
    read_attempts(inputs)
    inputs.manifest = read_object(
        inputs, os.path.join(artifacts, "model", "manifest.json"), "the exported model's manifest"
    )
    config = os.path.join(artifacts, "model", "config.json")
    if os.path.exists(config):
        inputs.model_config = read_object(inputs, config, "the exported model's configuration")
    tokens = inputs.plan.get("data", {}).get("tokens")
    if tokens:
        inputs.tokens = read_object(
            inputs, os.path.join(tokens, "manifest.json"), "the tokens' manifest"
        )
    return inputs


def drop_odd_parts(evaluation):
    """Optional parts of another shape than the format's are as good as absent."""
    for key in ("beats_window", "recall", "early_stop", "cost", "suites_average"):
        if not isinstance(evaluation.get(key), dict):
            evaluation.pop(key, None)
    for key in ("passkey", "long_range", "suites", "lengths"):
        rows = evaluation.get(key)
        rows = rows if isinstance(rows, list) else []
        evaluation[key] = [row for row in rows if isinstance(row, dict)]
    for key in ("retained", "retain_scores"):
        rows = evaluation.get(key)
        rows = rows if isinstance(rows, list) else []
        evaluation[key] = [row for row in rows if isinstance(row, list)]


def read_object(inputs, path, what):
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
        if isinstance(value, dict):
            return value
        reason = "is not a JSON object"
    except OSError:
        reason = "is not there"
    except ValueError:
        reason = "is not JSON"
    inputs.absent.append(f"{what} ({os.path.relpath(path, inputs.job_folder)} {reason})")
    return {}


def read_attempts(inputs):
    """Plan of the newest attempt, and each step's line from the newest attempt that made it."""
    folder = os.path.join(inputs.job_folder, "attempts")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    epochs = sorted(int(name) for name in names if name.isdigit())
    inputs.attempts = len(epochs)
    for epoch in epochs:
        read_metrics(inputs, os.path.join(folder, str(epoch), "metrics.jsonl"))
        path = os.path.join(folder, str(epoch), "plan.json")
        if os.path.exists(path):
            inputs.plan = read_object(inputs, path, "the plan") or inputs.plan
    if not inputs.plan:
        inputs.absent.append("the plan (attempts/*/plan.json)")
    if not inputs.steps:
        inputs.absent.append("the training's figures (attempts/*/metrics.jsonl)")


def read_metrics(inputs, path):
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            line = metrics_line(text)
            if line is None:
                continue  # a killed rank leaves half a line
            inputs.steps.setdefault(line["stage_index"], {})[line["step"]] = line
            if line.get("reused"):
                continue  # made by another job, whose cost it was
            inputs.measured_seconds += number(line.get("seconds")) or 0.0
            inputs.measured_tokens += int(number(line.get("tokens")) or 0)


def metrics_line(text):
    try:
        line = json.loads(text)
        whole = isinstance(line["stage_index"], int) and isinstance(line["step"], int)
    except (ValueError, KeyError, TypeError):
        return None
    return line if whole and number(line.get("loss")) is not None else None


def number(value):
    """The value as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None
