"""Random tiny hybrids and the naive double-precision reference that the classes are held to."""

import math

import torch
from hybrid_linear.configuration_hybrid_linear import HybridLinearConfig
from hybrid_linear.modeling_hybrid_linear import HybridLinearForCausalLM


def tiny_config(
    mode="hybrid", size=5, sinks=0, span="outside", factor="sigmoid", window="sliding",
    kind="hedgehog", tied=False, mixing="shared", affine=False, gain=1.0, retained=(), cache=0,
    two_sided=None, bias=None, align_end=False, compat="none", **extra,
):  # fmt: skip
    options = dict(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
        rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    hybrid = {
        "version": 1,
        "mode": mode,
        "window": {"kind": window, "size": size, "sinks": sinks, "align_end": align_end},
        "linear": {"span": span},
        "feature_map": {"kind": kind, "dim": 8, "tie_kv_heads": tied},
        "mixing": {"kind": mixing, "factor": factor, "affine": affine, "window_gain": gain},
        "retain": {"kv_groups": [list(pair) for pair in retained]},
        "cache": {"size": cache},
        "compat": compat,
    }
    for key, value in (("two_sided", two_sided), ("bias", bias)):
        if value is not None:
            hybrid["feature_map"][key] = value
    return HybridLinearConfig(**{**options, **extra}, hybrid=hybrid)


def tiny_model(seed=0, **options):
    torch.manual_seed(seed)
    model = HybridLinearForCausalLM(tiny_config(**options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
            if name.endswith("norm.weight"):
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.2))
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
        normed = rms(x, w[p + "input_layernorm.weight"], config)
        x = x + naive_attention(config, w, layer, normed)
        h = rms(x, w[p + "post_attention_layernorm.weight"], config)
        gate, up = project(w, p + "mlp.gate_proj", h), project(w, p + "mlp.up_proj", h)
        x = x + project(w, p + "mlp.down_proj", gate * gate.sigmoid() * up)
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return rms(x, w["model.norm.weight"], config) @ head.T


def project(w, name, x):
    return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)


