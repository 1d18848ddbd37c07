"""Tandem's training steps beside the plain PyTorch anchor's, eager and compiled, on this CPU in one run.

Prints a Markdown table of tokens per second and of memory (peak minus what was resident before the first step), one row
for each kind of step and length; the ratio is to the faster anchor. Every variant is a process of its own, all read the
same ids, at the same batch and constant learning rate. First losses must agree, else there is no table. The rounds of a
row are interleaved (eager, compiled, Tandem, eager, ...) and the best round of each counts: other load on the machine
only slows. The eager anchor needs about 14 GB at T = 4096.

    ninja -C build tandem-bench-train && python3 tests/bench/cpu_table.py --lengths 512 1024 2048 4096
"""
import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = {
    "transfer, hybrid_outputs": ["--stage", "1", "--objective", "hybrid_outputs"],
    "transfer, weights": ["--stage", "1", "--objective", "weights"],
    "finetune, LoRA": ["--stage", "2"],
}
# The losses of the first step, before any update: fp32 sums in different orders.
LOSS_TOLERANCE = 1e-4


def write_ids(shared, python, model, count, path):
    """The ids that both sides read, tokenised as the anchor does."""
    code = (
        "import json, sys, eager_trainer as t\n"
        "model, data, count, path = sys.argv[1:]\n"
        "ids = t.read_tokens(data, model, json.load(open(model + '/config.json')), int(count))\n"
        "open(path, 'wb').write(b''.join(i.to_bytes(2, 'little') for i in ids.tolist()))\n"
    )
    data = shared / "data/text/wiki.valid.tokens"
    subprocess.run([python, "-c", code, model, data, str(count), path], check=True, cwd=shared / "anchors")


def run(command, threads):
    """One process's JSON line, or None when it failed (usually: not enough memory)."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"failed ({done.returncode}): {' '.join(map(str, command))}\n{done.stderr[-400:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(variants, rounds, threads):
    """Best round of each variant by name."""
    best = {}
    for _ in range(rounds):
        for name, command in variants.items():
            line = run(command, threads)
            if line and (name not in best or line["tokens_per_second"] > best[name]["tokens_per_second"]):
                best[name] = line
    return best


def check_losses(best, row):
    losses = {name: line["loss_first"] for name, line in best.items()}
    reference = next(iter(losses.values()))
    for name, loss in losses.items():
        if abs(loss - reference) > LOSS_TOLERANCE * abs(reference):
            sys.exit(f"{row}: the first losses differ, no table: {losses}")


def megabytes(line):
    return (line["peak_memory_bytes"] - line["resident_before_bytes"]) / 1e6


def table_row(kind, length, best):
    def cell(name):
        if name not in best:
            return "–"
        return f"{best[name]['tokens_per_second']:,.0f} ({megabytes(best[name]):,.0f} MB)"

    anchors = [best[n] for n in ("eager", "compiled") if n in best]
    ratio = memory = "–"
    if anchors and "tandem" in best:
        faster = max(anchors, key=lambda line: line["tokens_per_second"])
        ratio = f"{best['tandem']['tokens_per_second'] / faster['tokens_per_second']:.1f}"
        memory = f"{megabytes(faster) / max(megabytes(best['tandem']), 1):.0f}"
    cells = [kind, f"{length}", cell("eager"), cell("compiled"), cell("tandem"), ratio, memory]
    return "| " + " | ".join(cells) + " |"


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=REPOSITORY / "build/bin/tandem-bench-train")
    parser.add_argument("--shared", type=Path, default=os.environ.get("TANDEM_SHARED", REPOSITORY.parent / "shared"))
    parser.add_argument("--python", type=Path, default=REPOSITORY / ".venv-tests/bin/python", help="with full torch")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--variants", nargs="+", choices=("eager", "compiled", "tandem"), default=["eager", "compiled", "tandem"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write every measured line here")
    a = parser.parse_args()
    a.shared, a.bench = Path(a.shared).resolve(), a.bench.resolve()
    model = Path(a.shared) / "models/base-4m"
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder) / "ids.u16"
        write_ids(Path(a.shared), a.python, model, max(a.lengths) * (a.steps + 3), ids)
        print(f"{processor()}, {a.threads} threads, {datetime.date.today()}; base-4m, batch 1, w 64, fp32;")
        print(f"tokens/s (peak minus resident memory), median of {a.steps} steps, best of {a.rounds} rounds\n")
        print("| Step | T | anchor, eager | anchor, compiled | Tandem | times faster | times less memory |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for kind in a.kinds:
            for length in a.lengths:
                shared_options = ["--model", model, "--data", ids, "--seq-len", length, "--steps", a.steps]
                shared_options += ["--threads", a.threads, *KINDS[kind]]
                anchor = [a.python, Path(a.shared) / "anchors/eager_trainer.py", *shared_options]
                all_variants = {"eager": anchor, "compiled": [*anchor, "--compile"], "tandem": [a.bench, *shared_options]}
                best = measure({n: c for n, c in all_variants.items() if n in a.variants}, a.rounds, a.threads)
                check_losses(best, f"{kind}, T = {length}")
                print(table_row(kind, length, best), flush=True)
                measured += [dict(line, variant=name, kind=kind) for name, line in best.items()]
    if a.json:
        a.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
