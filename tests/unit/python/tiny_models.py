"""Random tiny hybrids and the naive double-precision reference that the classes are held to."""

import math

import torch
from hybrid_linear.configuration_hybrid_linear import HybridLinearConfig
from hybrid_linear.modeling_hybrid_linear import HybridLinearForCausalLM


def tiny_config(mode="hybrid", size=5, sinks=0, span="outside", factor="sigmoid", **extra):
    options = dict(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
        rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    hybrid = {
        "version": 1,
        "mode": mode,
        "window": {"kind": "sliding", "size": size, "sinks": sinks},
        "linear": {"span": span},
        "feature_map": {"kind": "hedgehog", "dim": 8},
        "mixing": {"factor": factor},
    }
    return HybridLinearConfig(**{**options, **extra}, hybrid=hybrid)


def tiny_model(seed=0, **options):
    torch.manual_seed(seed)
    model = HybridLinearForCausalLM(tiny_config(**options)).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.window_factors.uniform_(-3, 1)
            layer.self_attn.feature_map_q.weight.normal_(0, 0.7)
            layer.self_attn.feature_map_k.weight.normal_(0, 0.7)
    return model


def naive_logits(model, ids):
    """The model once more, T x T in double: shares nothing with the classes but the weights."""
    config, w = model.config, {n: p.detach().double() for n, p in model.named_parameters()}
    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        p = f"model.layers.{layer}."
        x = x + naive_attention(
            config, w, p + "self_attn.", rms(x, w[p + "input_layernorm.weight"], config)
        )
        h = rms(x, w[p + "post_attention_layernorm.weight"], config)
        gate, up = h @ w[p + "mlp.gate_proj.weight"].T, h @ w[p + "mlp.up_proj.weight"].T
        x = x + (gate * gate.sigmoid() * up) @ w[p + "mlp.down_proj.weight"].T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return rms(x, w["model.norm.weight"], config) @ head.T


def rms(x, weight, config):
    return x / (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * weight


def naive_attention(config, w, prefix, x):
    heads, kv_heads, d = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    length = x.shape[1]
    theta = config.rope_parameters["rope_theta"]
    omega = torch.tensor([theta ** (-2 * i / d) for i in range(d // 2)], dtype=torch.float64)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * omega
    cos, sin = angle.cos(), angle.sin()

    def head(name, index, rotated):
        y = (x @ w[prefix + name + "_proj.weight"].T)[..., index * d : (index + 1) * d]
        if not rotated:
            return y
        a, b = y[..., : d // 2], y[..., d // 2 :]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    outputs = []
    for h in range(heads):
        g = h // (heads // kv_heads)
        q, k, v = head("q", h, True), head("k", g, True), head("v", g, False)
        outputs.append(naive_head(config.hybrid, w, prefix, h, q, k, v))
    return torch.cat(outputs, -1) @ w[prefix + "o_proj.weight"].T


def naive_head(hybrid, w, prefix, h, q, k, v):
    length, d = q.shape[1:]
    i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
    phi_q = naive_map(q @ w[prefix + "feature_map_q.weight"][h])
    phi_k = naive_map(k @ w[prefix + "feature_map_k.weight"][h])
    x = phi_q @ phi_k.transpose(1, 2)
    if hybrid["mode"] == "linear_only":
        x = x * (j <= i)
        return x @ v / (x.sum(-1, keepdim=True) + 1e-12)
    near = (j <= i) & ((j > i - hybrid["window"]["size"]) | (j < hybrid["window"]["sinks"]))
    far = (j <= i) & ~near if hybrid["linear"]["span"] == "outside" else (j <= i)
    s = (q @ k.transpose(1, 2) / math.sqrt(d)).masked_fill(~near, -1e300)
    theta = w[prefix + "window_factors"][h]
    gamma = theta.sigmoid() if hybrid["mixing"]["factor"] == "sigmoid" else theta.exp()
    weights = gamma * (s - s.amax(-1, keepdim=True)).exp() * near + x * far
    return weights @ v / weights.sum(-1, keepdim=True)


def naive_map(u):
    return torch.cat((u.softmax(-1), (-u).softmax(-1)), -1).clamp_min(1e-12)
