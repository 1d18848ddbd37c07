"""The report: complete, self-contained, the same bytes each time, honest about what is missing."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from conftest import ROOT
from report_job import BALANCED, COLLAPSED, FULL, PLAN, write_job
from tandem import report, report_charts, report_inputs


def page_of(folder):
    return report.render(report_inputs.read_inputs(str(folder)))


class Checker(HTMLParser):
    """Tags must nest; no script, no reference to anything outside the file."""

    VOID = {"meta", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.outside = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        names = {"src", "href", "xlink:href", "srcset", "action", "onload", "onclick"}
        if tag in ("script", "link", "iframe", "object", "base") or names & {
            n for n, _ in attributes
        }:
            self.outside.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another tag"


def assert_self_contained(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == [] and checker.outside == []
    assert not re.search(r"https?://|url\(|@import|javascript:", page)


def test_balanced_page_says_everything(tmp_path):
    page = page_of(write_job(tmp_path / "job"))
    assert_self_contained(page)
    for words in (
        "Balanced: both components pull", BALANCED["verdict_reason"], "Linear branch alone",
        "3.863", "34.85", "−54\N{NO-BREAK SPACE}%", "beyond the windows",
        "in reach of stacked windows",
        "inside the window", "1. Attention transfer", "2. Finetuning",
        "steps with the window dropped",
        "0.9 / 0.7 / 0.3", "1,474,560 tokens", "2 attempts", "AutoModelForCausalLM", "a1" * 32,
        "c3" * 32, "layer 3, head 3: 70 %", "collapsed below 55",
    ):  # fmt: skip
        assert words in page, words
    assert "Not available" not in page


def test_full_page_shows_controls_recall_suites_lengths_and_the_early_stop(tmp_path):
    plan = {**PLAN, "spec_json": json.dumps({"recipe": "hedgecats"})}
    page = page_of(write_job(tmp_path / "job", FULL, plan))
    assert_self_contained(page)
    for words in (
        "One key-value group keeps the base's", "one key-value group keeps it in every column",
        "In every row but the last two one key-value group keeps", "but for the attention that was",
        "training stops before the linear branch gets worse",
        "<b>No</b>: the trained window comes within 0.008 nats", "+0.090", "95 %: +0.081 to +0.099",
        "62\N{NO-BREAK SPACE}% of the base's recall", "Needle in a haystack", "Facts in filler",
        "Keys and values", "1,838 items, acc", "60.7", "34.90", "1024 tokens", "4.410",
        "layer 3, head 2: keeps softmax attention", "layer 3, group 1: keeps softmax attention",
        "step 100 is kept", 'class="stop"', "1.9\N{NO-BREAK SPACE}GB of memory",
    ):  # fmt: skip
        assert words in page, words
    assert page.count("<h3>Passkey</h3>") == 1, "passkey and long_range tell the same rows once"
    assert "layer 3, head 1: keeps" not in page


def with_layer_stops(folder, found):
    """The job whose transfer told in its last step what its layers did."""
    path = write_job(folder) / "attempts" / "1" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    last = {**json.loads(lines[299]), "layer_stops": found}
    path.write_text("\n".join([*lines[:299], json.dumps(last), *lines[300:]]))
    return folder


def test_layers_that_stopped_are_told_one_by_one(tmp_path):
    layers = [
        {"loss": 4.0812, "kept_step": 125, "stopped_at": 200},
        {"loss": 4.25, "kept_step": 275, "stopped_at": None},
    ]
    found = {"patience": 3, "every_steps": 25, "min_gain": 0.001, "layers": layers}
    page = page_of(with_layer_stops(tmp_path / "job", found))
    assert_self_contained(page)
    for words in (
        "When each layer stopped learning", "1 of 2 layers stopped before the stage&#x27;s end at step 300",
        "after 3 measurements in a row", "lower by 0.1 %", "in 83 % of the steps",
        "at step 200", "4.0812", "ran to the end", ">275<",
    ):  # fmt: skip
        assert words in page, words
    assert "When each layer stopped learning" not in page_of(write_job(tmp_path / "other"))


@pytest.mark.parametrize("found", [[], {}, "odd", {"layers": 3}, {"layers": [None, {}]}])
def test_odd_layer_stops_give_a_page(tmp_path, found):
    assert_self_contained(page_of(with_layer_stops(tmp_path / "job", found)))


def test_the_cost_stands_beside_what_was_expected(tmp_path):
    job = write_job(tmp_path / "job", FULL)
    exported = {
        "stage": "export", "stage_index": 3, "tokens": 0, "seconds": 4.5, "peak_memory_bytes": 9e7,
        "estimate": {"tokens": 0, "seconds": 5.0, "memory_bytes": 8e7},
        "error": {"seconds": -0.1, "memory_bytes": 0.125},
    }  # fmt: skip
    (job / "artifacts" / "export_cost.json").write_text(json.dumps(exported))
    page = page_of(job)
    assert_self_contained(page)
    for words in (
        "Preparing the text", "expected 8.0 s", "Export</span>", "expected 5.0 s", "expected 80.0",
        "What it was expected to cost", "1 min 03 s", "+5\N{NO-BREAK SPACE}%", "620.0\N{NO-BREAK SPACE}MB",
        "−15\N{NO-BREAK SPACE}%", "stopped after 25\N{NO-BREAK SPACE}% of the plan", "367", "Evaluation",
        "expected 2 min 40 s",
    ):  # fmt: skip
        assert words in page, words
    assert "1 min 48 s" in page, "stages that were not estimated are in no total"
    assert "expected 1 min 53 s" in page, "of a stage that stopped early so much as was read"


def test_a_stage_of_another_job_is_in_no_total(tmp_path):
    stages = [{**stage} for stage in FULL["cost"]["stages"]]
    stages[0]["reused"] = stages[1]["reused"] = True
    evaluation = {**FULL, "cost": {**FULL["cost"], "stages": stages}}
    page = page_of(write_job(tmp_path / "job", evaluation))
    assert "taken over from an equal stage of another job" in page and "Together" not in page
    assert "the tokens lay in the cache" in page


@pytest.mark.parametrize("stages", [None, {}, [None], [{}], [{"estimate": 3, "error": []}]])
def test_odd_stages_of_the_cost_give_a_page(tmp_path, stages):
    evaluation = {**FULL, "cost": {**FULL["cost"], "stages": stages}}
    assert_self_contained(page_of(write_job(tmp_path / "job", evaluation)))


@pytest.mark.parametrize(
    "key", ["beats_window", "recall", "long_range", "suites", "lengths", "early_stop", "retained",
            "retain_scores", "cost", "served_mode"]
)  # fmt: skip
@pytest.mark.parametrize("value", [None, [], {}, "odd", [None, 3], {"value": "x"}])
def test_odd_optional_parts_give_a_page(tmp_path, key, value):
    assert_self_contained(page_of(write_job(tmp_path / "job", {**FULL, key: value})))


def test_a_control_is_not_judged_and_a_diagnosis_converts_nothing(tmp_path):
    page = page_of(write_job(tmp_path / "a", {**COLLAPSED, "recipe": "window_control"}))
    assert "A control, not a conversion" in page and "is bypassed</p>" not in page
    plan = {**PLAN, "recipe": "diagnose", "converted": "/models/other", "stages": []}
    page = page_of(write_job(tmp_path / "b", COLLAPSED, plan))
    assert "measured <b>other</b>" in page and "No training" in page


def test_a_stage_that_was_taken_over_says_so(tmp_path):
    job = write_job(tmp_path / "job")
    for attempt in (job / "attempts").iterdir():
        lines = (attempt / "metrics.jsonl").read_text().splitlines(keepends=True)
        kept = [line for line in lines if "attention_transfer" not in line]
        (attempt / "metrics.jsonl").write_text("".join(kept))
    assert "the result of an equal stage was taken over" in page_of(job)


def test_steps_of_another_job_are_shown_but_cost_nothing(tmp_path):
    job = write_job(tmp_path / "job")
    first = job / "attempts" / "1" / "metrics.jsonl"
    lines = [json.loads(line) for line in first.read_text().splitlines()[:300]]
    first.write_text("".join(json.dumps({**line, "reused": True}) + "\n" for line in lines))
    inputs = report_inputs.read_inputs(str(job))
    assert len(inputs.steps[0]) == 300 and inputs.measured_tokens == 300 * 2048
    page = report.render(inputs)
    assert "1. Attention transfer" in page and "an equal stage was taken over" in page


def test_collapsed_page_warns_in_plain_words(tmp_path):
    page = page_of(write_job(tmp_path / "job", COLLAPSED))
    assert_self_contained(page)
    assert (
        "Collapsed: the linear branch is bypassed" in page and COLLAPSED["verdict_reason"] in page
    )
    assert "<title>lolcats: collapsed</title>" in page
    assert "small softmax window of 64 tokens" in page


def test_a_diverged_model_is_lost_and_not_bypassed(tmp_path):
    hybrid = {**COLLAPSED["components"]["hybrid"], "loss": 9.88, "recovered": -0.74}
    components = {**COLLAPSED["components"], "hybrid": hybrid}
    page = page_of(write_job(tmp_path / "job", {**COLLAPSED, "components": components}))
    assert "Collapsed: the conversion lost the model" in page
    assert "the linear branch is bypassed</p>" not in page


def test_bytes_depend_on_the_job_alone(tmp_path):
    job = write_job(tmp_path / "job")
    pages = []
    for seed in ("1", "2"):
        out = tmp_path / f"{seed}.html"
        command = [sys.executable, "-m", "tandem.report", "--job", str(job), "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "PYTHONHASHSEED": seed}
        subprocess.run(command, check=True, env=environment, timeout=60)
        pages.append(out.read_bytes())
    assert pages[0] == pages[1]
    assert sorted(os.listdir(tmp_path)) == ["1.html", "2.html", "job"]


def test_resumed_steps_count_once_in_the_curves(tmp_path):
    inputs = report_inputs.read_inputs(str(write_job(tmp_path / "job")))
    assert sorted(inputs.steps[0]) == list(range(1, 301))
    assert sorted(inputs.steps[1]) == list(range(1, 401))
    assert max(line["loss"] for line in inputs.steps[1].values()) < 10, "the newest attempt counts"
    assert inputs.measured_tokens == 720 * 2048  # 20 steps were made twice


@pytest.mark.parametrize(
    "path, words",
    [
        ("artifacts/report.json", "Not evaluated"),
        ("artifacts/model", "no model was exported"),
        ("attempts", "no attempt left metrics.jsonl"),
        ("attempts/2/plan.json", "2. Finetuning"),
    ],
)
def test_what_is_missing_is_said(tmp_path, path, words):
    job = write_job(tmp_path / "job")
    target = job / path
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    page = page_of(job)
    assert_self_contained(page)
    assert words in page


def test_an_empty_folder_gives_a_page(tmp_path):
    page = page_of(tmp_path)
    assert_self_contained(page)
    assert "Not evaluated" in page and "the evaluation (artifacts/report.json is not there)" in page


@pytest.mark.parametrize("content", ["{", "[]", '{"verdict": "balanced"}', '{"components": {}}'])
def test_damaged_evaluations_give_a_page(tmp_path, content):
    job = write_job(tmp_path / "job")
    (job / "artifacts" / "report.json").write_text(content)
    assert_self_contained(page_of(job))


def test_figures_that_are_null_are_dashes(tmp_path):
    parts = {
        mode: {**figures, "recovered": None} for mode, figures in BALANCED["components"].items()
    }
    odd = {
        **BALANCED, "components": parts, "linear_capability": None, "passkey": [],
        "linear_mass": [[None, 0.5], [0.1, 0.2]],
    }  # fmt: skip
    page = page_of(write_job(tmp_path / "job", odd))
    assert_self_contained(page)
    assert "<b>–</b>" in page and "layer 0, head 0: unknown" in page
    assert "no passkey prompts were evaluated" in page


def test_names_are_escaped(tmp_path):
    odd = {**BALANCED, "job": "<script>alert(1)</script>", "verdict_reason": "a < b & c"}
    page = page_of(write_job(tmp_path / "job", odd, {**PLAN, "model": '"><img src=x>'}))
    assert_self_contained(page)
    assert "a &lt; b &amp; c" in page


def test_large_models_and_long_trainings_stay_small(tmp_path):
    wide = {
        **BALANCED,
        "linear_mass": [[(h * 7 + n) % 10 / 10 for h in range(64)] for n in range(80)],
    }
    job = write_job(tmp_path / "job", wide)
    line = {"stage": "finetune", "stage_index": 1, "loss": 2.5, "tokens": 1, "seconds": 0.1}
    text = "".join(json.dumps({**line, "step": step}) + "\n" for step in range(1, 20001))
    (job / "attempts" / "2" / "metrics.jsonl").write_text(text)
    page = page_of(job)
    assert_self_contained(page)
    assert len(page) < 1_500_000


@pytest.mark.parametrize("low, high", [(0, 1), (2.71, 2.75), (-3, 4), (5, 5), (0, 0), (1e-7, 3e4)])
def test_ticks_cover_the_range_with_few_round_numbers(low, high):
    ticks = report_charts.nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))


def test_charts_are_well_formed_and_inside_their_box():
    points = [(step, 5 / step) for step in range(1, 1000)]
    chart = report_charts.line_chart([{"points": points, "class": "hybrid"}], "a <chart>")
    root = ElementTree.fromstring(chart)
    line = root.find("polyline").get("points").split()
    assert len(line) <= report_charts.MAX_POINTS
    for corner in line:
        x, y = map(float, corner.split(","))
        assert 0 <= x <= report_charts.WIDTH and 0 <= y <= report_charts.HEIGHT


def test_a_job_that_is_no_folder_is_refused(tmp_path, capsys):
    assert report.main(["--job", str(tmp_path / "none"), "--out", str(tmp_path / "r.html")]) == 1
    assert "is no folder" in capsys.readouterr().err and not os.listdir(tmp_path)
