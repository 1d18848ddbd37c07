"""The exported classes against a naive double-precision model, in every way a model is run.

Tolerance: logits of size 6 in fp32, two layers: 1e-5 away from double, and 1e-4 is what an export
promises.
"""

import re

import pytest
import torch
from hybrid_linear import attention_hybrid_linear as attention
from hybrid_linear import modeling_hybrid_linear as modeling
from hybrid_linear.configuration_hybrid_linear import HybridLinearConfig
from hybrid_linear.modeling_hybrid_linear import HybridLinearCache
from tiny_models import naive_logits, tiny_config, tiny_model

TOLERANCE = 1e-4
VARIANTS = {
    "outside": dict(size=5),
    "outside_sinks_exp": dict(size=5, sinks=3, factor="exp"),
    "all": dict(size=4, span="all"),
    "all_sinks_untied": dict(size=4, sinks=2, span="all", tie_word_embeddings=False),
    "window_1": dict(size=1),
    "window_beyond_text": dict(size=64, sinks=2),
    "linear_only": dict(mode="linear_only"),
    "one_kv_head": dict(num_key_value_heads=1),
    "window_only": dict(mode="window_only", sinks=2),
    "terraced": dict(window="terraced", size=4),
    "terraced_sinks": dict(window="terraced", size=7, sinks=3, kind="exp_shifted"),
    "terraced_all": dict(window="terraced", size=4, span="all", tied=True),
    "terraced_window_only": dict(window="terraced", size=4, mode="window_only"),
    "exp": dict(kind="exp"),
    "relu_tied": dict(kind="relu", tied=True),
    "elu": dict(kind="elu", mode="linear_only"),
    "hedgehog_one_side_biased": dict(two_sided=False, bias=True),
    "exp_biased_tied_retained": dict(kind="exp", bias=True, tied=True, retained=[(1, 1)]),
    "exp_shifted_one_side": dict(kind="exp_shifted", two_sided=False),
    "relu_two_sided_unbiased": dict(kind="relu", two_sided=True, bias=False),
    "elu_two_sided_biased_cache": dict(kind="elu", two_sided=True, bias=True, tied=True, cache=3),
    "affine_gain": dict(affine=True, gain=10.0),
    "mass": dict(mixing="mass", sinks=2),
    "mass_terraced_tied": dict(mixing="mass", window="terraced", tied=True),
    "retained_group": dict(retained=[(1, 1)], kind="relu"),
    "retained_layer": dict(retained=[(0, 0), (0, 1)], tied=True, sinks=1),
    "retained_linear_only": dict(retained=[(0, 1)], mode="linear_only"),
    "retained_window_only": dict(retained=[(0, 1)], mode="window_only"),
    # Another seed: the same token twice has the same score in layer 0, up to rounding.
    "sparse_cache": dict(cache=3, gain=10.0, seed=1),
    "sparse_cache_sinks_tied": dict(cache=6, sinks=2, tied=True, retained=[(1, 0)]),
    "sparse_cache_terraced": dict(cache=4, window="terraced", size=3),
    "mistral": dict(base_model_type="mistral"),
    "qwen2": dict(base_model_type="qwen2"),
    "qwen3": dict(base_model_type="qwen3", window="terraced"),
    "biases": dict(attention_bias=True, mlp_bias=True),
}


