"""The report's opening for newcomers: what this job did to the model, in a few sentences."""

import json
import os
from html import escape

from tandem.report_words import section

SERVED = {
    "hybrid": "both together",
    "linear_only": "the linear branch alone",
    "window_only": "the window alone",
}
RECIPES = {
    "linear": "the linear branch alone is trained and used",
    "inference_hybrid": (
        "the linear branch alone is trained; the window joins it only when the model is used"
    ),
    "lolcats": "the published recipe (LoLCATs): both are trained together, and nothing keeps the "
    "window from doing all the work",
    "hedgecats": "both are trained together, only briefly: training stops before the linear "
    "branch gets worse than it was",
    "ssd": "both are trained together, but the window is switched off at random, so that the "
    "linear branch has to learn the context by itself",
    "window_control": "no conversion but its control: the window alone, trained for as long",
    "diagnose": "nothing was trained: a model that exists already was examined",
}


def spec_of(inputs):
    """The resolved job, as far as the plan tells it."""
    try:
        spec = json.loads(inputs.plan.get("spec_json") or "{}")
    except (TypeError, ValueError):
        spec = {}
    return spec if isinstance(spec, dict) else {}


def recipe_of(inputs):
    found = inputs.evaluation.get("recipe") or inputs.plan.get("recipe")
    return str(found or spec_of(inputs).get("recipe") or "")


def served_mode(inputs):
    mode = inputs.evaluation.get("served_mode") or inputs.plan.get("served_mode")
    return mode if isinstance(mode, str) and mode in SERVED else "hybrid"


def story(inputs):
    if not inputs.plan:
        return ""
    attention = inputs.plan.get("attention", {})
    base = os.path.basename(str(inputs.plan.get("model", "")).rstrip("/")) or "the base model"
    recipe = recipe_of(inputs)
    window = attention.get("window_size", "a few")
    words = (
        f"<p>In the base model <b>{escape(base)}</b> every token looks back at every earlier one "
        "(softmax attention): the longer the text, the dearer the next token. This job replaced "
        "that by two cheap components: a <b>window</b>, softmax attention over the last "
        f"{escape(str(window))} tokens, and a <b>linear branch</b>, which carries everything older "
        "in a memory of fixed size."
    )
    kept = inputs.evaluation.get("retained") or []
    if kept:
        groups = "group keeps" if len(kept) == 1 else "groups keep"
        words += f" {len(kept)} key-value {groups} the base's full attention."
    words += "</p>"
    if recipe in RECIPES:
        words += f"<p>Recipe <b>{escape(recipe)}</b>: {escape(RECIPES[recipe])}. "
    else:
        words += "<p>The stages were given one by one. "
    words += f"The model is used with {SERVED[served_mode(inputs)]}.</p>"
    return section("What was done", words)
