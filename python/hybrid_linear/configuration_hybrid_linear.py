"""Configuration of a Llama (Mistral, Qwen2, Qwen3) converted to linear attention plus a small
softmax window.

config.json holds the base's own keys and

    "model_type": "hybrid_linear", "base_model_type": "llama",   # mistral | qwen2 | qwen3
    "architectures": ["HybridLinearForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_hybrid_linear.HybridLinearConfig",
                 "AutoModel": "modeling_hybrid_linear.HybridLinearModel",
                 "AutoModelForCausalLM": "modeling_hybrid_linear.HybridLinearForCausalLM"},
    "hybrid": {"version": 1,
               "mode": "hybrid",                                # hybrid | linear_only | window_only
               "window": {"kind": "sliding", "size": 64, "sinks": 0,   # sliding | terraced
                          "align_end": false},
               "linear": {"span": "outside"},                   # outside | all
               "feature_map": {"kind": "hedgehog", "dim": 64,   # | exp | exp_shifted | relu | elu
                               "two_sided": true, "bias": false, "tie_kv_heads": false},
               "mixing": {"kind": "shared",                     # shared | mass
                          "factor": "sigmoid",                  # sigmoid | exp: gamma from theta
                          "affine": false, "window_gain": 1.0},
               "retain": {"kv_groups": [[5, 2]]},               # [layer, group] that stay softmax
               "cache": {"size": 0},                            # sparse cache, keys per query head
               "compat": "none"}                                # none | lolcats

align_end, tie_kv_heads, mixing.kind, affine, window_gain, retain, cache and compat may be absent:
the values above, and no retained group; so may two_sided (true, but for relu and elu) and bias
(false, but for relu). RoPE may stand in both spellings, `rope_theta` + `rope_scaling` (transformers
4) and `rope_parameters` (5); they must agree. Works with transformers 4.56 and later, and 5. Anything
unknown or impossible is a ValueError that names the key.
"""

import math

from transformers import PretrainedConfig

HYBRID_VERSION = 1
HYBRID_CHOICES = {
    ("mode",): ("hybrid", "linear_only", "window_only"),
    ("window", "kind"): ("sliding", "terraced"),
    ("linear", "span"): ("outside", "all"),
    ("feature_map", "kind"): ("hedgehog", "exp", "exp_shifted", "relu", "elu"),
    ("feature_map", "tie_kv_heads"): (False, True),
    ("feature_map", "two_sided"): (False, True),
    ("feature_map", "bias"): (False, True),
    ("window", "align_end"): (False, True),
    ("compat",): ("none", "lolcats"),
    ("mixing", "kind"): ("shared", "mass"),
    ("mixing", "factor"): ("sigmoid", "exp"),
    ("mixing", "affine"): (False, True),
}
HYBRID_INTEGERS = {
    ("version",): 1,
    ("window", "size"): 1,
    ("window", "sinks"): 0,
    ("feature_map", "dim"): 1,
    ("cache", "size"): 0,
}
# Exports made before these keys existed have none of them.
HYBRID_DEFAULTS = {
    ("feature_map", "tie_kv_heads"): False,
    ("mixing", "kind"): "shared",
    ("mixing", "affine"): False,
    ("mixing", "window_gain"): 1.0,
    ("retain", "kv_groups"): [],
    ("cache", "size"): 0,
    ("window", "align_end"): False,
    ("compat",): "none",
}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
ROPE_REFUSED = ("mscale", "mscale_all_dim", "truncate")


class HybridLinearConfig(PretrainedConfig):
    model_type = "hybrid_linear"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=None,
        head_dim=None,
        hidden_act="silu",
        max_position_embeddings=2048,
        initializer_range=0.02,
        rms_norm_eps=1e-6,
        use_cache=True,
        attention_bias=False,
        mlp_bias=False,
        rope_theta=None,
        rope_scaling=None,
        rope_parameters=None,
        tie_word_embeddings=False,
        base_model_type="llama",
        hybrid=None,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = (
            num_attention_heads if num_key_value_heads is None else num_key_value_heads
        )
        self.head_dim = hidden_size // num_attention_heads if head_dim is None else head_dim
        self.hidden_act = hidden_act
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.rms_norm_eps = rms_norm_eps
        self.use_cache = use_cache
        self.attention_bias = attention_bias
        self.mlp_bias = mlp_bias
        self.base_model_type = base_model_type
        self.rope_parameters = unify_rope(rope_theta, rope_scaling, rope_parameters)
        self.rope_theta = self.rope_parameters["rope_theta"]
        if base_model_type not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ValueError(f"base_model_type is {base_model_type!r}; these classes know {known}")
        self.hybrid = checked_hybrid(
            hybrid or default_hybrid(self.head_dim), num_hidden_layers, self.num_key_value_heads
        )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {num_attention_heads} is no multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        super().__init__(
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )
        self.tie_word_embeddings = tie_word_embeddings

    @property
    def qkv_bias(self):
        """q_proj, k_proj and v_proj have one: always in Qwen2, whose o_proj never has."""
        return self.attention_bias or self.base_model_type == "qwen2"

    @property
    def qk_norm(self):
        """Each head's q and k are normed before RoPE."""
        return self.base_model_type == "qwen3"


def default_hybrid(head_dim):
    return {
        "version": HYBRID_VERSION,
        "mode": "hybrid",
        "window": {"kind": "sliding", "size": 64, "sinks": 0},
        "linear": {"span": "outside"},
        "feature_map": {"kind": "hedgehog", "dim": head_dim},
        "mixing": {"factor": "sigmoid"},
    }


