"""An exported directory loads by AutoModelForCausalLM; the check finds what is wrong with one."""

import json
import os
import subprocess
import sys

import pytest
import safetensors.torch
import torch
import transformers
from conftest import ROOT
from tandem import check_export
from test_prepare import make_model
from tiny_models import tiny_config, tiny_model

CLASSES = ROOT / "python" / "hybrid_linear"


def export(folder, dtype=torch.float32, **options):
    """Writes what worker/export writes: config.json, classes, tensors, tokenizer, logits."""
    options = {"vocab_size": 300, **options}
    model = tiny_model(**options)
    make_model(folder)
    config = tiny_config(**options)
    written = {
        "architectures": ["HybridLinearForCausalLM"],
        "model_type": "hybrid_linear",
        "base_model_type": "llama",
        "auto_map": {
            "AutoConfig": "configuration_hybrid_linear.HybridLinearConfig",
            "AutoModel": "modeling_hybrid_linear.HybridLinearModel",
            "AutoModelForCausalLM": "modeling_hybrid_linear.HybridLinearForCausalLM",
        },
        "dtype": str(dtype).removeprefix("torch."),
        "torch_dtype": str(dtype).removeprefix("torch."),
        "rope_theta": 10000.0, "rope_scaling": None,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "hybrid": config.hybrid,
    }  # fmt: skip
    for name in (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
        "num_key_value_heads head_dim hidden_act max_position_embeddings rms_norm_eps "
        "tie_word_embeddings attention_bias mlp_bias bos_token_id eos_token_id use_cache "
        "initializer_range"
    ).split():
        written[name] = getattr(config, name)
    (folder / "config.json").write_text(json.dumps(written))
    for name in sorted(path.name for path in CLASSES.glob("*_hybrid_linear.py")):
        (folder / name).write_text((CLASSES / name).read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
        )
    )
    own = ("feature_map", "window_factors")
    tensors = {
        name: (p if any(part in name for part in own) else p.to(dtype)).detach().contiguous()
        for name, p in model.named_parameters()
    }
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ids = torch.randint(2, 300, (1, 96), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = model(ids).logits
    safetensors.torch.save_file({"ids": ids, "logits": logits}, folder.parent / "check.safetensors")
    return model


def run_command(folder, *arguments):
    """The command as the agent runs it: exit code and its one line."""
    command = [sys.executable, "-m", "tandem.check_export", str(folder), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("\n") == 1, done.stderr
    return done.returncode, json.loads(done.stdout)


def check(folder):
    return check_export.check(str(folder), str(folder.parent / "check.safetensors"))


@pytest.mark.parametrize(
    "options",
    [
        dict(size=5, sinks=2),
        dict(mode="linear_only", tie_word_embeddings=False),
        dict(size=4, span="all", factor="exp"),
    ],
    ids=["hybrid_tied", "linear_only_untied", "all_exp"],
)
def test_a_good_export_passes(tmp_path, options):
    export(tmp_path / "model", **options)
    result = check(tmp_path / "model")
    assert (result["ok"], result["failures"]) == (True, [])
    assert result["transformers"] == transformers.__version__ and result["max_difference"] < 1e-4


def rewrite(folder, change):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


MAP = "model.layers.1.self_attn.feature_map_k.weight"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop(MAP), "missing_keys: " + MAP),
        (
            lambda t: t.update({"model.layers.0.extra": torch.ones(2)}),
            "unexpected_keys: model.layers.0.extra",
        ),
        (lambda t: t.update({MAP: t[MAP] * 1.5}), "Tandem: logits differ"),
    ],
    ids=["missing", "unexpected", "other_values"],
)
def test_a_bad_export_is_found(tmp_path, change, words):
    export(tmp_path / "model", size=5)
    rewrite(tmp_path / "model", change)
    result = check(tmp_path / "model")
    assert not result["ok"] and any(words in failure for failure in result["failures"])


def test_own_tensors_stay_fp32_in_a_bf16_model(tmp_path):
    export(tmp_path / "model", dtype=torch.bfloat16, size=5)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", trust_remote_code=True, torch_dtype="auto"
    )
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.weight.dtype == torch.bfloat16
    assert attention.window_factors.dtype == attention.feature_map_q.weight.dtype == torch.float32
    assert model(torch.ones(1, 9, dtype=torch.long)).logits.dtype == torch.bfloat16


def test_save_pretrained_can_be_loaded_again(tmp_path):
    written = export(tmp_path / "model", size=5)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", trust_remote_code=True
    )
    model.save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "again", trust_remote_code=True
    )
    ids = torch.arange(2, 40)[None]
    with torch.no_grad():
        assert torch.equal(again(ids).logits, written(ids).logits)


def test_plain_llama_with_the_same_tensors_ignores_ours(tmp_path):
    """An identity conversion loads as its base; holds RMSNorm, RoPE and MLP to transformers'."""
    model = export(tmp_path / "model", size=1000)
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    for key in ("auto_map", "hybrid", "base_model_type"):
        config.pop(key)
    config.update(model_type="llama", architectures=["LlamaForCausalLM"])
    path.write_text(json.dumps(config))
    llama = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.arange(2, 90)[None]
    with torch.no_grad():  # the window holds every key: the hybrid is full softmax attention
        assert (llama(ids).logits - model(ids).logits).abs().max() < 1e-4


def test_command(tmp_path, monkeypatch):
    paths = [str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    export(tmp_path / "model", size=5)
    expected = ("--expected", tmp_path / "check.safetensors")
    code, result = run_command(tmp_path / "model", *expected)
    assert code == 0 and result["checked"] and result["ok"]
    rewrite(tmp_path / "model", lambda t: t.update({MAP: t[MAP] * 1.5}))
    code, result = run_command(tmp_path / "model", *expected)
    assert code == 1 and not result["ok"]


def test_without_transformers_it_says_not_checked(tmp_path, monkeypatch):
    (tmp_path / "transformers.py").write_text("raise ImportError('blocked')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT / 'python'}")
    code, result = run_command(tmp_path)
    assert code == 0 and result["checked"] is False and "not checked" in result["reason"]
