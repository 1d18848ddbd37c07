"""`tandem run`: the newcomer's command, from a job file to a model that transformers loads."""
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from harness import BIN, ROOT, processes, small_disk, wait_for, weights_digest, write_job

MODES = {"softmax", "hybrid", "window_only", "linear_only", "sinks_only", "none"}


def run(job, work, *extra, **options):
    return subprocess.run([BIN / "tandem", "run", job, "--work", work, "-o", "json", *extra],
                          capture_output=True, text=True, timeout=300, **options)


def result_of(done):
    assert done.returncode == 0, f"left with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.strip().splitlines()[-1] if done.stdout.strip().startswith("{\"") else done.stdout)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    job = write_job(folder)
    done = run(job, folder / "work")
    return folder, job, result_of(done), done


def test_the_result_names_everything(finished):
    _, _, result, _ = finished
    assert result["state"] == "SUCCEEDED"
    assert result["verdict"] in {"balanced", "leaning", "collapsed"}
    assert set(result["components"]) == MODES
    for mode, row in result["components"].items():
        assert row["loss"] > 0, mode
    assert result["components"]["softmax"]["loss"] < result["components"]["none"]["loss"]
    assert result["components"]["softmax"]["recovered"] == pytest.approx(1)
    assert Path(result["artifact"], "config.json").exists() and Path(result["report"]).exists()


def test_nothing_is_left_running(finished):
    folder, *_ = finished
    for name in ("tandem-coordinator", "tandem-worker", "tandem-rank", "mpirun"):
        for pid in processes(name):
            assert str(folder) not in Path(f"/proc/{pid}/cmdline").read_text(), f"{name} still runs"


def test_a_full_disk_is_said_and_ends_the_run(tmp_path):
    """Neither the coordinator's store nor a log can be written then: only `tandem run` can say it."""
    work = tmp_path / "disk/work"
    with small_disk(tmp_path / "disk", "14M") as fill:
        started = subprocess.Popen([BIN / "tandem", "run", write_job(tmp_path), "--work", work, "--full-disk-seconds", "3"],
                                   text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: list(work.glob("jobs/*/attempts/1")), "an attempt")

        def ended():
            fill()  # what the run gives back is taken, too
            return started.poll() is not None

        wait_for(ended, "the run's end")
        _, err = started.communicate()
        assert started.returncode == 1, err
        assert f"the disk that holds {work} is full; make room, or this ends in 3 s" in err, err
        assert f"the disk that holds {work} is full; make room, then run the same command again" in err, err


def test_the_same_command_prints_the_result_again(finished):
    folder, job, result, _ = finished
    again = result_of(run(job, folder / "work"))
    assert again == result


def test_the_report_is_self_contained(finished):
    html = Path(finished[2]["report"]).read_text()
    assert finished[2]["verdict"] in html.lower() and "<script" not in html
    assert "src=\"http" not in html and "href=\"http" not in html.replace("href=\"https://arxiv.org", "")


def test_the_plan_is_told_before_and_compared_after(finished):
    _, _, result, done = finished
    lines = done.stderr.splitlines()
    plan = next((i for i, line in enumerate(lines) if line.startswith("plan: about")), None)
    assert plan is not None, done.stderr
    assert [line.split()[0] for line in lines[plan + 1:plan + 7]] == [
        "STAGE", "prepare", "attention_transfer", "finetune", "evaluate", "export"]
    assert not any(": finetune" in line for line in lines[:plan]), "it comes before the steps"
    stages = json.loads(Path(result["artifact"]).with_name("report.json").read_text())["cost"]["stages"]
    stages.append(json.loads(Path(result["artifact"]).with_name("export_cost.json").read_text()))
    assert [stage["stage"] for stage in stages] == ["prepare", "attention_transfer", "finetune", "evaluate", "export"]
    for stage in stages:
        assert stage["error"]["seconds"] == pytest.approx(stage["seconds"] / stage["estimate"]["seconds"] - 1)
        assert stage["error"]["memory_bytes"] > -0.9
    assert stages[0]["estimate"]["tokens"] == pytest.approx(stages[0]["tokens"], rel=0.2)
    for stage in stages[1:4]:
        assert stage["estimate"]["tokens"] == stage["tokens"] > 0 and stage["flop_per_second"] > 0
    page = Path(result["report"]).read_text()
    assert "What it was expected to cost" in page and "Preparing the text" in page and ">Export<" in page


