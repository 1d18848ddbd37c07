"""Coordinator and workers as a platform engineer runs them."""
import json
import shutil
import signal
import subprocess

import pytest

from harness import BIN, Cluster, small_disk, wait_for, weights_digest, write_job


def job_file(tmp_path, name, **changes):
    (tmp_path / name).mkdir()
    return write_job(tmp_path / name, name=name, **changes)


QUICK = {"attention_transfer": {"steps": 6}, "finetune": {"steps": 6}}


def test_one_slot_runs_jobs_one_after_the_other_in_order_of_priority(tmp_path):
    with Cluster(tmp_path / "c") as cluster:
        first = cluster.submit(job_file(tmp_path, "first", **QUICK))
        cluster.wait("first", "RUNNING")
        cluster.submit(job_file(tmp_path, "low", priority=1, seed=8, **QUICK))
        cluster.submit(job_file(tmp_path, "high", priority=5, seed=9, **QUICK))
        low = cluster.get("low")
        assert low["state"] == "PENDING" and low["reason"], "a pending job says why"
        ended = {name: cluster.wait(name, "SUCCEEDED", "FAILED") for name in ("first", "high", "low")}
        assert all(job["state"] == "SUCCEEDED" for job in ended.values()), ended
        assert ended["first"]["end_time"] <= ended["high"]["start_time"] <= ended["high"]["end_time"] <= ended["low"]["start_time"]
        assert first["name"] == "projects/default/jobs/first"
        names = [j["name"].rsplit("/", 1)[1] for j in cluster.json("list")["jobs"]]
        assert set(names) == {"first", "low", "high"}


def test_two_workers_run_two_jobs_at_once_and_tell_prometheus(tmp_path):
    with Cluster(tmp_path / "c", slots=(1, 1)) as cluster:
        cluster.submit(job_file(tmp_path, "a"))
        cluster.submit(job_file(tmp_path, "b", seed=8))
        a, b = cluster.wait("a", "RUNNING"), cluster.wait("b", "RUNNING")
        assert a["worker"] != b["worker"]
        workers = cluster.json("workers")["workers"]
        assert sorted(w["slots_in_use"] for w in workers) in ([1, 1], ["1", "1"])
        text = wait_for(lambda: (t := cluster.metrics("work/workers/worker0/endpoints.json")) and "tandem_train_loss{" in t and t,
                        "the training loss of a live job")
        assert "tandem_train_step_seconds" in text and "tandem_checkpoint_age_seconds" in text
        assert 'tandem_jobs{state="RUNNING"} 2' in cluster.metrics("coordinator/endpoints.json")
        done = [cluster.wait(name, "SUCCEEDED", "FAILED") for name in "ab"]
        assert [d["state"] for d in done] == ["SUCCEEDED"] * 2
        assert "tandem_verdicts_total{" in cluster.metrics("coordinator/endpoints.json")
        logs = cluster.tandem("logs", "a").stdout
        assert "rank-0" in logs
        table = cluster.tandem("report", "a").stdout
        assert "linear_only" in table and "softmax" in table


def test_cancel_ends_a_running_and_a_pending_job(tmp_path):
    with Cluster(tmp_path / "c") as cluster:
        cluster.submit(job_file(tmp_path, "running", finetune={"steps": 5000}))
        cluster.submit(job_file(tmp_path, "pending", seed=8))
        cluster.wait("running", "RUNNING")
        cluster.tandem("cancel", "pending")
        assert cluster.get("pending")["state"] == "CANCELLED"
        cluster.tandem("cancel", "running")
        cluster.wait("running", "CANCELLED", seconds=40)
        wait_for(lambda: cluster.json("workers")["workers"][0].get("slots_in_use", 0) in (0, "0"), "the slot is free again")


def test_data_parallel_ranks_and_a_drained_worker(tmp_path):
    """SIGTERM drains: the job checkpoints, moves on the restarted worker, and ends with the weights of an undisturbed run."""
    with Cluster(tmp_path / "c", slots=(2,)) as cluster:
        two = {"parallelism": {"data": 2}}
        cluster.submit(job_file(tmp_path, "undisturbed", **two))
        undisturbed = cluster.wait("undisturbed", "SUCCEEDED", "FAILED")
        # The second job has the same inputs, and must train all the same.
        [stages] = tmp_path.glob("c/**/cache/stages")
        shutil.rmtree(stages)
        cluster.submit(job_file(tmp_path, "drained", **two))
        wait_for(lambda: (cluster.get("drained").get("progress") or {}).get("step"), "training")
        cluster.workers[0].send_signal(signal.SIGTERM)
        assert cluster.workers[0].wait(timeout=90) == 0
        cluster.start_worker(0)
        drained = cluster.wait("drained", "SUCCEEDED", "FAILED")
        assert drained["state"] == undisturbed["state"] == "SUCCEEDED", (drained, undisturbed)
        assert int(drained["epoch"]) >= 2
        assert weights_digest(drained["artifact"]) == weights_digest(undisturbed["artifact"])


