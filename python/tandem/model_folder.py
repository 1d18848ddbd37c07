"""What a model's folder says to one who writes text with it: where a text ends, how it is served,
which base it came from. Works on exports and on base models."""

import json
import os

from tandem.violations import Violations

# Component modes that a model can write in.
MODE_WORDS = {
    "softmax": "softmax, key/value cache",
    "hybrid": "linear attention and a softmax window",
    "window_only": "the softmax window alone",
    "linear_only": "linear attention alone",
}


def read_json(path):
    """The file's object; {} where it is not there or not JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def stop_ids(folder, tokenizer):
    """Ids that end a text: generation_config.json's, else config.json's, else the tokenizer's."""
    for name in ("generation_config.json", "config.json"):
        value = read_json(os.path.join(folder, name)).get("eos_token_id")
        values = value if isinstance(value, list) else [value]
        if found := [v for v in values if type(v) is int and v >= 0]:
            return found
    return [] if tokenizer.eos is None else [tokenizer.eos]


def is_converted(folder):
    return "hybrid" in read_json(os.path.join(folder, "config.json"))


def served_words(folder):
    hybrid = read_json(os.path.join(folder, "config.json")).get("hybrid")
    return MODE_WORDS.get(hybrid.get("mode"), "converted") if isinstance(hybrid, dict) else "base"


def find_base(folder, given):
    """The base model's folder; DataRefused when nothing names one that is there."""
    violations = Violations()
    if given:
        return given
    if not is_converted(folder):
        violations.add("compare", f"{folder} is a base model itself; there is none beside it")
        violations.raise_if_any()
    spec = read_json(os.path.join(folder, "manifest.json")).get("spec")
    model = spec.get("model") if isinstance(spec, dict) else None
    path = model.get("path") if isinstance(model, dict) else None
    if not isinstance(path, str):
        violations.add("compare", f"{folder}/manifest.json names no base model; pass --base DIR")
    elif not os.path.isdir(path):
        violations.add("compare", f"the base model is no longer at {path}; pass --base DIR")
    violations.raise_if_any()
    return path