def checked_hybrid(hybrid, num_layers, num_kv_heads):
    """Returns `hybrid` with all keys, after checking each; all violations at once."""
    known = {*HYBRID_CHOICES, *HYBRID_INTEGERS, *HYBRID_DEFAULTS}
    given = {}
    for key, value in hybrid.items():
        if isinstance(value, dict):
            given.update({(key, inner): v for inner, v in value.items()})
        else:
            given[(key,)] = value
    wrong = [f"hybrid.{'.'.join(p)} is unknown to these classes" for p in given if p not in known]
    kind = given.get(("feature_map", "kind"))
    by_kind = {
        ("feature_map", "two_sided"): kind not in ("relu", "elu"),
        ("feature_map", "bias"): kind == "relu",
    }
    given = {**HYBRID_DEFAULTS, **by_kind, **given}
    wrong += [f"hybrid.{'.'.join(p)} is missing" for p in sorted(known) if p not in given]
    for path, choices in HYBRID_CHOICES.items():
        if path in given and given[path] not in choices:
            allowed = ", ".join(map(str, choices))
            wrong.append(f"hybrid.{'.'.join(path)} is {given[path]!r}; must be one of {allowed}")
    for path, lowest in HYBRID_INTEGERS.items():
        if path in given and not (type(given[path]) is int and given[path] >= lowest):
            wrong.append(
                f"hybrid.{'.'.join(path)} is {given[path]!r}; must be an integer >= {lowest}"
            )
    if not wrong:
        wrong = impossible(given, num_layers, num_kv_heads)
    if wrong:
        raise ValueError("config.json: " + "; ".join(wrong))
    full = {}
    for path, value in given.items():
        place = full if len(path) == 1 else full.setdefault(path[0], {})
        place[path[-1]] = value
    return full


def impossible(given, num_layers, num_kv_heads):
    """What is wrong with values that are each allowed."""
    wrong, gain = [], given[("mixing", "window_gain")]
    if given[("version",)] != HYBRID_VERSION:
        wrong.append(
            f"hybrid.version is {given[('version',)]}; these classes read version {HYBRID_VERSION}"
        )
    if type(gain) not in (int, float) or not 0 < gain < math.inf:
        wrong.append(f"hybrid.mixing.window_gain is {gain!r}; must be a number above 0")
    if given[("mixing", "affine")] and given[("mixing", "factor")] != "sigmoid":
        wrong.append("hybrid.mixing.affine needs hybrid.mixing.factor sigmoid")
    if given[("mixing", "kind")] == "mass" and given[("linear", "span")] != "outside":
        wrong.append("hybrid.mixing.kind mass needs hybrid.linear.span outside")
    shared = given[("mode",)] == "hybrid" and given[("mixing", "kind")] == "shared"
    if given[("cache", "size")] and not (shared and given[("linear", "span")] == "outside"):
        wrong.append(
            "hybrid.cache.size needs hybrid.mode hybrid, hybrid.mixing.kind shared and "
            "hybrid.linear.span outside"
        )
    terraced = given[("window", "kind")] == "terraced"
    if given[("window", "align_end")] and not terraced:
        wrong.append("hybrid.window.align_end needs hybrid.window.kind terraced")
    if given[("compat",)] == "lolcats" and not (
        terraced
        and given[("mixing", "kind")] == "shared"
        and given[("linear", "span")] == "outside"
        and given[("cache", "size")] == 0
    ):
        wrong.append(
            "hybrid.compat lolcats needs hybrid.window.kind terraced, hybrid.mixing.kind shared, "
            "hybrid.linear.span outside and hybrid.cache.size 0"
        )
    for pair in given[("retain", "kv_groups")]:
        limits = (num_layers, num_kv_heads)
        if not (
            isinstance(pair, (list, tuple))
            and len(pair) == 2
            and all(type(x) is int and 0 <= x < limit for x, limit in zip(pair, limits))
        ):
            wrong.append(
                f"hybrid.retain.kv_groups holds {pair!r}; must be [layer below {num_layers}, "
                f"group below {num_kv_heads}]"
            )
    return wrong


def unify_rope(theta, scaling, parameters):
    """rope_parameters from either spelling, or both if they agree."""
    kept = {k: v for k, v in (scaling or {}).items() if k != "type"}
    if scaling and "rope_type" not in kept:
        kept["rope_type"] = scaling.get("type", "default")
    old = {"rope_type": "default", **kept}
    new = {"rope_type": "default", **(parameters or {})}
    theta_new = new.pop("rope_theta", None)
    old.pop("rope_theta", None)
    if parameters and scaling and old != new:
        raise ValueError(
            f"config.json: rope_scaling {old} and rope_parameters {new} contradict each other"
        )
    if theta is not None and theta_new is not None and not math.isclose(theta, theta_new):
        raise ValueError(
            f"config.json: rope_theta {theta} and rope_parameters.rope_theta {theta_new} differ"
        )
    rope = new if parameters else old
    if rope["rope_type"] not in ROPE_KEYS:
        raise ValueError(
            f"config.json: RoPE type {rope['rope_type']!r}; must be one of {', '.join(ROPE_KEYS)}"
        )
    refused = [key for key in ROPE_REFUSED if rope.get(key) not in (None, True)]
    if refused:
        raise ValueError(f"config.json: RoPE with {', '.join(refused)} is not supported")
    missing = [key for key in ROPE_KEYS[rope["rope_type"]] if key not in rope]
    if missing:
        raise ValueError(f"config.json: RoPE type {rope['rope_type']} lacks {', '.join(missing)}")
    chosen = theta if theta is not None else theta_new if theta_new is not None else 10000.0
    return {"rope_theta": chosen, **rope}
