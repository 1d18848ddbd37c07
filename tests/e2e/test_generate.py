"""`tandem generate` and `tandem diagnose` on what a run exports."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import BIN, ROOT, write_job

PROMPT = "The history of the river"
BASE = ROOT / "examples/base-4m"
TEXT = ROOT / "examples/text/validation.jsonl.xz"


def tandem(*arguments, **options):
    return subprocess.run([BIN / "tandem", *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


def said(done):
    assert done.returncode == 0, f"left with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    job = write_job(folder, checkpoint={"every_steps": 1000})
    return folder, said(tandem("run", job, "--work", folder / "work", "-o", "json"))


@pytest.fixture(scope="module")
def model(finished):
    return Path(finished[1]["artifact"])


def transformers_ids(folder, prompt_ids, count, trust):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=trust, torch_dtype=torch.float32)
    ids = torch.tensor([prompt_ids])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return out[0, len(prompt_ids):].tolist()


def test_greedy_tokens_are_those_of_transformers(model):
    result = said(tandem("generate", model, "--prompt", PROMPT, "--max-tokens", 96, "--compare", "-o", "json"))
    assert result["mode"] == "hybrid" and result["base"]["mode"] == "softmax"
    assert result["tokens"] == len(result["ids"]) > 0 and result["text"]
    for one, folder, trust in ((result, model, True), (result["base"], BASE, False)):
        wanted = transformers_ids(folder, one["prompt_ids"], 96, trust)
        if one["reason"] == "stop":
            wanted = wanted[:-1]  # the stop token itself
        assert one["ids"] == wanted, folder


def test_memory_is_constant_and_the_base_s_is_not(model):
    state = {}
    for count in (64, 256):
        result = said(tandem("generate", model, "--prompt", PROMPT, "--max-tokens", count, "--temperature", 1,
                             "--seed", 5, "--compare", "-o", "json"))
        assert result["reason"] == "length", "choose a seed whose texts are long enough"
        state[count] = result["state_bytes"], result["base"]["state_bytes"]
    assert state[64][0] == state[256][0]
    assert state[64][1] < state[256][1]


def test_a_seed_writes_the_same_text_and_another_one_another(model):
    def ids(seed):
        return said(tandem("generate", model, "--prompt", "-", "--max-tokens", 24, "--temperature", 1, "--top-p", 0.9,
                           "--seed", seed, "-o", "json", input=PROMPT))["ids"]

    assert ids(1) == ids(1) != ids(2)


def test_text_goes_to_stdout_and_figures_to_stderr(model):
    done = tandem("generate", model, "--prompt", PROMPT, "--max-tokens", 8, "--compare", "--base", BASE)
    assert done.returncode == 0, done.stderr
    assert "--- base model" in done.stdout and "--- converted model" in done.stdout
    assert done.stderr.count("tokens/s") == 2 and "tokens/s" not in done.stdout


@pytest.mark.parametrize("arguments, code, words", [
    (["/nowhere", "--prompt", "x"], 2, ["/nowhere"]),
    ([ROOT / "examples", "--prompt", "x"], 2, ["config.json"]),
    ([BASE, "--prompt", "x", "--mode", "hybrid"], 1, ["base model"]),
    ([BASE, "--prompt", "x", "--max-tokens", 0], 2, ["max-tokens"]),
    ([BASE, "--prompt", "x", "-o", "yaml"], 2, ["yaml"]),
    ([BASE, "--prompt", "x", "--seed", "-1"], 2, ["seed"]),
    ([BASE, "--prompt", "x", "--chat"], 2, ["no chat template", "leave out --chat"]),
    ([BASE, "--prompt", "x", "--dtype", "bfloat16"], 2, ["--device cuda"]),
])
def test_what_cannot_be_written_is_said(arguments, code, words):
    done = tandem("generate", *arguments)
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_chat_is_the_template_s_text(tmp_path):
    chat = tmp_path / "chat"
    shutil.copytree(BASE, chat)
    (chat / "chat_template.jinja").write_text("{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n"
                                              "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}")
    asked = said(tandem("generate", chat, "--prompt", "Who?", "--chat", "--max-tokens", 8, "-o", "json"))
    plain = said(tandem("generate", chat, "--prompt", "[user] Who?\n[assistant]", "--max-tokens", 8, "-o", "json"))
    assert asked["ids"] == plain["ids"] and asked["prompt_ids"] == plain["prompt_ids"]
    bare = said(tandem("generate", chat, "--prompt", "Who?", "--max-tokens", 8, "-o", "json"))
    assert len(bare["prompt_ids"]) < len(asked["prompt_ids"])


def test_the_gpu_writes_what_the_cpu_writes_or_says_why_not(model):
    done = tandem("generate", model, "--prompt", PROMPT, "--max-tokens", 32, "--device", "cuda", "-o", "json")
    if done.returncode != 0:
        assert done.returncode == 1 and "cannot use CUDA" in done.stderr and "--device cpu" in done.stderr
        pytest.skip("this machine has no GPU")
    on_cpu = said(tandem("generate", model, "--prompt", PROMPT, "--max-tokens", 32, "-o", "json"))
    on_gpu = said(done)
    assert on_gpu["ids"] == on_cpu["ids"] and on_gpu["peak_device_bytes"] > 0 == on_cpu["peak_device_bytes"]


def test_a_broken_export_is_said(model, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        if file.suffix == ".json":
            (broken / file.name).write_bytes(file.read_bytes())
    config = json.loads((broken / "config.json").read_text())
    config["hybrid"]["window"]["size"] = 0
    config["hybrid"]["gate"] = {}
    (broken / "config.json").write_text(json.dumps(config))
    done = tandem("generate", broken, "--prompt", "x")
    assert done.returncode == 1 and "hybrid.window.size" in done.stderr and "hybrid.gate" in done.stderr


def test_diagnose_finds_what_the_job_found(finished, model, tmp_path):
    job = finished[1]
    result = said(tandem("diagnose", model, "--base", BASE, "--data", TEXT, "--work", tmp_path / "work", "-o", "json"))
    assert result["state"] == "SUCCEEDED" and result["verdict"] in {"balanced", "leaning", "collapsed"}
    assert set(result["components"]) == set(job["components"])
    losses = {mode: row["loss"] for mode, row in result["components"].items()}
    assert losses["softmax"] < losses["hybrid"] < losses["none"]
    assert Path(result["report"]).exists()


def test_diagnose_measures_on_the_gpu_or_says_why_not(model, tmp_path):
    done = tandem("diagnose", model, "--data", TEXT, "--device", "cuda", "--work", tmp_path / "work", "-o", "json")
    if done.returncode != 0:
        assert done.returncode == 2 and "no GPU that may be used" in done.stderr and "--device cpu" in done.stderr
        pytest.skip("this machine has no GPU")
    assert said(done)["state"] == "SUCCEEDED"


def test_diagnose_refuses_what_is_no_export(tmp_path):
    done = tandem("diagnose", BASE, "--work", tmp_path / "work")
    assert done.returncode != 0 and "hybrid" in done.stderr and not (tmp_path / "work").exists()
    done = tandem("diagnose", "/nowhere", "--work", tmp_path / "work")
    assert done.returncode != 0 and "/nowhere" in done.stderr