def test_an_operator_drains_a_worker_and_gives_it_jobs_again(tmp_path):
    with Cluster(tmp_path / "c") as cluster:
        cluster.submit(job_file(tmp_path, "moved", finetune={"steps": 5000}))
        wait_for(lambda: (cluster.get("moved").get("progress") or {}).get("step"), "training")
        assert cluster.tandem("workers", "drain", "worker0").stdout == "worker0 is DRAINING\n"
        wait_for(lambda: cluster.json("workers")["workers"][0]["state"] == "DRAINED", "a drained worker")
        moved = cluster.get("moved")
        assert moved["state"] == "PENDING" and moved["reason"] == "NO_WORKER", moved
        assert cluster.tandem("workers", "undrain", "worker0").stdout == "worker0 is READY\n"
        assert int(cluster.wait("moved", "RUNNING")["epoch"]) == 2
        assert cluster.tandem("workers", "drain", "nobody", check=False).returncode == 3
        cluster.tandem("cancel", "moved")


def test_exit_codes(tmp_path):
    with Cluster(tmp_path / "c") as cluster:
        wait_for(lambda: cluster.tandem("list", check=False).returncode == 0, "a coordinator")
        assert cluster.tandem("get", "nobody", check=False).returncode == 3
        assert cluster.tandem("submit", tmp_path / "none.yaml", check=False).returncode == 2
        assert cluster.tandem("frobnicate", check=False).returncode == 2
    assert cluster.tandem("list", check=False).returncode == 5


def test_watch_detaches_on_ctrl_c(tmp_path):
    with Cluster(tmp_path / "c") as cluster:
        job = job_file(tmp_path, "watched", finetune={"steps": 5000})
        cluster.submit(job)
        cluster.wait("watched", "RUNNING")
        watch = subprocess.Popen([BIN / "tandem", "--server", cluster.server, "watch", "watched"], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, start_new_session=True)
        wait_for(lambda: watch.poll() is None and (cluster.get("watched").get("progress") or {}).get("step"), "training")
        watch.send_signal(signal.SIGINT)
        _, err = watch.communicate(timeout=20)
        assert watch.returncode == 130 and "watch" in err
        assert cluster.get("watched")["state"] == "RUNNING"


def test_who_watches_is_told_that_the_coordinator_cannot_write_and_when_it_can(tmp_path):
    state = tmp_path / "c/coordinator"
    with small_disk(state, "2M") as fill, Cluster(tmp_path / "c", slots=()) as cluster:
        cluster.submit(job_file(tmp_path, "waits"))
        said = tmp_path / "said"
        with open(said, "w") as out:
            watch = subprocess.Popen([BIN / "tandem", "watch", "waits", "--server", cluster.server], stderr=out)
        wait_for(lambda: "NO_WORKER" in said.read_text(), "the watch")
        fill()
        refused = cluster.tandem("cancel", "waits", check=False)
        why = f"{state}/tandem.db: SQLite: database or disk is full; make room on its disk"
        assert refused.returncode == 5 and why in refused.stderr and "reach" not in refused.stderr, refused.stderr
        wait_for(lambda: f"the coordinator cannot write at the moment: {why}" in said.read_text(), said.read_text)
        (state / "filler").unlink()
        wait_for(lambda: "the coordinator can write again" in said.read_text(), said.read_text)
        cluster.tandem("cancel", "waits")
        assert watch.wait(timeout=20) == 4
        text = said.read_text()
        assert text.count("cannot write") == text.count("can write again") == 1, text


def test_the_coordinator_refuses_other_addresses_than_loopback(tmp_path):
    done = subprocess.run([BIN / "tandem-coordinator", "--state", tmp_path, "--listen", "0.0.0.0:0"], capture_output=True,
                          text=True, timeout=20)
    assert done.returncode == 2 and "loopback" in done.stderr