def test_tensorboard_reads_the_curves(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(finished[2]["artifact"]).parent
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    tags = set(board.Tags()["scalars"])
    assert {"attention_transfer/loss", "attention_transfer_layers/layer_00", "finetune/loss", "finetune/window_dropped",
            "finetune/learning_rate", "finetune/tokens_per_second", "component_loss/linear_only"} <= tags
    assert [e.step for e in board.Scalars("attention_transfer/loss")] == list(range(1, 31))
    assert [e.step for e in board.Scalars("finetune/loss")] == list(range(31, 61)), "steps go on over the stages"
    lines = [json.loads(t) for t in next(folder.parent.glob("attempts/*/metrics.jsonl")).read_text().splitlines()]
    assert [e.value for e in board.Scalars("finetune/loss")] == pytest.approx(
        [line["loss"] for line in lines if line["stage"] == "finetune"], rel=1e-6)
    assert board.Scalars("component_loss/hybrid")[0].value == pytest.approx(finished[2]["components"]["hybrid"]["loss"])


def test_transformers_gives_the_same_logits(finished):
    import sys

    artifact = Path(finished[2]["artifact"])
    done = subprocess.run([sys.executable, "-m", "tandem.check_export", artifact, "--expected", artifact.parent / "check.safetensors"],
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "python")})
    assert done.returncode == 0 and "not checked" not in done.stdout, done.stdout + done.stderr


def test_ctrl_c_checkpoints_and_the_same_command_goes_on(finished, tmp_path):
    job = write_job(tmp_path)
    process = subprocess.Popen([BIN / "tandem", "run", job, "--work", tmp_path / "work"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: list(tmp_path.glob("work/jobs/*/checkpoints/e*/step-*")), "a checkpoint")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert "tandem run" in err, "it says how to go on"
    estimate, = tmp_path.glob("work/jobs/*/artifacts/estimate.json")
    said = estimate.read_bytes()
    result = result_of(run(job, tmp_path / "work"))
    assert estimate.read_bytes() == said, "the plan is what was said at first"
    assert len(list(tmp_path.glob("work/jobs/*"))) == 1, "the same job goes on"
    assert weights_digest(result["artifact"]) == weights_digest(finished[2]["artifact"])
    assert len(list(tmp_path.glob("work/jobs/*/artifacts/tensorboard/*"))) >= 2, "a file per attempt"


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    job = write_job(tmp_path)
    first = subprocess.Popen([BIN / "tandem", "run", job, "--work", tmp_path / "work"], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: list(tmp_path.glob("work/jobs/*")), "the first run's job")
        second = run(job, tmp_path / "work")
        assert second.returncode == 1 and str(first.pid) in second.stderr, second.stderr
    finally:
        first.send_signal(signal.SIGINT)
        first.wait(timeout=90)


@pytest.mark.parametrize("changes, words", [
    ({"model": {"path": "/nowhere"}}, ["model.path", "/nowhere"]),
    ({"recipe": "ssdd"}, ["recipe", "ssd"]),
    ({"data": {"train": ["/nowhere.jsonl"], "sequence_length": 128}}, ["data.train", "/nowhere.jsonl"]),
])
def test_bad_jobs_are_refused_before_anything_starts(tmp_path, changes, words):
    done = run(write_job(tmp_path, **changes), tmp_path / "work")
    assert done.returncode == 2, done.stderr
    for word in words:
        assert word in done.stderr
    assert not list(tmp_path.glob("work/jobs/*"))


def test_bad_text_ends_the_job_at_once_with_the_line(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"text": oops}\n')
    done = run(write_job(tmp_path, data={"train": [str(bad)]}), tmp_path / "work")
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("bad.jsonl, line 2") == 1, "told once:\n" + done.stderr
    log = re.search(r"^  log:    (.+)$", done.stderr, re.MULTILINE)
    assert log and Path(log[1]).exists(), done.stderr
    assert not list(tmp_path.glob("work/cache/tokens/*")), "nothing half-made stays"
