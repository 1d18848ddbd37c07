"""The comparison's page: everything that `tandem compare -o json` gives, and nothing from outside."""

import copy
import json

import pytest
from report_job import BALANCED, COLLAPSED, FULL
from tandem import compare_page
from test_report import assert_self_contained


def job(report, **more):
    keys = ("verdict", "components", "beats_window", "recall", "passkey", "long_range", "suites",
            "suites_average", "cost")  # fmt: skip
    row = {key: copy.deepcopy(report.get(key)) for key in keys}
    return {"name": report["job"], "recipe": report.get("recipe", report["job"]), **row, **more}


COMPARISON = {
    "version": 1,
    "jobs": [
        job(BALANCED, served_mode="hybrid"),
        job(COLLAPSED, served_mode="linear_only"),
        job(FULL, served_mode="hybrid"),
    ],
    "differences": [
        {"field": "recipe", "values": [{"value": "ssd", "jobs": ["ssd"]},
                                       {"value": "lolcats", "jobs": ["lolcats", "hedgecats"]}]},
        {"field": "finetune.lora.targets", "values": [{"value": ["q_proj"], "jobs": ["ssd"]},
                                                      {"value": None, "jobs": ["lolcats"]}]},
    ],
    "paired": {"best": "ssd", "sequences": 64,
               "rows": [{"name": "ssd", "difference": 0.0, "low": 0.0, "high": 0.0},
                        {"name": "lolcats", "difference": 0.0123, "low": 0.0101, "high": 0.0145}]},
    "notes": ["the spec of <old> is not known: its differences are not listed"],
}  # fmt: skip


def test_the_page_says_everything():
    page = compare_page.render(COMPARISON)
    assert_self_contained(page)
    for words in (
        "3 conversions compared", 'class="badge collapsed"', "4.898, <b>as used</b>",
        "loss 3.452", '<b class="bad">no</b>', "62\N{NO-BREAK SPACE}%", "1,433,600", "3 min 22 s",
        "passkey 384", "recall 8 facts", "piqa", "34.90", "finetune.lora.targets", "lolcats, hedgecats",
        "+0.0123", "+0.0101 to +0.0145", "the spec of &lt;old&gt;",
    ):  # fmt: skip
        assert words in page, words


def test_columns_that_no_report_fills_are_left_out():
    bare = {"jobs": [job(BALANCED), job(COLLAPSED)]}
    assert "Is it worth it?" not in compare_page.render(bare)
    assert_self_contained(compare_page.render({"jobs": []}))


def test_other_bases_have_no_common_row():
    odd = copy.deepcopy(COMPARISON)
    odd["jobs"][0]["components"]["softmax"]["loss"] = 2.0
    assert "the base</span>" in compare_page.render(COMPARISON)
    assert "the base</span>" not in compare_page.render(odd)


@pytest.mark.parametrize("key", ["components", "suites", "long_range", "recall", "cost"])
def test_jobs_without_a_part_have_dashes(key):
    odd = copy.deepcopy(COMPARISON)
    for row in odd["jobs"]:
        row[key] = None
    assert_self_contained(compare_page.render(odd))


def test_the_command_writes_the_file_or_says_why(tmp_path, capsys):
    source, out = tmp_path / "c.json", tmp_path / "c.html"
    source.write_text(json.dumps(COMPARISON))
    assert compare_page.main(["--comparison", str(source), "--out", str(out)]) == 0
    assert out.read_text() == compare_page.render(COMPARISON)
    source.write_text("{")
    assert compare_page.main(["--comparison", str(source), "--out", str(out)]) == 1
    assert "cannot read the comparison" in capsys.readouterr().err
