"""kill -9 at any moment: the job ends by itself, with the bits of an undisturbed run.

Three moments by default, twenty with TANDEM_KILLS=20 (tests/run.sh kill). A failure prints the victim and the second.
"""
import os
import random
import time

import pytest

from harness import Cluster, wait_for, weights_digest, write_job

KILLS = int(os.environ.get("TANDEM_KILLS", "3"))
SEED = int(os.environ.get("TANDEM_KILL_SEED", "1"))
VICTIMS = ("rank", "agent", "coordinator", "mpirun")


def moments():
    dice = random.Random(SEED)
    for index in range(KILLS):
        yield VICTIMS[index % len(VICTIMS)], round(dice.uniform(0.02, 0.95), 3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Its weights, and the seconds it took from submit to end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with Cluster(folder / "c") as cluster:
        start = time.monotonic()
        cluster.submit(write_job(folder))
        job = cluster.wait("small", "SUCCEEDED", "FAILED")
        assert job["state"] == "SUCCEEDED", job
        return weights_digest(job["artifact"]), time.monotonic() - start


@pytest.mark.parametrize("victim, share", list(moments()))
def test_kill(undisturbed, tmp_path, victim, share):
    weights, seconds = undisturbed
    with Cluster(tmp_path / "c") as cluster:
        start = time.monotonic()
        cluster.submit(write_job(tmp_path))
        wait_for(lambda: time.monotonic() - start >= share * seconds, "the moment")
        # Before the launch and after the end no rank or mpirun lives: then this moment shows only that nothing is lost.
        struck = cluster.kill(victim)
        job = cluster.wait("small", "SUCCEEDED", "FAILED")
        print(f"{victim} at {share:.0%} of {seconds:.1f} s, struck: {struck}, epochs: {job['epoch']}")
        assert job["state"] == "SUCCEEDED", job
        assert weights_digest(job["artifact"]) == weights
