"""A Llama with linear attention plus a small sliding softmax window. Needs torch and transformers.

Tensors beyond the base's own names, kept in fp32, in every layer N (H query heads, d head_dim, f
feature_map.dim):

    model.layers.N.self_attn.feature_map_q.weight  (H, d, f)
    model.layers.N.self_attn.feature_map_k.weight  (H, d, f)    per query head, also for keys
    model.layers.N.self_attn.window_factors        (H)          theta: gamma = sigmoid or exp of it

Query i sees W_i, the last w keys and the first s ("sinks"), by softmax, and O_i, the keys outside
W_i (linear.span outside) or all up to i (all), by phi(x) = max([softmax(xW), softmax(-xW)], 1e-12):

    c_i = max over W_i of s_ij    e_ij = gamma exp(s_ij - c_i)    x_ij = phi_q(q_i) . phi_k(k_j)
    y_i = (sum over W_i of e_ij v_j + sum over O_i of x_ij v_j) / (the same sums without v_j)

In mode linear_only x runs over all j <= i and there is no e. Attention is computed in fp32, block
by block of rows, and what left the window is summed into a state: memory is O(T), a decoding step
costs the same at any position. A layer's cache holds w-1 keys and values, s sinks, S (H, 2f, d) and
z (H, 2f), whatever the length.

Shapes in names: B batch, K key-value heads, G query heads per key-value head, r rows of a block, m
keys beside it, d head_dim, F = 2f.
"""

import math

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_hybrid_linear import HybridLinearConfig

BLOCK_ROWS = 128
MIN_FEATURE = 1e-12
# The name of the cache in outputs: transformers 5 renamed it, and warns of the old one.
OUTPUT_FIELDS = CausalLMOutputWithPast.__dataclass_fields__
OUTPUT_CACHE = "cache" if "cache" in OUTPUT_FIELDS else "past_key_values"


def at_least_fp32(x):
    return x if x.dtype == torch.float64 else x.float()


# ---------------------------------------------------------------- cache


class HybridLayerState:
    """What one layer remembers. Positions count real tokens; padding has -1 and is never seen."""

    names = ("k", "v", "positions", "sink_k", "sink_v", "sink_seen", "S", "z")

    def __init__(self, k, v, num_groups, num_features, sinks):
        batch, heads, _, dim = k.shape
        self.k, self.v = k[:, :, :0], v[:, :, :0]  # (B, K, <w, d)
        self.positions = k.new_zeros(batch, 0, dtype=torch.long)
        self.sink_k, self.sink_v = (k.new_zeros(batch, heads, sinks, dim) for _ in "kv")
        self.sink_seen = k.new_zeros(batch, sinks, dtype=torch.bool)
        self.S = k.new_zeros(batch, heads, num_groups, num_features, dim)
        self.z = k.new_zeros(batch, heads, num_groups, num_features)

    def pin_sinks(self, k, v, positions):
        """Copies keys 0 ... s-1 to their places; rows may be shifted by padding."""
        places = torch.arange(self.sink_seen.shape[1], device=k.device)
        chosen_Bsr = positions[:, None, :] == places[None, :, None]
        pick = chosen_Bsr[:, None].to(k.dtype)
        self.sink_k = self.sink_k + pick @ k
        self.sink_v = self.sink_v + pick @ v
        self.sink_seen = self.sink_seen | chosen_Bsr.any(-1)

    def fold(self, phi_k_BKGmF, v, seen_Bm):
        """Adds keys to S and z."""
        phi = phi_k_BKGmF * seen_Bm[:, None, None, :, None]
        self.S = self.S + phi.mT @ v[:, :, None]
        self.z = self.z + phi.sum(-2)

    def select(self, rows):
        for name in self.names:
            tensor = getattr(self, name)
            setattr(self, name, tensor.index_select(0, rows.to(tensor.device)))


