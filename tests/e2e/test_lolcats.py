"""`tandem diagnose --lolcats`: checkpoints of the published key layout, made small for the example base."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from harness import BIN, ROOT

BASE = ROOT / "examples/base-4m"
TEXT = ROOT / "examples/text/validation.jsonl.xz"
LAYERS, HEADS, KV_HEADS, DIM, HIDDEN, RANK = 4, 4, 2, 64, 256, 8


def distilled():
    """What distillation leaves (8B: 2 x 32 maps (32, 128, 64), 32 factors (1, 32, 1, 1)): near the start, so that it runs."""
    torch.manual_seed(3)
    tensors = {}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}.self_attn."
        tensors[prefix + "window_factors"] = torch.full((1, HEADS, 1, 1), -2.2) + 0.1 * torch.randn(1, HEADS, 1, 1)
        for name in ("feature_map_q", "feature_map_k"):
            maps = torch.eye(DIM).repeat(HEADS, 1, 1) + 0.02 * torch.randn(HEADS, DIM, DIM)
            tensors[prefix + name + ".mlp.layer"] = torch.nn.Parameter(maps.to(torch.bfloat16))
    return tensors


def finetuned(scale=0.01):
    tensors = {}
    for layer in range(LAYERS):
        for name, out in (("q", HEADS * DIM), ("k", KV_HEADS * DIM), ("v", KV_HEADS * DIM), ("o", HIDDEN)):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}_proj.lora_"
            tensors[prefix + "A.default.weight"] = torch.randn(RANK, HIDDEN) / 16
            tensors[prefix + "B.default.weight"] = scale * torch.randn(out, RANK)
    return tensors


def diagnose(work, *checkpoints, **environment):
    return subprocess.run([BIN / "tandem", "diagnose", "--lolcats", *checkpoints, "--base", BASE, "--data", TEXT, "--length", "128",
                           "--work", work, "-o", "json"], capture_output=True, text=True, timeout=300,
                          env={**os.environ, **environment})


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lolcats")
    torch.save({"model_state_dict": distilled(), "step": 7}, folder / "distill.pt")
    torch.save(finetuned(), folder / "finetune.pt")
    done = diagnose(folder / "work", folder / "distill.pt", folder / "finetune.pt")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder, json.loads(done.stdout), done.stderr


def converted(folder):
    models = list((folder / "work/lolcats").iterdir())
    assert len(models) == 1 and not models[0].name.endswith(".unfinished"), models
    return models[0]


def test_the_checkpoint_gets_a_component_report(measured):
    _, result, _ = measured
    assert result["state"] == "SUCCEEDED" and result["verdict"] in {"balanced", "leaning", "collapsed"}
    losses = {mode: row["loss"] for mode, row in result["components"].items()}
    assert set(losses) == {"softmax", "hybrid", "window_only", "linear_only", "sinks_only", "none"}
    assert losses["softmax"] < losses["hybrid"] < losses["none"]
    assert losses["linear_only"] != losses["hybrid"] != losses["window_only"]
    assert Path(result["report"]).exists()


def test_it_is_measured_as_it_was_trained(measured):
    folder, *_ = measured
    hybrid = json.loads((converted(folder) / "config.json").read_text())["hybrid"]
    assert hybrid["window"] == {"kind": "terraced", "size": 64, "sinks": 0, "align_end": True}
    assert hybrid["compat"] == "lolcats" and hybrid["feature_map"]["dim"] == DIM
    plan = json.loads(next(folder.glob("work/jobs/*/attempts/*/plan.json")).read_text())["attention"]
    assert plan["window_align_end"] and plan["compat"] == "lolcats" and plan["feature_map_two_sided"]


# The report's loss by other means: transformers on the folder that was measured, same tokens.
@torch.no_grad()
def test_the_loss_is_what_transformers_finds(measured):
    import numpy as np
    from transformers import AutoModelForCausalLM

    folder, result, _ = measured
    model = AutoModelForCausalLM.from_pretrained(converted(folder), trust_remote_code=True, torch_dtype=torch.float32)
    ids = np.fromfile(next(folder.glob("work/cache/tokens/*/validation.bin")), dtype=np.uint16).astype(np.int64)
    count = json.loads(next(folder.glob("work/jobs/*/artifacts/report.json")).read_text())["sequences"]
    chunks = len(ids) // 128
    rows = torch.tensor(np.stack([ids[c * 128 : (c + 1) * 128] for c in (s * chunks // count for s in range(count))]))
    loss = model(rows, labels=rows).loss.item()
    assert result["components"]["hybrid"]["loss"] == pytest.approx(loss, abs=2e-4)


def test_the_same_checkpoint_is_read_once(measured):
    folder, result, stderr = measured
    assert "reading the LoLCATs checkpoint" in stderr
    again = diagnose(folder / "work", folder / "distill.pt", folder / "finetune.pt")
    assert again.returncode == 0 and "reading the LoLCATs checkpoint" not in again.stderr
    assert json.loads(again.stdout)["components"] == result["components"]


def test_a_folder_of_another_tandem_is_made_again(measured, tmp_path):
    folder, result, _ = measured
    shutil.copytree(folder / "work", tmp_path / "work")
    shutil.copytree(ROOT / "python", tmp_path / "python")
    with open(tmp_path / "python/tandem/lolcats_checkpoint.py", "a") as file:
        file.write("# a later one\n")
    older = converted(tmp_path)
    again = diagnose(tmp_path / "work", folder / "distill.pt", folder / "finetune.pt", TANDEM_PYTHONPATH=str(tmp_path / "python"))
    assert again.returncode == 0 and "reading the LoLCATs checkpoint" in again.stderr, again.stderr
    newer = converted(tmp_path)
    assert newer != older and newer.name[:20] == older.name[:20], "the older one is gone, the checkpoint is the same"
    assert json.loads(again.stdout)["uid"] != result["uid"], "a report of its own"


def test_it_writes_text_too(measured):
    done = subprocess.run([BIN / "tandem", "generate", converted(measured[0]), "--prompt", "The history of the river",
                           "--max-tokens", "80", "-o", "json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokens"] > 0


def without(name):
    return lambda tensors: tensors.pop("model.layers.1.self_attn." + name)


def with_shape(name, *shape):
    return lambda tensors: tensors.update({"model.layers.1.self_attn." + name: torch.zeros(shape)})


@pytest.mark.parametrize("change, words", [
    (without("feature_map_q.mlp.layer"), "layer 1: feature_map_q has shape None; needed (4, 64, f)"),
    (with_shape("feature_map_k.mlp.layer", 4, 32, 64), "layer 1: feature_map_k has shape (4, 32, 64); needed (4, 64, f)"),
    (with_shape("feature_map_k.mlp.layer", 4, 64, 32), "maps of different widths [32, 64]"),
    (with_shape("window_factors", 1, 5, 1, 1), "layer 1: window_factors has shape (1, 5, 1, 1); needed (1, 4, 1, 1)"),
    (lambda tensors: [tensors.pop(name) for name in list(tensors)[1:]], "layer 0: feature_map_q has shape None"),
])
def test_what_does_not_fit_is_said_in_one_line(tmp_path, change, words):
    tensors = distilled()
    change(tensors)
    torch.save({"model_state_dict": tensors}, tmp_path / "distill.pt")
    refused(diagnose(tmp_path / "work", tmp_path / "distill.pt"), words, tmp_path)


def test_lora_that_does_not_fit_is_said_in_one_line(tmp_path):
    torch.save({"model_state_dict": distilled()}, tmp_path / "distill.pt")
    lora = finetuned()
    lora["base_model.model.model.layers.2.self_attn.v_proj.lora_B.default.weight"] = torch.zeros(3, RANK)
    torch.save(lora, tmp_path / "finetune.pt")
    refused(diagnose(tmp_path / "work", tmp_path / "distill.pt", tmp_path / "finetune.pt"),
            "model.layers.2.self_attn.v_proj.weight: LoRA of shapes [(8, 256), (3, 8)] does not fit (128, 256)", tmp_path)


def test_a_file_that_is_no_checkpoint_is_said_in_one_line(tmp_path):
    (tmp_path / "text.pt").write_text("no zip")
    refused(diagnose(tmp_path / "work", tmp_path / "text.pt"), "no archive of torch.save", tmp_path)


def refused(done, words, folder):
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert [words in line for line in done.stderr.splitlines()].count(True) == 1, done.stderr
    assert not list(folder.glob("work/lolcats/lolcats-*")) and not list(folder.glob("work/jobs/*")), "nothing half-made stays"


@pytest.mark.parametrize("arguments, words", [
    (["--lolcats", "d.pt"], "--lolcats needs --base"),
    (["some-export", "--lolcats", "d.pt", "--base", str(BASE)], "give either the folder of an exported model or --lolcats"),
    (["--lolcats", "/nowhere.pt", "--base", str(BASE)], "/nowhere.pt"),
])
def test_bad_commands_are_said(tmp_path, arguments, words):
    done = subprocess.run([BIN / "tandem", "diagnose", *arguments, "--work", tmp_path / "work"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode != 0 and words in done.stderr and not (tmp_path / "work/jobs").exists(), done.stderr
