"""The acceptance table: base-22m converted by every recipe, beside the published figures and their tolerances.

    tests/bench/acceptance.py --rank build/bin/tandem-rank --shared ../shared --work work/acceptance --device cuda

Reads shared/data/lab (its README says what the streams are) and shared/models/base-22m, writes a token folder and one
plan.json per row and seed, runs tandem-rank on each, several at once, and prints a Markdown table from their report.json.
The numbers aimed at are those of three seeds; a cell with a tolerance says whether it is met. Needs numpy.
Rows share their attention transfer through the ranks' stage cache: the rows that make it run first.
"""
import argparse
import hashlib
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

STREAM = "tokens.u16.xz"
VALIDATION_TOKENS, SCORED_CHUNKS, LENGTH = 131_072, 32, 1024
MODES = ("hybrid", "window_only", "linear_only", "sinks_only")
SSD = [0.9, 0.75, 0.5]
WINDOWS = [4, 8, 16, 32, 64]
RETAINED = [{"layer": 5, "group": 2}]
HYBRID = WINDOW = 0.015

# name -> (stages, expected {mode: (value, tolerance or None)}, passkey 16/200/800 and recall 8/16 as published)
# A stage: (kind, what to change from the defaults).
TRANSFER = ("attention_transfer", {"objective": "weights"})
ROWS = {
    "transfer": dict(
        words="after transfer by weights", stages=[TRANSFER],
        expected={"softmax": (2.6986, 0.002), "hybrid": (2.887, HYBRID), "window_only": (2.8314, 0.002),
                  "linear_only": (3.731, None), "sinks_only": (6.329, None), "none": (7.420, 0.002)},
        transfer_loss=(4.294, 0.03), recall="0/0/0, .05/0"),
    "linear": dict(
        words="linear; its hybrid is inference_hybrid", stages=[TRANSFER, ("finetune", {"mode": "linear_only"})],
        expected={"hybrid": (3.048, HYBRID), "window_only": (3.096, WINDOW), "linear_only": (3.265, 0.03),
                  "sinks_only": (6.247, None)}, recall="0/0/0, .01/0"),
    "lolcats": dict(
        words="lolcats", stages=[("attention_transfer", {"objective": "hybrid_outputs"}), ("finetune", {})],
        expected={"hybrid": (2.718, HYBRID), "window_only": (2.787, WINDOW), "linear_only": (4.855, 0.05),
                  "sinks_only": (6.255, None)}, recall=".19/0/0, .23/.02"),
    "hedgecats": dict(
        words="hedgecats, no early stop", stages=[TRANSFER, ("finetune", {})],
        expected={"hybrid": (2.720, HYBRID), "window_only": (2.789, WINDOW), "linear_only": (3.822, 0.08),
                  "sinks_only": (6.251, None)}, recall=".25/0/0, .35/.06"),
    "hedgecats_stopped": dict(
        words="hedgecats, stopped by linear_only", stages=[TRANSFER, ("finetune", {"stop_component": "linear_only"})],
        expected={"linear_only": (3.719, None)}, recall="–"),
    "ssd": dict(
        words="ssd .9/.75/.5", stages=[TRANSFER, ("finetune", {"ssd_schedule": SSD})],
        expected={"hybrid": (2.783, HYBRID), "window_only": (2.838, WINDOW), "linear_only": (3.301, 0.03),
                  "sinks_only": (6.133, None)}, recall=".06/0/0, .13/0"),
    "ssd_windows": dict(
        words="ssd + windows 4-64",
        stages=[TRANSFER, ("finetune", {"ssd_schedule": SSD, "ssd_window_schedule": WINDOWS})],
        expected={"hybrid": (2.795, HYBRID), "window_only": (2.861, WINDOW), "linear_only": (3.306, 0.03),
                  "sinks_only": (6.102, None)}, recall="0/0/0, .05/0"),
    "retained_base": dict(
        words="group (5,2) retained, untrained base + window", stages=[("attention_transfer", {"steps": 1})],
        retained=True, one_seed=True, recall_mode="window_only", expected={"window_only": (2.746, 0.003)},
        recall="–/.93/.91, 1/.75"),
    "retained_lolcats": dict(
        words="same + lolcats, 150 LoRA steps", retained=True,
        stages=[("attention_transfer", {"objective": "hybrid_outputs"}), ("finetune", {"steps": 150})],
        expected={"hybrid": (2.668, HYBRID), "linear_only": (4.71, 0.05)}, recall="–/.94/.91, 1/1"),
    "retained_hedgecats": dict(
        words="same + hedgecats 600", stages=[TRANSFER, ("finetune", {})], retained=True,
        expected={"hybrid": (2.675, HYBRID), "linear_only": (3.70, 0.08)}, recall="–/.94/.89, 1/1"),
    "retained_ssd": dict(
        words="same + ssd .9/.5/0", stages=[TRANSFER, ("finetune", {"ssd_schedule": [0.9, 0.5, 0.0]})],
        retained=True, expected={"hybrid": (2.701, HYBRID), "linear_only": (3.25, 0.03)},
        recall="–/.90/.81, 1/.99"),
    "retained_ssd_factor": dict(
        words="same, the window factor starting at 2", mixing_initial=2.0, retained=True, expected={}, recall="–",
        stages=[TRANSFER, ("finetune", {"ssd_schedule": [0.9, 0.5, 0.0]})]),
}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_shard(folder, name, ids):
    """One document of u16 ids, in Megatron's format (worker/data/token_shards.h)."""
    (folder / f"{name}.bin").write_bytes(ids.astype("<u2").tobytes())
    header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 1, 2)
    (folder / f"{name}.idx").write_bytes(header + struct.pack("<iqqq", len(ids), 0, 0, 1))


