"""Makes a converted model of a published LoLCATs checkpoint, so that Tandem can measure it.

    python -m tandem.lolcats_checkpoint --base DIR --distill D.pt [--finetune F.pt] OUT

BASE is the softmax model that was converted. D.pt holds feature maps and window factors,
`model.layers.L.self_attn.{feature_map_q,feature_map_k}.mlp.layer` (H, d, f) and `.window_factors` (1,
H, 1, 1); F.pt LoRA, `...q_proj.lora_A.default.weight` (r, in), `.lora_B.` (out, r), and perhaps newer
maps. OUT becomes a folder like an export: the base's weights with LoRA added (W + alpha/r B A, in
fp32), maps and factors, config.json (terraced window, hedgehog maps, sigmoid factors), the classes.
The .pt files are read without running what is in them (torch_archive.py).

The checkpoint is measured as it was trained: blocks of the window end with the text (align_end), and
texts no longer than the window count every key in both branches, which is the original's defect
(compat lolcats).

Says one JSON line {"model": OUT, "layers", "lora_rank"} on stderr: stdout is its caller's, who may
print JSON. Exit codes: 0, or 1 with the fault on stderr.
"""

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np

from tandem.safetensors_file import SafetensorsReader, write_safetensors
from tandem.torch_archive import ArchiveError, TorchArchive

NAME = re.compile(
    r"(?:base_model\.model\.)?model\.layers\.(\d+)\.self_attn\."
    r"(?:(feature_map_[qk])\.mlp\.layer|(window_factors)"
    r"|([qkvo])_proj\.lora_([AB])(?:\.default)?\.weight)"
)
COPIED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
    "tokenizer.model", "LICENSE", "USE_POLICY.md",
)  # fmt: skip


def read_checkpoint(path, maps, lora):
    """Adds to maps {(layer, name): array} and lora {(layer, projection): {A, B}}."""
    with TorchArchive(path) as archive:
        known = 0
        for name in archive.tensors:
            match = NAME.fullmatch(name)
            if match is None:
                continue
            known += 1
            layer, feature_map, factors, projection, part = match.groups()
            array = archive.read(name).astype(np.float32)
            if projection:
                lora.setdefault((int(layer), projection), {})[part] = array
            else:
                maps[int(layer), feature_map or factors] = array
    if not known:
        raise ArchiveError(f"{path}: none of its {len(archive.tensors)} tensors is LoLCATs'")


