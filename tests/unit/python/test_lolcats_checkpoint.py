"""Published LoLCATs checkpoints, in small: their key layout, and what must never be run."""

import collections
import json
import os
import pickle
import zipfile

import pytest
import torch
from hybrid_linear.modeling_hybrid_linear import HybridLinearForCausalLM
from safetensors.torch import load_file
from tandem import lolcats_checkpoint
from tandem.torch_archive import ArchiveError, TorchArchive
from tiny_models import naive_logits
from transformers import LlamaConfig, LlamaForCausalLM

HEADS, KV_HEADS, DIM, WIDTH, LAYERS, RANK = 4, 2, 16, 8, 2, 3


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A base and the two checkpoints of its conversion, as the original's scripts save them."""
    folder = tmp_path_factory.mktemp("lolcats")
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=DIM, rms_norm_eps=1e-5,
        tie_word_embeddings=False, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "base")
    distill, finetune = {}, {}
    for layer in range(LAYERS):
        p = f"model.layers.{layer}.self_attn."
        distill[p + "window_factors"] = torch.randn(1, HEADS, 1, 1)
        for name in ("feature_map_q", "feature_map_k"):
            distill[p + name + ".mlp.layer"] = torch.nn.Parameter(torch.randn(HEADS, DIM, WIDTH))
        for name, out in (("q", HEADS * DIM), ("v", KV_HEADS * DIM)):
            p = f"base_model.model.model.layers.{layer}.self_attn.{name}_proj.lora_"
            finetune[p + "A.default.weight"] = torch.randn(RANK, 32).to(torch.bfloat16)
            finetune[p + "B.default.weight"] = torch.randn(out, RANK) * 0.1
    finetune = collections.OrderedDict(finetune)
    torch.save({"model_state_dict": distill, "step": 7}, folder / "distill.pt")
    torch.save(finetune, folder / "finetune.pt")
    return folder, distill, finetune


def convert(folder, name, *more):
    arguments = ["--base", str(folder / "base"), "--distill", str(folder / "distill.pt"), *more]
    code = lolcats_checkpoint.main([str(folder / name), *arguments, "--window", "4"])
    return code, str(folder / name)


@torch.no_grad()
def test_a_checkpoint_becomes_a_model_that_loads(case, capsys):
    folder, distill, finetune = case
    code, out = convert(folder, "out", "--finetune", str(folder / "finetune.pt"))
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.out == "" and json.loads(printed.err) == {"model": out, "layers": LAYERS, "lora_rank": [RANK]}
    model, info = HybridLinearForCausalLM.from_pretrained(
        out, torch_dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    weights, base = model.state_dict(), load_file(folder / "base/model.safetensors")
    p = "model.layers.1.self_attn."
    assert torch.equal(weights[p + "feature_map_k.weight"], distill[p + "feature_map_k.mlp.layer"])
    assert torch.equal(weights[p + "window_factors"], distill[p + "window_factors"].view(-1))
    q = "base_model.model." + p + "q_proj.lora_"
    a, b = (finetune[q + x + ".default.weight"].float() for x in "AB")
    wanted = base[p + "q_proj.weight"].float() + 16 / RANK * b @ a
    assert torch.allclose(weights[p + "q_proj.weight"], wanted, atol=1e-5)
    assert torch.equal(weights[p + "k_proj.weight"], base[p + "k_proj.weight"].float())
    ids = torch.randint(0, 64, (1, 30))
    assert (model.eval()(ids).logits.double() - naive_logits(model, ids)).abs().max() < 1e-4


def test_without_lora_the_bases_weights_stay(case, capsys):
    folder, _, _ = case
    code, out = convert(folder, "plain")
    assert code == 0, capsys.readouterr().err
    base = load_file(folder / "base/model.safetensors")
    again = load_file(out + "/model-base.safetensors")
    assert all(torch.equal(base[n], again[n]) and base[n].dtype == again[n].dtype for n in base)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("inside", ["alone", "beside tensors"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, inside):
    trace = tmp_path / "was-run"
    content = {"model_state_dict": Evil(trace)}
    if inside == "beside tensors":
        content["model.layers.0.self_attn.window_factors"] = torch.ones(1)
    torch.save(content, tmp_path / "evil.pt")
    with pytest.raises(ArchiveError, match="system, which is no tensor; nothing was run"):
        TorchArchive(tmp_path / "evil.pt")
    assert not trace.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "builtins.getattr", "torch.load", "torch._utils._rebuild_qtensor"]
)
def test_no_other_name_can_be_looked_up(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(ArchiveError, match=attribute):
        TorchArchive(tmp_path / "x.pt")


def test_a_storage_is_a_word_and_cannot_be_called(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"ctorch\nFloatStorage\n(tR.")
    with pytest.raises(ArchiveError, match="cannot be read"):
        TorchArchive(tmp_path / "x.pt")


def test_tensors_that_leave_their_storage_are_refused(tmp_path):
    class Liar:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), 3, (2, 2), (2, 1), False, {})

    class Storage:
        pass

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", 4)

    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        with archive.open("x/data.pkl", "w") as file:
            Pickler(file, protocol=2).dump({"a": Liar()})
    with pytest.raises(ArchiveError, match="reaches element 6 of a storage of 4"):
        TorchArchive(tmp_path / "x.pt")


def test_what_does_not_fit_is_named(case, tmp_path, capsys):
    folder, distill, _ = case
    wrong = dict(distill)
    del wrong["model.layers.1.self_attn.feature_map_q.mlp.layer"]
    torch.save(wrong, tmp_path / "wrong.pt")
    arguments = ["--base", str(folder / "base"), "--distill", str(tmp_path / "wrong.pt")]
    assert lolcats_checkpoint.main([str(tmp_path / "out"), *arguments]) == 1
    assert "layer 1: feature_map_q has shape None" in capsys.readouterr().err
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    arguments[-1] = str(tmp_path / "other.pt")
    assert lolcats_checkpoint.main([str(tmp_path / "out"), *arguments]) == 1
    assert "none of its 1 tensors is LoLCATs'" in capsys.readouterr().err
    (tmp_path / "text.pt").write_text("no zip")
    arguments[-1] = str(tmp_path / "text.pt")
    assert lolcats_checkpoint.main([str(tmp_path / "out"), *arguments]) == 1
    assert "no archive of torch.save" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
