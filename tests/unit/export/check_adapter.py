"""check_adapter.py BASE EXPORT: the parts of an export give the whole, through peft.

BASE is the softmax model that was converted; EXPORT has adapter/ and delta/.
"""

import sys
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-6


def load(folder):
    return AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, torch_dtype=torch.float32
    ).eval()


def largest(a, b):
    return (a - b).abs().max().item()


@torch.no_grad()
def main(base, export):
    warnings.simplefilter("error", UserWarning)  # peft warns of keys that it does not know
    whole = load(export)
    weights = whole.state_dict()
    merged = PeftModel.from_pretrained(load(base), export + "/adapter").merge_and_unload()
    moved = 0.0
    for name, tensor in load(base).state_dict().items():
        assert largest(merged.state_dict()[name], weights[name]) < TOLERANCE, name
        moved = max(moved, largest(tensor, weights[name]))
    assert moved > 0.01, "the adapter changes nothing"

    # The converted model from the base's weights, the delta and the adapter.
    parts = load(export)
    delta = load_file(export + "/delta/linear_attention.safetensors")
    added = {n for n in weights if "feature_map" in n or "window_factors" in n}
    assert set(delta) == added and added, sorted(added ^ set(delta))
    for name, parameter in parts.named_parameters():
        if name in delta:
            parameter.zero_().add_(delta[name])
    parts.load_state_dict(load(base).state_dict(), strict=False)
    ids = torch.randint(0, parts.config.vocab_size, (1, 40), generator=torch.Generator())
    expected = whole(ids).logits
    assert largest(parts(ids).logits, expected) > 1e-2  # without the adapter
    adapted = PeftModel.from_pretrained(parts, export + "/adapter")
    difference = largest(adapted(ids).logits, expected)
    assert difference < 1e-4, difference
    print("merged weights and logits agree", difference)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
