"""`tandem sweep` and `tandem compare`: variants of one conversion, followed to their comparison."""
import csv
import io
import json
import signal
import subprocess
from pathlib import Path

import pytest

from harness import BIN, small_job, wait_for

BRANCHES = {"hybrid", "window_only", "linear_only"}


def write_sweep(folder, runs, **changes):
    base = small_job(**changes)
    for key in ("name", "recipe"):
        base.pop(key)
    path = Path(folder) / "sweep.yaml"
    path.write_text(json.dumps({"base": base, "runs": runs}))
    return path


def sweep(path, work, *extra):
    return subprocess.run([BIN / "tandem", "sweep", path, "--work", work, *extra], capture_output=True, text=True,
                          timeout=300)


def compare(*arguments):
    return subprocess.run([BIN / "tandem", "compare", *map(str, arguments)], capture_output=True, text=True, timeout=60)


RUNS = [{"name": "published", "recipe": "lolcats"},
        {"name": "dropped", "recipe": "ssd", "finetune": {"learning_rate": 5e-4}}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    path = write_sweep(folder, RUNS)
    done = sweep(path, folder / "work", "-o", "json")
    assert done.returncode == 0, done.stderr
    return folder, path, json.loads(done.stdout), done


def test_the_comparison_has_every_run_and_mode(finished):
    _, _, comparison, done = finished
    assert [job["name"] for job in comparison["jobs"]] == ["published", "dropped"]
    for job in comparison["jobs"]:
        assert BRANCHES < set(job["components"]) and job["verdict"] in {"balanced", "leaning", "collapsed"}
    fields = {d["field"]: d["values"] for d in comparison["differences"]}
    assert {"recipe", "finetune.learning_rate", "attention_transfer.objective"} <= set(fields)
    assert "finetune.steps" not in fields and "name" not in fields
    assert "published: " in done.stderr and "dropped: " in done.stderr, "each run is followed by name"


def test_the_same_command_goes_on_with_what_is_there(finished):
    folder, path, comparison, _ = finished
    again = sweep(path, folder / "work", "-o", "json")
    assert again.returncode == 0 and json.loads(again.stdout) == comparison, again.stderr
    assert len(list((folder / "work/jobs").iterdir())) == 2


def test_compare_reads_the_work_folder_in_every_format(finished):
    folder, _, comparison, _ = finished
    table = compare(folder / "work")
    assert table.returncode == 0 and "LINEAR" in table.stdout and "published" in table.stdout, table.stderr
    assert max(map(len, table.stdout.splitlines())) <= 100
    rows = list(csv.DictReader(io.StringIO(compare(folder / "work", "-o", "csv").stdout)))
    assert {row["mode"] for row in rows} > BRANCHES and len({row["job"] for row in rows}) == 2
    dropped = next(r for r in rows if r["job"] == "dropped" and r["mode"] == "hybrid")
    wanted = next(j for j in comparison["jobs"] if j["name"] == "dropped")
    assert float(dropped["loss"]) == wanted["components"]["hybrid"]["loss"]
    one = compare(next((folder / "work/jobs").iterdir()), "-o", "name")
    assert one.stdout.strip() in {"published", "dropped"}


def test_the_page_is_self_contained(finished):
    folder, *_ = finished
    done = compare(folder / "work", "--html", folder / "c.html", "-o", "name")
    assert done.returncode == 0, done.stderr
    page = (folder / "c.html").read_text()
    assert "2 conversions compared" in page and "<script" not in page and "http" not in page
    assert not list(folder.glob("c.html.*")), "nothing half-made stays"


def test_what_is_no_report_is_not_found(tmp_path):
    assert compare(tmp_path).returncode == 3
    assert compare("no-such-job", "--server", "127.0.0.1:1").returncode == 5


def test_all_faults_are_told_at_once_and_nothing_starts(tmp_path):
    path = write_sweep(tmp_path, [{"name": "a", "recipe": "ssdd"}, {"name": "b", "recipe": "ssd", "seed": -1}],
                       model={"path": "/nowhere"})
    done = sweep(path, tmp_path / "work")
    assert done.returncode == 2 and "run a: recipe" in done.stderr and "run b: seed" in done.stderr, done.stderr
    assert not (tmp_path / "work").exists()


def test_ctrl_c_saves_and_the_same_command_goes_on(finished, tmp_path):
    path = write_sweep(tmp_path, RUNS)
    process = subprocess.Popen([BIN / "tandem", "sweep", path, "--work", tmp_path / "work"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: list(tmp_path.glob("work/jobs/*/checkpoints/e*/step-*")), "a checkpoint")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 130 and "tandem sweep" in err, err
    done = sweep(path, tmp_path / "work", "-o", "json")
    assert done.returncode == 0, done.stderr
    for key in ("components", "verdict"):
        assert [job[key] for job in json.loads(done.stdout)["jobs"]] == [job[key] for job in finished[2]["jobs"]]