@pytest.fixture(params=VARIANTS, scope="module")
def case(request):
    torch.set_num_threads(1)
    model = tiny_model(**VARIANTS[request.param])
    ids = torch.randint(2, 97, (2, 50), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return model, ids, naive_logits(model, ids)


def largest(a, b):
    return (a.double() - b).abs().max().item()


@torch.no_grad()
@pytest.mark.parametrize("block_rows", [128, 16, 7])
def test_forward_equals_naive(case, block_rows, monkeypatch):
    model, ids, expected = case
    monkeypatch.setattr(attention, "BLOCK_ROWS", block_rows)
    assert largest(model(ids).logits, expected) < TOLERANCE


@torch.no_grad()
def test_prefill_chunks_and_decoding_equal_one_forward(case):
    model, ids, expected = case
    cache, parts = HybridLinearCache(), []
    for begin, end in [(0, 20), (20, 33), *((t, t + 1) for t in range(33, 50))]:
        output = model(ids[:, begin:end], past_key_values=cache)
        assert getattr(output, modeling.OUTPUT_CACHE) is cache
        parts.append(output.logits)
    assert cache.get_seq_length() == 50
    assert largest(torch.cat(parts, 1), expected) < TOLERANCE


@torch.no_grad()
def test_left_padding_changes_nothing(case):
    model, ids, expected = case
    padded = torch.cat((torch.full((2, 6), 5), ids), 1)
    mask = torch.ones_like(padded)
    mask[:, :6] = 0
    padded[1], mask[1] = torch.cat((padded[1, 3:], padded[1, :3])), torch.cat(
        (mask[1, 3:], mask[1, :3])
    )
    padded, mask = padded[:, :53], mask[:, :53]  # row 0: 6 pads and 47 tokens, row 1: 3 pads and 50
    whole = model(padded, attention_mask=mask).logits
    assert largest(whole[0, 6:], expected[0, :47]) < TOLERANCE
    assert largest(whole[1, 3:], expected[1]) < TOLERANCE
    cache = HybridLinearCache()
    model(padded[:, :40], attention_mask=mask[:, :40], cache=cache)
    later = model(padded[:, 40:], attention_mask=mask, cache=cache).logits
    assert largest(later[0], expected[0, 34:47]) < TOLERANCE
    assert largest(later[1], expected[1, 37:]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_generate_with_cache_equals_without(case, options):
    model, ids, _ = case
    mask = torch.ones_like(ids[:, :9])
    settings = dict(
        attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=1, **options
    )
    cached = model.generate(ids[:, :9], **settings)
    assert torch.equal(cached, model.generate(ids[:, :9], use_cache=False, **settings))


@torch.no_grad()
def test_generate_goes_on_from_a_given_cache(case):
    model, ids, _ = case
    settings = dict(do_sample=False, pad_token_id=1)
    cache = HybridLinearCache()
    model(ids[:, :12], cache=cache)
    mask = torch.ones_like(ids[:, :20])
    resumed = model.generate(
        ids[:, :20],
        attention_mask=mask,
        max_new_tokens=8,
        **{modeling.OUTPUT_CACHE: cache},
        **settings
    )
    fresh = model.generate(ids[:, :20], attention_mask=mask, max_new_tokens=8, **settings)
    assert torch.equal(resumed, fresh)


@torch.no_grad()
def test_cache_size_is_constant(case):
    model, ids, _ = case
    cache, sizes = HybridLinearCache(), []
    model(ids.repeat(1, 2), cache=cache)  # 100 tokens: every window is full
    for t in range(30):
        model(ids[:, t : t + 1], cache=cache)
        sizes.append(cache.num_bytes(retained=False))
    assert sizes[0] > 0 and len(set(sizes)) == 1


# Forms in which a row depends on what follows it: LoLCATs'.
FROM_THE_END = {
    "align_end": dict(align_end=True),
    "align_end_sinks_tied": dict(align_end=True, sinks=3, tied=True),
    "align_end_all": dict(align_end=True, span="all"),
    "align_end_window_only": dict(align_end=True, mode="window_only"),
    "compat": dict(compat="lolcats"),
    "as_lolcats": dict(align_end=True, compat="lolcats", sinks=2, retained=[(0, 1)]),
}


@torch.no_grad()
@pytest.mark.parametrize("options", FROM_THE_END.values(), ids=FROM_THE_END)
@pytest.mark.parametrize("block_rows", [128, 3])
def test_forms_from_the_end(options, block_rows, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK_ROWS", block_rows)
    model = tiny_model(window="terraced", size=7, **options)
    ids = torch.randint(2, 97, (2, 40), generator=torch.Generator().manual_seed(7))
    for length in (1, 5, 7, 8, 14, 20, 40):
        text = ids[:, :length]
        assert largest(model(text).logits, naive_logits(model, text)) < TOLERANCE, length
    padded = torch.cat((ids[:, :3], ids[:, :9]), 1)  # rows of 9 and of 6 tokens
    mask = (torch.arange(12) >= torch.tensor([[3], [6]])).long()
    logits = model(padded, attention_mask=mask).logits
    assert largest(logits[0, 3:], naive_logits(model, ids[:1, :9])[0]) < TOLERANCE
    assert largest(logits[1, 6:], naive_logits(model, padded[1:, 6:])[0]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("options", FROM_THE_END.values(), ids=FROM_THE_END)
@pytest.mark.parametrize("prompt", [5, 7, 20])
def test_after_a_prompt_the_window_slides(options, prompt):
    model = tiny_model(window="terraced", size=7, **options)
    ids = torch.randint(2, 97, (1, 40), generator=torch.Generator().manual_seed(7))
    cache = HybridLinearCache()
    parts = [model(ids[:, :prompt], cache=cache).logits]
    parts += [model(ids[:, t : t + 1], cache=cache).logits for t in range(prompt, 40)]
    model.config.hybrid["prompt"] = prompt
    assert largest(torch.cat(parts, 1), naive_logits(model, ids)) < TOLERANCE


def test_gradients_equal_naive():
    """Through the maximum, the maps and the factors: what finetuning an export would follow."""
    model = tiny_model(size=5, sinks=1).double()
    ids = torch.randint(2, 97, (1, 20), generator=torch.Generator().manual_seed(3))
    names = ["feature_map_k.weight", "window_factors", "q_proj.weight"]
    parameters = [dict(model.model.layers[0].self_attn.named_parameters())[n] for n in names]
    weights = torch.randn(1, 20, 97, generator=torch.Generator().manual_seed(4)).double()
    with torch.no_grad():
        naive_logits(model, ids)
    mine = torch.autograd.grad((model(ids).logits * weights).sum(), parameters)
    step = 1e-6
    for name, parameter, gradient in zip(names, parameters, mine):
        flat = parameter.data.view(-1)
        for index in (0, 3):
            kept = flat[index].item()
            sums = []
            for shift in (step, -step):
                flat[index] = kept + shift
                with torch.no_grad():
                    sums.append((naive_logits(model, ids) * weights).sum())
            flat[index] = kept
            difference = (sums[0] - sums[1]) / (2 * step)
            assert torch.allclose(gradient.view(-1)[index], difference, rtol=1e-5, atol=1e-7), name


def test_labels_give_the_next_token_loss():
    model = tiny_model()
    ids = torch.randint(2, 97, (2, 20), generator=torch.Generator().manual_seed(3))
    output = model(ids, labels=ids)
    expected = torch.nn.functional.cross_entropy(
        output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    )
    assert torch.allclose(output.loss, expected)


@torch.no_grad()
def test_right_padding_works_without_a_cache_and_is_refused_with_one():
    model = tiny_model()
    ids = torch.randint(2, 97, (1, 20), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[:, 15:] = 0
    assert (
        largest(model(ids, attention_mask=mask).logits[:, :15], naive_logits(model, ids[:, :15]))
        < TOLERANCE
    )
    with pytest.raises(ValueError, match="on the left"):
        model(ids, attention_mask=mask, use_cache=True)


def test_what_cannot_work_is_refused_by_name():
    model = tiny_model()
    ids = torch.ones(1, 4, dtype=torch.long)
    with pytest.raises(NotImplementedError, match="cropped"):
        HybridLinearCache().crop(1)
    with pytest.raises(ValueError, match="output_attentions"):
        model(ids, output_attentions=True)
    with pytest.raises(ValueError, match="attention_mask has shape"):
        model(ids, attention_mask=torch.ones(1, 7))
    with pytest.raises(ValueError, match="pass a HybridLinearCache"):
        model(ids, past_key_values=((ids, ids),))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda h: h.update(version=2), "these classes read version 1"),
        (lambda h: h["window"].update(kind="dilated"), "hybrid.window.kind is 'dilated'"),
        (lambda h: h["window"].update(size=0), "hybrid.window.size is 0"),
        (lambda h: h["feature_map"].update(kind="gelu"), "hybrid.feature_map.kind is 'gelu'"),
        (lambda h: h.update(retain={"heads": []}), "hybrid.retain.heads is unknown"),
        (lambda h: h.update(retain={"kv_groups": [[2, 0]]}), "holds [2, 0]; must be [layer below 2"),
        (lambda h: h["mixing"].update(window_gain=0), "hybrid.mixing.window_gain is 0"),
        (lambda h: h["mixing"].update(affine=True, factor="exp"), "affine needs"),
        (lambda h: h.update(cache={"size": 4}, linear={"span": "all"}), "hybrid.cache.size needs"),
        (lambda h: h.pop("mixing"), "hybrid.mixing.factor is missing"),
        (lambda h: h["window"].update(align_end=True), "align_end needs hybrid.window.kind terraced"),
        (lambda h: h.update(compat="lolcats"), "hybrid.compat lolcats needs"),
        (lambda h: h["feature_map"].update(bias=1.5), "hybrid.feature_map.bias is 1.5"),
    ],
)
def test_config_refuses(change, message):
    hybrid = tiny_config().hybrid
    change(hybrid)
    with pytest.raises(ValueError, match=re.escape(message)):
        HybridLinearConfig(num_hidden_layers=2, hybrid=hybrid)


def test_an_old_export_means_what_it_meant():
    hybrid = {
        "version": 1,
        "mode": "hybrid",
        "window": {"kind": "sliding", "size": 5, "sinks": 0},
        "linear": {"span": "outside"},
        "feature_map": {"kind": "hedgehog", "dim": 8},
        "mixing": {"factor": "sigmoid"},
    }
    assert HybridLinearConfig(hybrid=hybrid).hybrid == tiny_config().hybrid


def test_the_retained_heads_cache_grows_and_the_rest_does_not():
    model = tiny_model(retained=[(1, 1)])
    ids = torch.randint(2, 97, (1, 40), generator=torch.Generator().manual_seed(7))
    cache = HybridLinearCache()
    model(ids, cache=cache)
    assert cache.num_bytes() - cache.num_bytes(retained=False) == 40 * (2 * 16 * 4 + 8)
    assert cache.states[0].names == cache.states[0].linear_names


def test_config_reads_both_rope_spellings_and_refuses_a_contradiction():
    llama3 = dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=64,
    )  # fmt: skip
    old = HybridLinearConfig(rope_theta=5e5, rope_scaling=llama3)
    new = HybridLinearConfig(rope_parameters={"rope_theta": 5e5, **llama3})
    assert old.rope_parameters == new.rope_parameters == {"rope_theta": 5e5, **llama3}
    with pytest.raises(ValueError, match="differ"):
        HybridLinearConfig(
            rope_theta=1e4, rope_parameters={"rope_theta": 5e5, "rope_type": "default"}
        )
    with pytest.raises(ValueError, match="RoPE type 'longrope'"):
        HybridLinearConfig(rope_scaling={"type": "longrope", "factor": 2.0})
    with pytest.raises(ValueError, match="mscale"):
        HybridLinearConfig(rope_scaling={**llama3, "rope_type": "yarn", "mscale": 0.7})


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn"])
def test_scaled_rope_equals_transformers(kind):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": kind, "factor": 8.0}
    if kind == "llama3":
        parameters.update(
            low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=256
        )
    if kind == "yarn":
        parameters.update(original_max_position_embeddings=256, beta_fast=16.0)
    theirs = LlamaConfig(
        hidden_size=64, num_attention_heads=2, rope_theta=1e4, rope_scaling=dict(parameters)
    )
    expected, factor = ROPE_INIT_FUNCTIONS[kind](theirs, torch.device("cpu"))
    mine = HybridLinearConfig(
        hidden_size=64, num_attention_heads=2, rope_theta=1e4, rope_scaling=parameters
    )
    assert torch.allclose(
        modeling.inverse_frequencies(mine, torch.device("cpu")), expected, rtol=1e-6
    )
    assert abs(modeling.attention_factor(mine) - factor) < 1e-6
