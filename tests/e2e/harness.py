"""The real binaries on loopback, for end-to-end tests: a cluster that a test starts, kills and restarts.

Nothing here knows how Tandem works inside; it starts processes, reads what they print and looks at /proc.
"""
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("TANDEM_BINARY_DIR", ROOT / "build")) / "bin"
SECONDS = 120  # how long a test waits for anything before it calls it hung


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition, what, seconds=SECONDS):
    """Returns the condition's first true value; fails with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"after {seconds} s still not: {what() if callable(what) else what}")


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of its own at `folder`; gives a function that fills it with <folder>/filler. Skips where nobody may mount."""
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        def fill():
            with contextlib.suppress(OSError), open(folder / "filler", "ab", buffering=0) as filler:
                while filler.write(bytes(1 << 12)):  # until there is no space left
                    pass

        yield fill
    finally:
        subprocess.run(["umount", folder], check=True)


def small_job(**changes):
    """A job of some seconds on two cores: every stage of the real thing, little of each. YAML is a superset of JSON."""
    job = {
        "name": "small", "seed": 7,
        "model": {"path": str(ROOT / "examples/base-4m")},
        "data": {"train": [str(ROOT / "examples/text/train.jsonl.xz")], "sequence_length": 128, "max_documents": 60},
        "recipe": "ssd",
        "attention": {"window": {"size": 16}},
        "attention_transfer": {"steps": 30, "batch_size": 4, "warmup_steps": 5},
        "finetune": {"steps": 30, "batch_size": 4, "warmup_steps": 5},
        "parallelism": {"threads_per_rank": 1},
        "checkpoint": {"every_steps": 5},
        "evaluate": {"sequences": 8, "bootstrap": 200, "passkey": {"prompts": 4, "distances": [16, 64], "length": 128}},
    }
    for key, value in changes.items():
        job[key] = {**job[key], **value} if isinstance(value, dict) and isinstance(job.get(key), dict) else value
    return job


def write_job(folder, **changes):
    path = Path(folder) / "job.yaml"
    path.write_text(json.dumps(small_job(**changes), indent=1))
    return path


def processes(name, ancestor=None):
    """Pids of live processes with this executable name, below `ancestor` where given."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            fields = (entry / "stat").read_text().rsplit(")", 1)
            if fields[1].split()[0] == "Z" or fields[0].split("(", 1)[1] != name[:15]:
                continue
            if ancestor is None or ancestor in ancestors(int(entry.name)):
                found.append(int(entry.name))
    return sorted(found)


def ancestors(pid):
    chain = []
    while pid > 1:
        chain.append(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            break
    return chain


def weights_digest(artifact):
    """SHA-256 over the exported tensors' files."""
    digest = hashlib.sha256()
    files = sorted(Path(artifact).glob("*.safetensors"))
    assert files, f"no weights in {artifact}"
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Cluster:
    """A coordinator and its workers over one work folder; each can be killed and started again at the same address."""

    def __init__(self, folder, slots=(1,)):
        self.folder = Path(folder)
        self.port = free_port()
        self.server = f"127.0.0.1:{self.port}"
        self.slots = dict(enumerate(slots))
        self.coordinator = None
        self.workers = {}

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start_coordinator()
        for index in self.slots:
            self.start_worker(index)
        return self

    def __exit__(self, *_):
        for process in [*self.workers.values(), self.coordinator]:
            if process and process.poll() is None:
                process.kill()
                process.wait()

    def spawn(self, log, *command):
        with open(self.folder / log, "ab") as out:
            return subprocess.Popen([str(c) for c in command], stdout=out, stderr=out, start_new_session=True)

    def start_coordinator(self):
        self.coordinator = self.spawn("coordinator.log", BIN / "tandem-coordinator", "--state", self.folder / "coordinator",
                                      "--listen", self.server, "--metrics", "127.0.0.1:0")
        return self.coordinator

    def start_worker(self, index=0):
        self.workers[index] = self.spawn(
            f"worker{index}.log", BIN / "tandem-worker", "--coordinator", self.server, "--work", self.folder / "work",
            "--name", f"worker{index}", "--slots", self.slots[index], "--threads-per-slot", 1, "--metrics", "127.0.0.1:0")
        return self.workers[index]

    def tandem(self, *arguments, check=True, timeout=SECONDS, **options):
        done = subprocess.run([str(BIN / "tandem"), *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                              env={**os.environ, "TANDEM_SERVER": self.server}, **options)
        if check:
            assert done.returncode == 0, f"tandem {arguments} left with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments, **options):
        return json.loads(self.tandem(*arguments, "-o", "json", **options).stdout)

    def submit(self, path):
        """Retries while the coordinator starts; the CLI's request id makes that safe."""
        done = wait_for(lambda: (d := self.tandem("submit", path, "-o", "json", check=False)).returncode != 5 and d,
                        f"a coordinator at {self.server}")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def get(self, job):
        done = self.tandem("get", job, "-o", "json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def wait(self, job, *states, seconds=SECONDS):
        def arrived():
            now = self.get(job)
            return now if now and now["state"] in states else None

        return wait_for(arrived, lambda: f"{job} in {states}; it is {self.get(job)}\n{self.logs()}", seconds)

    def logs(self):
        return "\n".join(f"--- {log.name}\n" + log.read_text()[-2000:] for log in sorted(self.folder.glob("*.log")))

    def metrics(self, endpoints):
        """The Prometheus text of the process that wrote this endpoints.json."""
        import urllib.request

        address = json.loads((self.folder / endpoints).read_text())["metrics"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
            return page.read().decode()

    def kill(self, victim):
        """SIGKILL to coordinator, agent, mpirun or rank, then the restart that its supervisor would make. False: none lived."""
        if victim == "coordinator":
            self.coordinator.kill()
            self.coordinator.wait()
            self.start_coordinator()
            return True
        agent = self.workers[0]
        if victim == "agent":
            agent.kill()
            agent.wait()
            self.start_worker(0)
            return True
        pids = self.gang(victim)
        for pid in pids[:1]:
            os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def gang(self, kind):
        """Pids of the living mpirun or ranks of the first worker."""
        return processes("mpirun" if kind == "mpirun" else "tandem-rank", self.workers[0].pid)