class HybridLinearCache(Cache):
    """The layers' states: constant in size once the window is full. It cannot go back (crop)."""

    is_compileable = False

    def __init__(self):
        super().__init__(layers=[])
        self.states = []  # HybridLayerState, or None before the layer's first token
        self.num_columns = 0  # tokens that came in, padding included
        self.real_tokens = None  # (B) without padding

    def advance(self, states, positions):
        """Takes the layers' states after the tokens at `positions` (B, t)."""
        before = 0 if self.real_tokens is None else self.real_tokens
        self.states, self.real_tokens = states, before + (positions >= 0).sum(1)
        self.num_columns += positions.shape[1]

    def get_seq_length(self, layer_idx=0):
        return self.num_columns

    def get_max_cache_shape(self, layer_idx=0):
        return -1

    @property
    def is_initialized(self):
        return self.num_columns > 0

    def __len__(self):
        return len(self.states)

    def num_bytes(self):
        """Bytes of all tensors kept."""
        tensors = [getattr(state, name) for state in self.states for name in state.names]
        return sum(t.numel() * t.element_size() for t in tensors)

    def reset(self):
        self.states, self.num_columns, self.real_tokens = [], 0, None

    def reorder_cache(self, beam_idx):
        for state in self.states:
            state.select(beam_idx)
        if self.real_tokens is not None:
            rows = beam_idx.to(self.real_tokens.device)
            self.real_tokens = self.real_tokens.index_select(0, rows)

    def batch_select_indices(self, indices):
        self.reorder_cache(indices)

    def crop(self, *_, **__):
        raise NotImplementedError(
            "HybridLinearCache cannot be cropped: its state is a sum. Start from an empty cache."
        )


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


class HedgehogFeatureMap(nn.Module):
    """phi(x) = max([softmax(xW), softmax(-xW)], 1e-12), one W per query head."""

    def __init__(self, num_heads, head_dim, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads, head_dim, dim))

    def forward(self, x, num_kv_heads):
        """x: (B, K, G or 1, m, d) in fp32. Returns (B, K, G, m, F)."""
        weight = self.weight.to(x.dtype).unflatten(0, (num_kv_heads, -1))
        u = x @ weight
        return torch.cat((u.softmax(-1), (-u).softmax(-1)), -1).clamp_min(MIN_FEATURE)


class HybridLinearAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        dim, hybrid, bias = config.head_dim, config.hybrid, config.attention_bias
        self.num_kv_heads, self.num_groups, self.head_dim = kv_heads, heads // kv_heads, dim
        self.linear_only = hybrid["mode"] == "linear_only"
        self.window, self.sinks = hybrid["window"]["size"], hybrid["window"]["sinks"]
        self.span, self.factor = hybrid["linear"]["span"], hybrid["mixing"]["factor"]
        self.num_features = 2 * hybrid["feature_map"]["dim"]
        self.q_proj = nn.Linear(config.hidden_size, heads * dim, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, kv_heads * dim, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, kv_heads * dim, bias=bias)
        self.o_proj = nn.Linear(heads * dim, config.hidden_size, bias=bias)
        self.feature_map_q = HedgehogFeatureMap(heads, dim, hybrid["feature_map"]["dim"])
        self.feature_map_k = HedgehogFeatureMap(heads, dim, hybrid["feature_map"]["dim"])
        self.window_factors = nn.Parameter(torch.empty(heads))

    def forward(self, hidden, rope, positions, state=None):
        """hidden (B, t, D), rope (cos, sin) (B, t, d), positions (B, t). Returns output, state."""
        q, k, v = (
            project(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k, v = rotate(at_least_fp32(q), rope), rotate(at_least_fp32(k), rope), at_least_fp32(v)
        q = q.unflatten(1, (self.num_kv_heads, self.num_groups))
        if state is None:
            sinks = 0 if self.linear_only else self.sinks
            state = HybridLayerState(k, v, self.num_groups, self.num_features, sinks)
        attend = self.attend_linear if self.linear_only else self.attend_hybrid
        parts = zip(*(x.split(BLOCK_ROWS, -2) for x in (q, k, v)), positions.split(BLOCK_ROWS, -1))
        y = torch.cat([attend(*part, state) for part in parts], -2)
        y = y.flatten(1, 2).transpose(1, 2).flatten(2)
        return self.o_proj(y.to(hidden.dtype)), state

    def attend_hybrid(self, q, k, v, positions, state):
        """One block: q (B, K, G, r, d), k, v (B, K, r, d), positions (B, r). Moves the state on."""
        keys, values = torch.cat((state.k, k), 2), torch.cat((state.v, v), 2)
        key_positions = torch.cat((state.positions, positions), 1)
        # The first `leaving` keys are in no window of a row after this block.
        leaving = max(0, keys.shape[2] - (self.window - 1))
        number, total = self.window_sums(q, keys, values, positions, key_positions, k, v, state)

        phi_q = self.feature_map_q(q, self.num_kv_heads)
        if self.span == "all":
            old_k, old_v, old_positions, newest, first = k, v, positions, positions, 0
        else:  # a row sees those that have left its own window
            old_k, old_v = keys[:, :, :leaving], values[:, :, :leaving]
            old_positions, newest = key_positions[:, :leaving], positions - self.window
            first = self.sinks
        phi_k = self.feature_map_k(old_k[:, :, None], self.num_kv_heads)
        seen = old_positions >= first
        mask_Brm = seen[:, None, :] & (old_positions[:, None, :] <= newest[:, :, None])
        linear_number, linear_total = linear_sums(phi_q, phi_k, old_v, mask_Brm, state)
        state.fold(phi_k, old_v, seen)

        state.k, state.v = keys[:, :, leaving:].contiguous(), values[:, :, leaving:].contiguous()
        state.positions = key_positions[:, leaving:].contiguous()
        number, total = number + linear_number, total + linear_total
        return number / total.masked_fill(total == 0, 1.0)[..., None]  # 0: a row of padding

    def window_sums(self, q, keys, values, positions, key_positions, k, v, state):
        """sum of e v (B, K, G, r, d) and sum of e (B, K, G, r) over the window and the sinks."""
        mask_Brm = (
            (key_positions[:, None, :] > positions[:, :, None] - self.window)
            & (key_positions[:, None, :] <= positions[:, :, None])
            & (key_positions[:, None, :] >= self.sinks)
        )
        if self.sinks:
            state.pin_sinks(k, v, positions)
            places = torch.arange(self.sinks, device=q.device)
            sink_mask = state.sink_seen[:, None, :] & (places <= positions[:, :, None])
            keys, values = torch.cat((state.sink_k, keys), 2), torch.cat((state.sink_v, values), 2)
            mask_Brm = torch.cat((sink_mask, mask_Brm), 2)
        scores = (q @ keys[:, :, None].mT) * self.head_dim**-0.5
        scores = scores.masked_fill(~mask_Brm[:, None, None], -math.inf)
        top = scores.amax(-1, keepdim=True)
        weights = (scores - top.masked_fill(top == -math.inf, 0.0)).exp() * self.gamma(scores.dtype)
        return weights @ values[:, :, None], weights.sum(-1)

    def gamma(self, dtype):
        theta = self.window_factors.to(dtype)
        gamma = theta.sigmoid() if self.factor == "sigmoid" else theta.exp()
        return gamma.view(self.num_kv_heads, self.num_groups, 1, 1)

    def attend_linear(self, q, k, v, positions, state):
        """One block of mode linear_only: all keys up to the row's own."""
        phi_q = self.feature_map_q(q, self.num_kv_heads)
        phi_k = self.feature_map_k(k[:, :, None], self.num_kv_heads)
        mask_Brm = (positions[:, None, :] <= positions[:, :, None]) & (positions[:, None, :] >= 0)
        number, total = linear_sums(phi_q, phi_k, v, mask_Brm, state)
        state.fold(phi_k, v, positions >= 0)
        return number / (total + MIN_FEATURE)[..., None]


def linear_sums(phi_q, phi_k, v, mask_Brm, state):
    """sum of x v and sum of x over the state and over the keys beside it that the mask shows."""
    x = (phi_q @ phi_k.mT) * mask_Brm[:, None, None]
    number = x @ v[:, :, None] + phi_q @ state.S
    return number, x.sum(-1) + (phi_q @ state.z[..., None])[..., 0]


class HybridLinearDecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = HybridLinearAttention(config)
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
    return frequency


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
        elif isinstance(module, HedgehogFeatureMap):
            nn.init.normal_(module.weight, mean=0.0, std=module.weight.shape[1] ** -0.5)
        elif isinstance(module, HybridLinearAttention):
            theta = math.log(0.1 / 0.9) if module.factor == "sigmoid" else math.log(0.1)
            nn.init.constant_(module.window_factors, theta)


class HybridLinearModel(HybridLinearPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = [HybridLinearDecoderLayer(config) for _ in range(config.num_hidden_layers)]
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
        return angle.cos(), angle.sin()


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
