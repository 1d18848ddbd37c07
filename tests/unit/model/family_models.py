"""Random tiny models of each family, made by transformers' own classes, for families_test.cc.

    python family_models.py FOLDER

Writes FOLDER/<name>/{config.json, model.safetensors} and FOLDER/<name>/vectors.safetensors: `ids`
(2, 40), `logits` of full softmax attention, and `d.L.q_proj` ...: the gradient of the mean
next-token loss by each attention projection's weight. fp32, eager attention.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.5}
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
FAMILIES = {
    "llama": ("llama", dict(rope_parameters=LLAMA3, tie_word_embeddings=False)),
    "llama_bias": ("llama", dict(attention_bias=True, mlp_bias=True)),
    "llama_linear": ("llama", dict(rope_parameters=LINEAR)),
    "llama_old_keys": ("llama", dict(rope_parameters=LLAMA3, tie_word_embeddings=False)),
    "llama_yarn": ("llama", dict(rope_parameters=YARN)),
    "mistral": ("mistral", dict(head_dim=16, sliding_window=None)),
    "mistral_window": ("mistral", dict(sliding_window=40, tie_word_embeddings=False)),
    "qwen2": ("qwen2", dict(use_sliding_window=True, sliding_window=8, max_window_layers=2)),
    "qwen3": ("qwen3", dict(head_dim=24, tie_word_embeddings=False)),
    "qwen3_bias": ("qwen3", dict(head_dim=8, attention_bias=True)),
}
SIZES = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5,
    bos_token_id=0, eos_token_id=1, pad_token_id=None, tie_word_embeddings=True,
)  # fmt: skip
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def random_model(family, options, seed):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **{**SIZES, **options})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)  # biases too: they start at zero
            if "norm" in name:
                parameter.add_(1)
    return model


def respell(path):
    """config.json as transformers 4 and the published Llamas write it."""
    config = json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config.update(rope_theta=scaling.pop("rope_theta"), rope_scaling=scaling)
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))


def vectors(model):
    ids = torch.randint(0, SIZES["vocab_size"], (2, 40))
    logits = model(ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    out = {"ids": ids, "logits": logits.detach().contiguous()}
    for index, layer in enumerate(model.model.layers):
        for name in PROJECTIONS:
            out[f"d.{index}.{name}"] = getattr(layer.self_attn, name).weight.grad.contiguous()
    return out


def main(folder):
    torch.set_num_threads(1)
    for seed, (name, (family, options)) in enumerate(FAMILIES.items()):
        model = random_model(family, options, seed)
        model.save_pretrained(f"{folder}/{name}")
        if name.endswith("old_keys"):
            respell(Path(folder, name, "config.json"))
        save_file(vectors(model), f"{folder}/{name}/vectors.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