def rms(x, weight, config):
    return x / (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * weight


def naive_attention(config, w, layer, x):
    heads, kv_heads, d = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    length, prefix = x.shape[1], f"model.layers.{layer}.self_attn."
    theta = config.rope_parameters["rope_theta"]
    omega = torch.tensor([theta ** (-2 * i / d) for i in range(d // 2)], dtype=torch.float64)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * omega
    cos, sin = angle.cos(), angle.sin()

    def head(name, index, rotated):
        y = project(w, prefix + name + "_proj", x)[..., index * d : (index + 1) * d]
        if not rotated:
            return y
        if prefix + name + "_norm.weight" in w:
            y = rms(y, w[prefix + name + "_norm.weight"], config)
        a, b = y[..., : d // 2], y[..., d // 2 :]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    outputs = []
    for h in range(heads):
        g = h // (heads // kv_heads)
        q, k, v = head("q", h, True), head("k", g, True), head("v", g, False)
        if [layer, g] in config.hybrid["retain"]["kv_groups"]:
            outputs.append(naive_softmax(q, k, v))
        else:
            h_k = g if config.hybrid["feature_map"]["tie_kv_heads"] else h
            outputs.append(naive_head(config.hybrid, w, prefix, h, h_k, q, k, v))
    return project(w, prefix + "o_proj", torch.cat(outputs, -1))


def naive_softmax(q, k, v):
    s = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    return s.masked_fill(~torch.ones_like(s).tril().bool(), -math.inf).softmax(-1) @ v


def window_start(window, i, prompt):
    size, sliding = window["size"], i - window["size"] + 1
    if window["kind"] == "sliding":
        return sliding
    if not window["align_end"]:
        return (i // size - 1) * size
    pad = -prompt % size
    return (i < prompt) * (((i + pad) // size - 1) * size - pad) + (i >= prompt) * sliding


def naive_head(hybrid, w, prefix, h, h_k, q, k, v):
    length, d = q.shape[1:]
    i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
    feature_map = hybrid["feature_map"]
    phi_q = naive_map(feature_map, w, prefix + "feature_map_q", h, q)
    phi_k = naive_map(feature_map, w, prefix + "feature_map_k", h_k, k)
    x = phi_q @ phi_k.transpose(1, 2)
    if hybrid["mode"] == "linear_only":
        x = x * (j <= i)
        return x @ v / (x.sum(-1, keepdim=True) + 1e-12)
    prompt = hybrid.get("prompt", length)  # a test's own key: tokens of the first call
    start, sinks = window_start(hybrid["window"], i, prompt), hybrid["window"]["sinks"]
    near = ((j <= i) & ((j >= start) | (j < sinks))).expand(q.shape[0], -1, -1)
    if hybrid["cache"]["size"]:
        near = near | torch.stack([naive_cache(hybrid, *row) for row in zip(phi_k, k, v)])
    far = (j <= i) & ~near if hybrid["linear"]["span"] == "outside" else (j <= i)
    if hybrid["compat"] == "lolcats" and prompt <= hybrid["window"]["size"]:
        far = torch.where(i < prompt, j <= i, far)
    s = (q @ k.transpose(1, 2) / math.sqrt(d)).masked_fill(~near, -1e300)
    e = (s - s.amax(-1, keepdim=True)).exp() * near
    mixing = hybrid["mixing"]
    if hybrid["mode"] == "window_only":
        return e @ v / e.sum(-1, keepdim=True)
    if mixing["kind"] == "mass":
        z_all = (x * (j <= i)).sum(-1, keepdim=True)
        rho = 1 - (x * far).sum(-1, keepdim=True) / z_all
        return rho * (e @ v) / e.sum(-1, keepdim=True) + (x * far) @ v / z_all
    theta = w[prefix + "window_factors"][h]
    gamma = theta.sigmoid() if mixing["factor"] == "sigmoid" else theta.exp()
    share = 1 - gamma if mixing["affine"] else 1.0
    weights = mixing["window_gain"] * gamma * e + share * x * far
    return weights @ v / weights.sum(-1, keepdim=True)


def naive_cache(hybrid, phi_k, k, v):
    """Which keys (T, T) the sparse cache holds at each row, of one head of one sequence."""
    length, size = k.shape[0], hybrid["cache"]["size"]
    held, folded, at = [], [], hybrid["window"]["sinks"]  # held: [score, key]
    shown = torch.zeros(length, length, dtype=torch.bool)
    for i in range(length):
        while at < window_start(hybrid["window"], i, length):
            total = sum(float(phi_k[at] @ phi_k[m]) for m in folded)
            readout = sum((phi_k[at] @ phi_k[m]) * v[m] for m in folded) / max(total, 1e-12)
            score = float((readout - v[at]).norm() * k[at].norm())
            if len(held) < size:
                held.append([score, at])
            else:
                slot = min(range(size), key=lambda n: held[n][0])
                out = at
                if score > held[slot][0]:
                    out, held[slot] = held[slot][1], [score, at]
                folded.append(out)
            at += 1
        shown[i, [key for _, key in held]] = True
    return shown


def naive_map(options, w, name, h, x):
    u = x @ w[name + ".weight"][h]
    if name + ".bias" in w:
        u = u + w[name + ".bias"][h]
    top, low = u.max(-1, keepdim=True).values, u.min(-1, keepdim=True).values
    plus, minus = {
        "hedgehog": lambda: (u.softmax(-1), (-u).softmax(-1)),
        "exp": lambda: (u.clamp(-20, 20).exp(), (-u).clamp(-20, 20).exp()),
        "exp_shifted": lambda: ((u - top).exp(), (low - u).exp()),
        "relu": lambda: (u.clamp_min(0), (-u).clamp_min(0)),
        "elu": lambda: (torch.where(u > 0, u + 1, u.exp()), torch.where(u < 0, 1 - u, (-u).exp())),
    }[options["kind"]]()
    return (torch.cat((plus, minus), -1) if options["two_sided"] else plus).clamp_min(1e-12)