def check_maps(maps, config):
    """Shapes of all layers; returns the map's width."""
    heads = config["num_attention_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    widths, wrong = set(), []
    for layer in range(config["num_hidden_layers"]):
        for name in ("feature_map_q", "feature_map_k"):
            array = maps.get((layer, name))
            shape = None if array is None else array.shape
            if shape is None or len(shape) != 3 or shape[:2] != (heads, dim):
                wrong.append(f"layer {layer}: {name} has shape {shape}; needed ({heads}, {dim}, f)")
            else:
                widths.add(shape[2])
        factors = maps.get((layer, "window_factors"))
        if factors is None or factors.size != heads:
            shape = None if factors is None else factors.shape
            wrong.append(f"layer {layer}: window_factors has shape {shape}; needed (1, {heads}, 1, 1)")
    if len(widths) > 1:
        wrong.append(f"maps of different widths {sorted(widths)}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError("the checkpoint does not fit the base: " + "; ".join(wrong[:5]) + more)
    return widths.pop()


def added_weight(reader, name, pair, alpha):
    base, (a, b) = reader.floats(name), (pair.get("A"), pair.get("B"))
    if a is None or b is None or (b.shape[0], a.shape[1]) != base.shape or b.shape[1] != a.shape[0]:
        shapes = [None if x is None else x.shape for x in (a, b)]
        raise ValueError(f"{name}: LoRA of shapes {shapes} does not fit {base.shape}")
    return (base + alpha / a.shape[0] * (b @ a)).astype("<f4").tobytes()


def write_weights(base, out, maps, lora, alpha):
    """A file per file of the base, and one more for what was added."""
    weight_map, total = {}, 0
    pairs = {
        f"model.layers.{layer}.self_attn.{projection}_proj.weight": pair
        for (layer, projection), pair in lora.items()
    }
    for path in sorted(Path(base).glob("*.safetensors")):
        reader, tensors = SafetensorsReader(str(path)), {}
        for name, entry in reader.entries.items():
            pair = pairs.pop(name, None)
            if pair is None:
                make = lambda reader=reader, name=name: reader.bytes_of(name)  # noqa: E731
                tensors[name] = (entry["dtype"], entry["shape"], make)
            else:
                raw = added_weight(reader, name, pair, alpha)
                tensors[name] = ("F32", entry["shape"], lambda raw=raw: raw)
        total += write_safetensors(f"{out}/{path.name}", tensors)
        weight_map.update({name: path.name for name in tensors})
    if not weight_map:
        raise ValueError(f"{base} has no *.safetensors file")
    if pairs:
        raise ValueError(f"{base} has no tensor {sorted(pairs)[0]}, which LoRA changes")
    added = {}
    for (layer, name), array in maps.items():
        leaf = name if name == "window_factors" else name + ".weight"
        array = array.reshape(-1) if name == "window_factors" else array
        raw = np.ascontiguousarray(array, "<f4").tobytes()
        added[f"model.layers.{layer}.self_attn.{leaf}"] = ("F32", array.shape, lambda raw=raw: raw)
    total += write_safetensors(f"{out}/linear_attention.safetensors", added)
    weight_map.update({name: "linear_attention.safetensors" for name in added})
    if (Path(out) / "model.safetensors").exists():  # a lone model.safetensors would be all there is
        os.replace(f"{out}/model.safetensors", f"{out}/model-base.safetensors")
        rename = {"model.safetensors": "model-base.safetensors"}
        weight_map = {name: rename.get(file, file) for name, file in weight_map.items()}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    Path(out, "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def hybrid_config(config, width, window):
    family = config.get("model_type")
    if family not in ("llama", "mistral"):
        raise ValueError(f"the base's model_type is {family!r}; LoLCATs converted llama and mistral")
    for key in ("_name_or_path", "layer_types", "sliding_window", "quantization_config"):
        config.pop(key, None)
    heads = config["num_attention_heads"]
    config.setdefault("head_dim", config["hidden_size"] // heads)
    config.setdefault("tie_word_embeddings", False)
    config.update(
        architectures=["HybridLinearForCausalLM"],
        model_type="hybrid_linear",
        base_model_type=family,
        auto_map={
            "AutoConfig": "configuration_hybrid_linear.HybridLinearConfig",
            "AutoModel": "modeling_hybrid_linear.HybridLinearModel",
            "AutoModelForCausalLM": "modeling_hybrid_linear.HybridLinearForCausalLM",
        },
        hybrid={
            "version": 1,
            "mode": "hybrid",
            "window": {"kind": "terraced", "size": window, "sinks": 0, "align_end": True},
            "linear": {"span": "outside"},
            "feature_map": {"kind": "hedgehog", "dim": width, "tie_kv_heads": False},
            "mixing": {"kind": "shared", "factor": "sigmoid", "affine": False, "window_gain": 1.0},
            "retain": {"kv_groups": []},
            "cache": {"size": 0},
            "compat": "lolcats",
        },
    )
    return config


def convert(options):
    config = json.loads(Path(options.base, "config.json").read_text())
    maps, lora = {}, {}
    for path in (options.distill, options.finetune):
        if path:
            read_checkpoint(path, maps, lora)
    config = hybrid_config(config, check_maps(maps, config), options.window)
    aside = options.out.rstrip("/") + ".tmp"
    shutil.rmtree(aside, ignore_errors=True)
    os.makedirs(aside)
    try:
        fill_folder(options, aside, config, maps, lora)
        os.rename(aside, options.out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # half-made: it may be as large as the model
    ranks = sorted({pair["A"].shape[0] for pair in lora.values()})
    return {"model": options.out, "layers": config["num_hidden_layers"], "lora_rank": ranks}


def fill_folder(options, aside, config, maps, lora):
    write_weights(options.base, aside, maps, lora, options.lora_alpha)
    Path(aside, "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in COPIED:
        if Path(options.base, name).exists():
            shutil.copyfile(Path(options.base, name), Path(aside, name))
    classes = Path(__file__).resolve().parents[1] / "hybrid_linear"
    for path in classes.glob("*_hybrid_linear.py"):
        shutil.copyfile(path, Path(aside, path.name))


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tandem.lolcats_checkpoint")
    parser.add_argument("out", help="folder to make; must not exist")
    parser.add_argument("--base", required=True, help="folder of the softmax model")
    parser.add_argument("--distill", required=True, help=".pt with feature maps")
    parser.add_argument("--finetune", help=".pt with LoRA")
    parser.add_argument("--window", type=int, default=64, help="the block, 64 in published ones")
    parser.add_argument("--lora-alpha", type=float, default=16.0)
    options = parser.parse_args(arguments)
    try:
        if os.path.exists(options.out):
            raise ValueError(f"{options.out} exists; name a folder that does not")
        print(json.dumps(convert(options)), file=sys.stderr)
    except (ValueError, OSError, KeyError) as error:
        print(f"lolcats_checkpoint: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
