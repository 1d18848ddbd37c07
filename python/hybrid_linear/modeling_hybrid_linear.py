"""A Llama (Mistral, Qwen2, Qwen3) with linear attention plus a small sliding softmax window.

Needs torch and transformers. Tensors beyond the base's own names, kept in fp32, in every layer N (H
query heads, K key-value heads, d head_dim, f feature_map.dim):

    model.layers.N.self_attn.feature_map_q.weight  (H, d, f)
    model.layers.N.self_attn.feature_map_k.weight  (H, d, f), or (K, d, f) with tie_kv_heads
    model.layers.N.self_attn.feature_map_{q,k}.bias  as many as heads times f, for kind relu as heads;
                                                   with feature_map.bias alone
    model.layers.N.self_attn.window_factors        (H)          theta: gamma = sigmoid or exp of it

The operator is attention_hybrid_linear.py, its memory cache_hybrid_linear.py.
"""

import math

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

# All modules by name: transformers copies only those that this file imports itself.
from .attention_hybrid_linear import HybridLinearAttentionCore, at_least_fp32
from .cache_hybrid_linear import HybridLinearCache
from .configuration_hybrid_linear import HybridLinearConfig
from .feature_maps_hybrid_linear import FeatureMap

# The name of the cache in outputs: transformers 5 renamed it, and warns of the old one.
OUTPUT_FIELDS = CausalLMOutputWithPast.__dataclass_fields__
OUTPUT_CACHE = "cache" if "cache" in OUTPUT_FIELDS else "past_key_values"


# ---------------------------------------------------------------- layers


class HybridLinearRMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        wide = at_least_fp32(x)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class HybridLinearMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        sizes, bias = (config.hidden_size, config.intermediate_size), config.mlp_bias
        self.gate_proj = nn.Linear(*sizes, bias=bias)
        self.up_proj = nn.Linear(*sizes, bias=bias)
        self.down_proj = nn.Linear(*reversed(sizes), bias=bias)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class HybridLinearAttention(HybridLinearAttentionCore):
    """The family's projections around the operator: Qwen2 has biases on q, k, v, Qwen3 a norm of
    each head's q and k before RoPE."""

    def __init__(self, config, layer_index):
        super().__init__(config, layer_index)
        heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, heads * dim, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, kv_heads * dim, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, kv_heads * dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(heads * dim, config.hidden_size, bias=config.attention_bias)
        if config.qk_norm:
            self.q_norm = HybridLinearRMSNorm(dim, config.rms_norm_eps)
            self.k_norm = HybridLinearRMSNorm(dim, config.rms_norm_eps)
        else:
            self.q_norm = self.k_norm = None

    def forward(self, hidden, rope, positions, state=None):
        """hidden (B, t, D), rope (cos, sin) (B, t, d), positions (B, t). Returns output, state."""
        q, k, v = (
            project(hidden).unflatten(-1, (-1, self.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (at_least_fp32(x.transpose(1, 2)) for x in (q, k, v))
        q = rotate(q, rope).unflatten(1, (self.num_kv_heads, self.num_groups))
        y, state = self.attend(q, rotate(k, rope), v, positions, state)
        y = y.flatten(1, 2).transpose(1, 2).flatten(2)
        return self.o_proj(y.to(hidden.dtype)), state


class HybridLinearDecoderLayer(nn.Module):
    def __init__(self, config, layer_index):
        super().__init__()
        self.self_attn = HybridLinearAttention(config, layer_index)
        self.mlp = HybridLinearMLP(config)
        self.input_layernorm = HybridLinearRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = HybridLinearRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden, rope, positions, state=None):
        y, state = self.self_attn(self.input_layernorm(hidden), rope, positions, state)
        hidden = hidden + y
        return hidden + self.mlp(self.post_attention_layernorm(hidden)), state


# ---------------------------------------------------------------- RoPE: pairs (i, i + d/2), in fp32


def inverse_frequencies(config, device):
    rope, dim = config.rope_parameters, config.head_dim
    frequency = 1.0 / rope["rope_theta"] ** (torch.arange(0, dim, 2, device=device).float() / dim)
    if rope["rope_type"] == "linear":
        return frequency / rope["factor"]
    if rope["rope_type"] == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        length = rope["original_max_position_embeddings"]
        share = ((length * frequency / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        return (1 - share) * frequency / rope["factor"] + share * frequency
    if rope["rope_type"] == "yarn":
        share = yarn_share(rope, dim, device)
        return share * frequency / rope["factor"] + (1 - share) * frequency
    return frequency


def yarn_share(rope, dim, device):
    """How much of each pair is interpolated ("YaRN", Peng et al. 2023)."""
    length = rope["original_max_position_embeddings"]

    def pair(rotations):
        turns = math.log(length / (rotations * 2 * math.pi))
        return dim * turns / (2 * math.log(rope["rope_theta"]))

    low = max(math.floor(pair(rope.get("beta_fast") or 32)), 0)
    high = min(math.ceil(pair(rope.get("beta_slow") or 1)), dim - 1)
    width = 1e-3 if low == high else high - low
    return ((torch.arange(dim // 2, device=device).float() - low) / width).clamp(0, 1)


def attention_factor(config):
    """What cos and sin are multiplied by."""
    rope = config.rope_parameters
    if rope["rope_type"] != "yarn":
        return 1.0
    return rope.get("attention_factor") or 0.1 * math.log(rope["factor"]) + 1


def rotate(x, rope):
    cos, sin = (table[:, None].to(x.dtype) for table in rope)
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


# ---------------------------------------------------------------- models


class HybridLinearPreTrainedModel(PreTrainedModel):
    config_class = HybridLinearConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = False
    _no_split_modules = ["HybridLinearDecoderLayer"]
    _keep_in_fp32_modules_strict = ["feature_map_q", "feature_map_k", "window_factors"]
    _is_stateful = True  # assisted decoding would have to crop the cache

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False

    def _init_weights(self, module):
        """For models made from a config. nn.init on whole tensors skips what was loaded."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, HybridLinearRMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, FeatureMap):
            nn.init.normal_(module.weight, mean=0.0, std=module.weight.shape[1] ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, HybridLinearAttention):
            theta = math.log(0.1 / (0.9 if module.mixing["factor"] == "sigmoid" else 1.0))
            nn.init.constant_(module.window_factors, theta)


class HybridLinearModel(HybridLinearPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = [HybridLinearDecoderLayer(config, i) for i in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = HybridLinearRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None,
        inputs_embeds=None, use_cache=None, cache=None, output_hidden_states=None,
        output_attentions=None, return_dict=None, **kwargs,
    ):  # fmt: skip
        """attention_mask: (B, tokens so far, or new ones); zeros on the left are padding."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if output_attentions:
            raise ValueError("output_attentions: linear attention has no matrix of weights")
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cache = cache if cache is not None else past_key_values
        if cache is None and self._wants_cache(use_cache, attention_mask):
            cache = HybridLinearCache()
        if cache is not None and not isinstance(cache, HybridLinearCache):
            raise ValueError(f"cache is a {type(cache).__name__}; pass a HybridLinearCache or none")
        positions = real_positions(hidden, attention_mask, cache)
        rope = self._rope(positions if position_ids is None else position_ids, hidden.device)
        all_hidden, new_states = [hidden], []
        old_states = (cache.states if cache is not None else None) or [None] * len(self.layers)
        for layer, state in zip(self.layers, old_states):
            hidden, state = layer(hidden, rope, positions, state)
            all_hidden.append(hidden)
            new_states.append(state)
        hidden = all_hidden[-1] = self.norm(hidden)
        if cache is not None:
            cache.advance(new_states, positions)
        output = BaseModelOutputWithPast(hidden, **{OUTPUT_CACHE: cache})
        if (
            self.config.output_hidden_states
            if output_hidden_states is None
            else output_hidden_states
        ):
            output.hidden_states = tuple(all_hidden)
        return output if return_dict is not False else output.to_tuple()

    def _wants_cache(self, use_cache, attention_mask):
        if use_cache is not None:
            return use_cache
        return self.config.use_cache and not self.training and padded_left(attention_mask)

    def _rope(self, positions, device):
        # Per device, made here: buffers made in __init__ hold garbage after transformers 5 loads.
        tables = self.__dict__.setdefault("_frequencies", {})
        if device not in tables:
            tables[device] = inverse_frequencies(self.config, device)
        angle = positions[..., None].float() * tables[device]
        angle = torch.cat((angle, angle), -1)
        factor = attention_factor(self.config)
        return angle.cos() * factor, angle.sin() * factor


def padded_left(attention_mask):
    """True if no zero follows a one."""
    return attention_mask is None or bool((attention_mask.int().diff(dim=-1) >= 0).all())


def real_positions(hidden, attention_mask, cache):
    """(B, t): each token's number without padding, -1 for padding."""
    batch, length = hidden.shape[:2]
    past = 0 if cache is None else cache.num_columns
    seen = 0 if not past else cache.real_tokens[:, None]
    if attention_mask is None:
        return seen + torch.arange(length, device=hidden.device).expand(batch, length)
    if attention_mask.dim() != 2 or attention_mask.shape[1] not in (length, past + length):
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; must be "
            f"({batch}, {past + length}), a number per token"
        )
    if cache is not None and not padded_left(attention_mask):
        raise ValueError("attention_mask: with a cache, padding must be on the left")
    real = attention_mask[:, -length:].to(hidden.device).long()
    return (seen + real.cumsum(1) - 1).masked_fill(real == 0, -1)


class HybridLinearForCausalLM(HybridLinearPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = HybridLinearModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None,
        inputs_embeds=None, labels=None, use_cache=None, cache=None, output_hidden_states=None,
        output_attentions=None, return_dict=None, logits_to_keep=0, **kwargs,
    ):  # fmt: skip
        outputs = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache,
            cache, output_hidden_states, output_attentions,
        )  # fmt: skip
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])  # 0 keeps all
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        output = CausalLMOutputWithPast(
            loss,
            logits,
            hidden_states=outputs.hidden_states,
            **{OUTPUT_CACHE: getattr(outputs, OUTPUT_CACHE)},
        )
        return output if return_dict is not False else output.to_tuple()

    def prepare_inputs_for_generation(
        self, input_ids, past_key_values=None, attention_mask=None, inputs_embeds=None, cache=None,
        next_sequence_length=None, use_cache=None, **kwargs,
    ):  # fmt: skip
        """What the cache has not seen yet: transformers 4 and 5 cut the inputs differently."""
        cache = cache if cache is not None else past_key_values
        past = 0 if cache is None else cache.get_seq_length()
        inputs = {"cache": cache, "attention_mask": attention_mask, "use_cache": use_cache}
        if inputs_embeds is not None and past == 0:
            return {**inputs, "inputs_embeds": inputs_embeds}
        total = input_ids.shape[1] if attention_mask is None else attention_mask.shape[1]
        if past and attention_mask is None and next_sequence_length:
            total = past + next_sequence_length
        if past and total > past:
            input_ids = input_ids[:, -(total - past) :]
        return {**inputs, "input_ids": input_ids}


# save_pretrained then copies these files and writes auto_map, wherever the classes came from.
HybridLinearConfig.register_for_auto_class()
HybridLinearModel.register_for_auto_class("AutoModel")
HybridLinearForCausalLM.register_for_auto_class("AutoModelForCausalLM")
