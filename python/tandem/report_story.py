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


def retained_words(inputs):
    """Subject and verb: `one key-value group keeps`; "" where all attention was replaced."""
    count = len(inputs.evaluation.get("retained") or [])
    if not count:
        return ""
    return "one key-value group keeps" if count == 1 else f"{count} key-value groups keep"


def story(inputs):
    if not inputs.plan:
        return ""
    recipe = recipe_of(inputs)
    name = inputs.plan.get("converted") if recipe == "diagnose" else inputs.plan.get("model")
    model = os.path.basename(str(name or "").rstrip("/")) or "the model"
    words = (
        "<p>In a Transformer every token looks back at every earlier one (softmax attention): the "
        f"longer the text, the dearer the next token. {change_words(inputs, recipe, model)}"
    )
    kept = retained_words(inputs)
    words += f" {kept[0].upper()}{kept[1:]} the base's full attention.</p>" if kept else "</p>"
    if recipe in RECIPES:
        words += f"<p>Recipe <b>{escape(recipe)}</b>: {escape(RECIPES[recipe])}. "
    else:
        words += "<p>The stages were given one by one. "
    words += f"The model is used with {SERVED[served_mode(inputs)]}.</p>"
    return section("What was done", words)


def change_words(inputs, recipe, model):
    window = escape(str(inputs.plan.get("attention", {}).get("window_size", "a few")))
    components = (
        f"a <b>window</b>, softmax attention over the last {window} tokens, and a <b>linear "
        "branch</b>, which carries everything older in a memory of fixed size."
    )
    if recipe == "window_control":
        return (
            f"This job cut <b>{escape(model)}</b> down to a <b>window</b> of the last {window} "
            "tokens and trained that, to see how far a window alone gets."
        )
    if recipe == "diagnose":
        return f"This job measured <b>{escape(model)}</b>, which has two components: {components}"
    return f"This job replaced that in <b>{escape(model)}</b> by two cheap components: {components}"