def passkey_prompts(lab):
    prompts = []
    for distance in (16, 200, 800):
        for ids, (start, length) in zip(lab[f"pk{distance}"], lab[f"pk{distance}_ans"]):
            prompts.append({"distance": distance, "ids": ids.tolist(), "answer_start": int(start),
                            "answer_length": int(length)})
    return {"length": LENGTH, "prompts": prompts}


def recall_prompts(lab):
    prompts = []
    for facts in (8, 16):
        answers = {}
        for prompt, start, length in lab[f"r{facts}_ans"].tolist():
            # How far each fact lies back is not told; the answer's place bounds it.
            answers.setdefault(prompt, []).append({"start": start, "length": length, "distance": start})
        for number, ids in enumerate(lab[f"r{facts}"]):
            prompts.append({"kind": "recall", "facts": facts, "length": len(ids), "ids": ids.tolist(),
                            "answers": answers[number]})
    return {"version": 1, "prompts": prompts}


def read_stream(shared):
    raw = lzma.decompress((shared / "data/lab" / STREAM).read_bytes())
    assert hashlib.sha256(raw).hexdigest().startswith("c0a247f9"), f"{STREAM} is another stream"
    return np.frombuffer(raw, "<u2")


def make_tokens(shared, folder):
    if (folder / "manifest.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stream = read_stream(shared)
    # One token more than the chunks: the last chunk is emitted only while a token follows.
    write_shard(folder, "validation", stream[:SCORED_CHUNKS * LENGTH + 1])
    write_shard(folder, "train", stream[VALIDATION_TOKENS:])
    lab = np.load(shared / "data/lab/eval.npz")
    (folder / "passkey.json").write_text(json.dumps(passkey_prompts(lab)))
    (folder / "long_range.json").write_text(json.dumps(recall_prompts(lab)))
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in sorted(folder.iterdir())}
    manifest = {"version": 1, "tokenizer_sha256": sha256(shared / "models/base-22m/tokenizer.json"), "vocab_size": 8192,
                "max_id": int(stream.max()), "documents": 1, "tokens": len(stream), "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def stage_plan(kind, changes, options):
    finetune = kind == "finetune"
    stage = {
        "kind": kind, "objective": "weights", "mixture_weights": 1.0, "mixture_outputs": 0.0,
        "mixture_hybrid_outputs": 1.0, "mode": "hybrid", "steps": options.steps, "batch_size": 8,
        "learning_rate": 1e-3 if finetune else 1e-2, "warmup_steps": 30, "loss": "next_token", "distill_weight": 0.5,
        "train_maps": True, "train_factor": True, "clip_norm": 1.0, "lora_rank": 8, "lora_alpha": 16.0,
        "lora_targets": ["q_proj", "k_proj", "v_proj", "o_proj"], "ssd_schedule": [], "ssd_granularity": "micro_batch",
        "ssd_dropped_span": "all", "ssd_window_schedule": [], "stop_component": "none", "stop_every": 25,
        "stop_slack": 0.0, "stop_sequences": 16, "stop_patience": 0, "stop_min_gain": 0.0}
    stage.update(changes)
    stage["steps"] = min(stage["steps"], options.steps)
    return stage


def make_plan(row, seed, folder, options):
    stages = [stage_plan(kind, changes, options) for kind, changes in row["stages"]]
    return {
        "version": 1, "job_uid": folder.name, "job_name": folder.name, "epoch": 1, "seed": seed, "recipe": "acceptance",
        "model": str(options.shared / "models/base-22m"), "converted": "", "served_mode": "hybrid",
        "device": options.device, "base_dtype": "bfloat16" if options.device == "cuda" else "float32",
        "job_folder": str(folder), "attempt_folder": str(folder / "attempts/1"), "socket": "", "resume_from": "",
        "spec_sha256": "", "spec_json": "{}", "ranks": 1, "threads_per_rank": options.threads,
        "attention": {
            "feature_map_kind": "hedgehog", "feature_dim": 64, "feature_map_two_sided": True, "feature_map_bias": False,
            "tie_kv_heads": False, "window_kind": "sliding",
            "window_size": 64, "window_sinks": 0, "window_align_end": False, "max_grad": "through",
            "linear_span": "outside", "mixing_factor": "exp",
            "mixing_initial": row.get("mixing_initial", 0.1), "mixing_kind": "shared", "mixing_affine": False,
            "window_gain": 1.0, "cache_size": 0, "compat": "none",
            "retained": RETAINED if row.get("retained") else [], "retain_auto": 0},
        "data": {"tokens": str(options.work / "tokens"), "sequence_length": LENGTH, "document_mask": False},
        "stages": stages,
        "evaluate": {"sequences": SCORED_CHUNKS, "sinks": 8, "bootstrap": 1000, "passkey": True, "long_range": True,
                     "suites": False, "suite_modes": ["hybrid"], "lengths": [], "control": ""},
        "export_dtype": "float32", "export_adapter": False, "export_delta": False, "export_max_shard_mb": 5000,
        "stage_cache": str(options.work / "stages"), "export_classes": str(options.classes),
        "checkpoint_every_steps": 0, "checkpoint_every_seconds": 0.0, "checkpoint_keep": 1}


class Runner:
    """Runs rows in order, `jobs` at once; a row waits for one that makes the transfer it shares."""

    def __init__(self, options):
        self.options, self.lock, self.start = options, threading.Lock(), time.monotonic()
        self.queue, self.running, self.made, self.results = [], set(), set(), {}
        self.changed = threading.Condition(self.lock)

    def say(self, *words):
        print(f"[{time.monotonic() - self.start:6.1f}]", *words, file=sys.stderr, flush=True)

    def left(self):
        return self.options.deadline - (time.monotonic() - self.start)

    @staticmethod
    def transfer_key(name, seed):
        row = ROWS[name]
        return json.dumps([row["stages"][0], bool(row.get("retained")), row.get("mixing_initial"), seed])

    def next_job(self):
        """The first job whose transfer is made, or is made by nobody now."""
        making = {key for _, _, key in self.running if key not in self.made}
        for job in self.queue:
            if job[2] in self.made or job[2] not in making:
                self.queue.remove(job)
                self.running.add(job)
                return job
        return None

    def work(self, slot):
        while True:
            with self.changed:
                job = self.next_job()
                while job is None and self.queue:
                    self.changed.wait(1)
                    job = self.next_job()
            if job is None or self.left() < self.options.least:
                return
            name, seed, key = job
            report = self.run(name, seed, slot)
            with self.changed:
                self.running.discard(job)
                self.made.add(key)
                if report is not None:
                    self.results.setdefault(name, []).append(report)
                self.changed.notify_all()

    def run(self, name, seed, slot):
        options, started = self.options, time.monotonic()
        folder = options.work / f"{name}-{seed}"
        report = folder / "artifacts/report.json"
        if not report.exists():
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "attempts/1").mkdir(parents=True)
            plan = folder / "plan.json"
            plan.write_text(json.dumps(make_plan(ROWS[name], seed, folder, options), indent=1))
            env = dict(os.environ, OMP_NUM_THREADS=str(options.threads), OMPI_ALLOW_RUN_AS_ROOT="1",
                       OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
            if options.gpus > 1:
                env["CUDA_VISIBLE_DEVICES"] = str(slot % options.gpus)
            command = ["mpirun", "-np", "1", "--bind-to", "none", "--mca", "plm", "isolated", str(options.rank), "--plan",
                       str(plan)]
            process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            try:
                words, _ = process.communicate(timeout=max(1, self.left()))
            except subprocess.TimeoutExpired:
                process.terminate()
                words, _ = process.communicate()
                self.say(name, seed, "stopped: the time is over")
            # The report is there before the export, which is not measured here.
            if not report.exists():
                log = folder / "attempts/1/rank-0.err"
                self.say(name, seed, "failed:", words[-500:], log.read_text()[-1500:] if log.exists() else "")
                return None
        read = json.loads(report.read_text())
        read["seed"], read["transfer_loss"] = seed, transfer_loss(folder / "attempts/1/metrics.jsonl")
        losses = {mode: round(read["components"][mode]["loss"], 4) for mode in read["components"]}
        self.say(name, seed, f"{time.monotonic() - started:.0f} s", losses)
        return read

    def go(self):
        seeds = self.options.seeds
        self.queue = [(name, seed, self.transfer_key(name, seed)) for seed in seeds for name in self.options.rows
                      if seed == seeds[0] or not ROWS[name].get("one_seed")]
        threads = [threading.Thread(target=self.work, args=(slot,)) for slot in range(self.options.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.results


def transfer_loss(path):
    """The mean of the transfer's last 20 steps, None where it was taken from the cache."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    losses = [line["loss"] for line in lines if line["stage"] == "attention_transfer"][-20:]
    return sum(losses) / len(losses) if losses else None


def mean(values):
    return sum(values) / len(values)


def cell(values, expected):
    """`2.887 (2.881, met)`: measured, aimed at, and the judgement where there is a tolerance."""
    value, tolerance = mean(values), None
    text = f"{value:.4f}" if expected and expected[1] is not None and expected[1] < 0.01 else f"{value:.3f}"
    if expected is None:
        return text, None
    target, tolerance = expected
    if tolerance is None:
        return f"{text} ({target})", None
    met = abs(value - target) <= tolerance
    return f"{text} ({target} ± {tolerance:g}, {'met' if met else '**missed**'})", met


def recall_cell(reports, mode):
    passkey = {distance: mean([row["accuracy"][mode] for r in reports for row in r["passkey"]
                               if row["distance"] == distance]) for distance in (16, 200, 800)}
    recall = {}
    for row in (row for r in reports for row in r.get("long_range", []) if row["kind"] == "recall"):
        recall.setdefault(row["facts"], []).append(row["accuracy"][mode])
    text = "/".join(f"{passkey[d]:.2f}" for d in (16, 200, 800))
    return text + (", " + "/".join(f"{mean(recall[f]):.2f}" for f in sorted(recall)) if recall else "")


def table(results, out):
    judged = []
    print("| model | seeds | hybrid | window_only | linear_only | sinks_only (8) | passkey 16/200/800, recall 8/16 |\n"
          "|---|---|---|---|---|---|---|", file=out)
    for name, row in ROWS.items():
        reports = results.get(name)
        if not reports:
            continue
        cells = []
        for mode in MODES:
            text, met = cell([r["components"][mode]["loss"] for r in reports], row["expected"].get(mode))
            cells.append(text)
            judged.append(met)
        recall = recall_cell(reports, row.get("recall_mode", "hybrid"))
        print(f"| {row['words']} | {len(reports)} | " + " | ".join(cells) + f" | {recall} ({row['recall']}) |", file=out)
    reports = results.get("transfer", [])
    if reports:
        expected = ROWS["transfer"]["expected"]
        lines = [("base, softmax", [r["components"]["softmax"]["loss"] for r in reports], expected["softmax"]),
                 ("none", [r["components"]["none"]["loss"] for r in reports], expected["none"])]
        losses = [r["transfer_loss"] for r in reports if r["transfer_loss"] is not None]
        if losses:
            lines.append(("transfer loss, last 20 steps", losses, ROWS["transfer"]["transfer_loss"]))
        print(file=out)
        for words, values, wanted in lines:
            text, met = cell(values, wanted)
            judged.append(met)
            print(f"- {words}: {text}", file=out)
        print(f"- base, passkey and recall: {recall_cell(reports, 'softmax')} (.96/.93/.97, 1/1)", file=out)
    judged = [met for met in judged if met is not None]
    print(f"\n{sum(judged)} of {len(judged)} judged cells met.", file=out)
    return all(judged) and bool(judged)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--rank", type=Path, default=root / "build/bin/tandem-rank")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("TANDEM_SHARED", root.parent / "shared")))
    parser.add_argument("--classes", type=Path, default=root / "python/hybrid_linear")
    parser.add_argument("--work", type=Path, default=root / "work/acceptance")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=3, help="ranks at once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--deadline", type=float, default=1e9, help="seconds after which nothing runs on")
    parser.add_argument("--least", type=float, default=1, help="seconds that must be left to start a row")
    parser.add_argument("--out", type=Path, help="folder for acceptance.md and acceptance.json")
    options = parser.parse_args()
    for name in ("rank", "shared", "classes", "work"):
        setattr(options, name, getattr(options, name).resolve())
    make_tokens(options.shared, options.work / "tokens")
    results = Runner(options).go()
    met = table(results, sys.stdout)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        with open(options.out / "acceptance.md", "w") as out:
            table(results, out)
        (options.out / "acceptance.json").write_text(json.dumps(results))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
