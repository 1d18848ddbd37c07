"""Proves that an exported directory is what Tandem computed, by loading it as a user would.

    python -m tandem.check_export DIR [--expected check.safetensors]

Loads DIR through AutoModelForCausalLM (trust_remote_code, fp32, offline) and wants: no missing and
no unexpected tensor; with --expected, logits within 1e-4 of Tandem's for its ids (`ids` int64 (1,
T), `logits` fp32 (1, T, V)); the same logits from prefill and decoding; the same greedy tokens with
and without a cache; a cache that stays constant in size, but for retained heads; a tokenizer that
loads. A form in which a row depends on what follows it (window.align_end, compat lolcats) is by its
nature another function token by token: there decoding and greedy tokens are not compared.

Prints one JSON line: {"checked": true, "ok", "transformers", "max_difference", ..., "failures": []}
or {"checked": false, "reason"} where torch or transformers are not installed. Exit codes: 0 all is
well or not checked, 1 the export is wrong.
"""

import argparse
import json
import os
import sys

TOLERANCE = 1e-4
PROMPT, NEW_TOKENS = 16, 24


def load(folder, failures):
    import torch
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, torch_dtype=torch.float32, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if loading.get(kind):
            failures.append(f"{kind}: {', '.join(sorted(map(str, loading[kind]))[:8])}")
    return model.eval()


def check_tokenizer(folder, failures):
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(folder, trust_remote_code=True)("a text")
    except Exception as error:  # whatever a user would see
        failures.append(f"the tokenizer does not load: {type(error).__name__}: {error}")


def difference(name, ours, theirs, failures):
    largest = (ours.double() - theirs.double()).abs().max().item()
    if not largest <= TOLERANCE:  # also when it is not a number
        failures.append(f"{name}: logits differ by {largest:.2e}; allowed is {TOLERANCE:.0e}")
    return largest


def depends_on_length(model):
    hybrid = model.config.hybrid
    return hybrid["window"].get("align_end", False) or hybrid.get("compat") == "lolcats"


def check_decoding(model, ids, failures):
    """Prefill of half, then token by token, equals one forward; the cache does not grow."""
    import torch

    whole, half = model(ids).logits, ids.shape[1] // 2
    output = model(ids[:, :half], use_cache=True)
    parts = [output.logits]
    cache = output.cache if hasattr(output, "cache") else output.past_key_values
    for t in range(half, ids.shape[1]):
        parts.append(model(ids[:, t : t + 1], past_key_values=cache).logits)
    figures = {}
    if not depends_on_length(model):
        decoded = torch.cat(parts, 1)
        figures["decode_difference"] = difference("prefill and decoding", decoded, whole, failures)
    window = model.config.hybrid["window"]["size"]
    many = ids.repeat(1, 2 + 2 * window // ids.shape[1])
    model(many, past_key_values=cache)
    before = cache.num_bytes(retained=False)
    model(many, past_key_values=cache)
    after = cache.num_bytes(retained=False)
    if after != before:
        failures.append(f"the cache grew from {before} to {after} bytes")
    return {**figures, "cache_bytes": before}


def check_generation(model, ids, failures):
    import torch

    prompt = ids[:, :PROMPT]
    settings = dict(
        attention_mask=torch.ones_like(prompt), max_new_tokens=NEW_TOKENS, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    cached = model.generate(prompt, **settings)
    if not torch.equal(cached, model.generate(prompt, use_cache=False, **settings)):
        failures.append("greedy generation with a cache gives other tokens than without")


def check(folder, expected):
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    failures, figures = [], {}
    model = load(folder, failures)
    ids = torch.randint(2, model.config.vocab_size, (1, 96))
    with torch.no_grad():
        if expected:
            from safetensors.torch import load_file

            tensors = load_file(expected)
            ids = tensors["ids"].long()
            largest = difference("Tandem", model(ids).logits, tensors["logits"], failures)
            figures["max_difference"] = largest
        figures.update(check_decoding(model, ids, failures))
        if not depends_on_length(model):
            check_generation(model, ids, failures)
    check_tokenizer(folder, failures)
    return {
        "checked": True,
        "ok": not failures,
        "transformers": transformers.__version__,
        **figures,
        "failures": failures,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tandem.check_export")
    parser.add_argument("directory")
    parser.add_argument("--expected", help="check.safetensors with ids and logits")
    options = parser.parse_args(arguments)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except (ImportError, OSError) as error:
        reason = f"torch or transformers is not installed here ({error})"
        print(json.dumps({"checked": False, "reason": "not checked: " + reason}))
        return 0
    result = check(options.directory, options.expected)
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
