"""Linear attention plus a small softmax window: the operator. Needs torch alone.

Query i sees W_i by softmax and O_i by phi(q) . phi(k) (feature_maps_hybrid_linear.py):

    W_i   window.kind sliding: the last w keys; terraced: the keys of its block of w and of the block
          before; the first s ("sinks"); with cache.size, the keys its head has kept
    O_i   linear.span outside: the keys up to i outside W_i; all: all up to i

    c_i = max over W_i of s_ij    e_ij = gain gamma exp(s_ij - c_i)    x_ij = phi_q(q_i) . phi_k(k_j)
    y_i = (sum over W_i of e_ij v_j + lambda sum over O_i of x_ij v_j) / (the same sums without v_j)

gamma = sigmoid or exp of theta; lambda = 1 - gamma with mixing.affine, else 1. mixing.kind mass: the
map decides the window's mass, with Z the sum of x over all keys up to i:

    y_i = (sum over W_i of x_ij / Z) softmax over W_i of s v + sum over O_i of x_ij v_j / Z

For parity with LoLCATs a row may depend on the length of the first call, be it a whole text or a
prompt: with window.align_end the last block ends there, and the window of later rows slides; with
compat lolcats O_i is all keys up to i if that length is at most w.

Mode linear_only: x over all j <= i and no e. Mode window_only: e alone. Retained heads are full
causal softmax in every mode. Attention is computed in fp32, block by block of rows, and what left
the window is summed into a state: memory is O(T), a decoding step costs the same at any position.

Shapes in names: B batch, K key-value heads, G query heads per key-value head, r rows of a block, m
keys beside it, d head_dim, F features.
"""

import math
from collections import namedtuple
from functools import partial

import torch
from torch import nn

from .cache_hybrid_linear import HybridLayerState
from .feature_maps_hybrid_linear import MIN_FEATURE, FeatureMap

BLOCK_ROWS = 128
# A block of rows beside what its windows may reach: k, v of the block; keys, values with the ring of
# the state before them; the first position in each row's window; which keys leave after the block;
# tokens of the first call, or None after it.
Block = namedtuple("Block", "k v positions keys values key_positions start leaves length")


def at_least_fp32(x):
    return x if x.dtype == torch.float64 else x.float()


def softmax_weights(q, key_parts, scale):
    """key_parts: (keys, mask) pairs; scores of all parts beside each other, exp(s - max), 0 where
    masked. q (B, K, G, r, d), keys (B, K, G or 1, m, d), mask broadcastable to (B, K, G, r, m)."""
    scores = [
        ((q @ keys.mT) * scale).masked_fill(~mask, -math.inf) for keys, mask in key_parts
    ]
    scores = torch.cat(scores, -1)
    top = scores.amax(-1, keepdim=True)
    return (scores - top.masked_fill(top == -math.inf, 0.0)).exp()


def weighted_values(weights, value_parts):
    parts = weights.split([values.shape[-2] for values in value_parts], -1)
    return sum(part @ values for part, values in zip(parts, value_parts))


def divided(number, total):
    return number / total.masked_fill(total == 0, 1.0)[..., None]  # 0: a row of padding


class HybridLinearAttentionCore(nn.Module):
    """Maps, factors and the operator; the projections stand in the subclass."""

    def __init__(self, config, layer_index):
        super().__init__()
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        dim, hybrid = config.head_dim, config.hybrid
        self.num_kv_heads, self.num_groups, self.head_dim = kv_heads, heads // kv_heads, dim
        self.mode, self.span = hybrid["mode"], hybrid["linear"]["span"]
        self.terraced = hybrid["window"]["kind"] == "terraced"
        self.align_end, self.has_defect = hybrid["window"]["align_end"], hybrid["compat"] == "lolcats"
        self.window, self.sinks = hybrid["window"]["size"], hybrid["window"]["sinks"]
        self.mixing, self.cache_size = hybrid["mixing"], hybrid["cache"]["size"]
        self.tied = hybrid["feature_map"]["tie_kv_heads"]
        self.feature_map_q = FeatureMap(hybrid["feature_map"], heads, dim)
        self.feature_map_k = FeatureMap(hybrid["feature_map"], kv_heads if self.tied else heads, dim)
        self.window_factors = nn.Parameter(torch.empty(heads))
        kept = {group for layer, group in hybrid["retain"]["kv_groups"] if layer == layer_index}
        self.retained_groups = sorted(kept)
        self.linear_groups = [g for g in range(kv_heads) if g not in kept]

    def attend(self, q, k, v, positions, state):
        """q (B, K, G, t, d), k, v (B, K, t, d) after RoPE, positions (B, t). Returns y and state."""
        if not self.retained_groups:
            return self.attend_linear_groups(q, k, v, positions, state, None)
        kept, others = self.retained_groups, self.linear_groups
        y = torch.empty_like(q)
        y[:, kept], state = self.attend_retained(q[:, kept], k[:, kept], v[:, kept], positions, state)
        if others:
            y[:, others], state = self.attend_linear_groups(
                q[:, others], k[:, others], v[:, others], positions, state, others
            )
        return y, state

    def attend_retained(self, q, k, v, positions, state):
        """Full causal softmax, with a cache that grows."""
        state = state or HybridLayerState()
        if "retained_k" not in state.names:
            state.start_retained(k, v)
        state.append_retained(k, v, positions)
        keys, values = state.retained_k[:, :, None], state.retained_v[:, :, None]
        seen, outputs = state.retained_positions[:, None], []
        for rows, at in zip(q.split(BLOCK_ROWS, -2), positions.split(BLOCK_ROWS, -1)):
            mask = ((seen >= 0) & (seen <= at[..., None]))[:, None, None]
            weights = softmax_weights(rows, [(keys, mask)], self.head_dim**-0.5)
            outputs.append(divided(weights @ values, weights.sum(-1)))
        return torch.cat(outputs, -2), state

    def attend_linear_groups(self, q, k, v, positions, state, groups):
        state, length = state or HybridLayerState(), None
        if "k" not in state.names:
            sinks = 0 if self.mode == "linear_only" else self.sinks
            num_maps = 1 if self.tied and not self.cache_size else self.num_groups
            state.start_linear(k, v, num_maps, self.feature_map_q.num_features, sinks)
            if self.cache_size:
                state.start_cache(k, self.num_groups, self.cache_size)
            length = (positions >= 0).sum(1, keepdim=True)
        attend = self.linear_block if self.mode == "linear_only" else partial(self.hybrid_block, length)
        rows = 1 if self.cache_size else BLOCK_ROWS  # the cache moves with every key
        parts = zip(*(x.split(rows, -2) for x in (q, k, v)), positions.split(rows, -1))
        return torch.cat([attend(*part, state, groups) for part in parts], -2), state

    def phi_q(self, q, groups):
        return self.feature_map_q(q, groups, self.num_kv_heads)

    def phi_k(self, k, groups):
        """k (B, K, m, d), or per query head (B, K, G, m, d)."""
        return self.feature_map_k(k[:, :, None] if k.dim() == 4 else k, groups, self.num_kv_heads)

    def linear_block(self, q, k, v, positions, state, groups):
        """One block of mode linear_only: all keys up to the row's own."""
        phi_q, phi_k = self.phi_q(q, groups), self.phi_k(k, groups)
        mask_Brm = (positions[:, None, :] <= positions[:, :, None]) & (positions[:, None, :] >= 0)
        number, total = linear_sums(phi_q, phi_k, v, mask_Brm, state)
        state.fold(phi_k, v[:, :, None], positions >= 0)
        return number / (total + MIN_FEATURE)[..., None]

    def window_start(self, positions, length):
        """The first position in the window of the query at `positions`; length as in Block."""
        if not self.terraced or (self.align_end and length is None):
            return positions - (self.window - 1)
        before = -length % self.window if self.align_end else 0
        block = (positions + before).div(self.window, rounding_mode="floor")
        return (block - 1) * self.window - before

    def hybrid_block(self, length, q, k, v, positions, state, groups):
        """One block: q (B, K, G, r, d), k, v (B, K, r, d), positions (B, r). Moves the state on."""
        keys, values = torch.cat((state.k, k), 2), torch.cat((state.v, v), 2)
        key_positions = torch.cat((state.positions, positions), 1)
        after = self.window_start(positions.amax(1, keepdim=True) + 1, length)
        leaves = key_positions < after  # no row after this block has them in its window
        start = self.window_start(positions, length)
        block = Block(k, v, positions, keys, values, key_positions, start, leaves, length)
        if self.sinks:
            state.pin_sinks(k, v, positions)
        parts, value_parts = self.window_parts(block, state)
        weights = softmax_weights(q, parts, self.head_dim**-0.5)
        number, total = weighted_values(weights, value_parts), weights.sum(-1)
        if self.mode == "window_only":
            y = divided(number, total)
        else:
            phi_q = self.phi_q(q, groups)
            sums = self.all_sums if self.span == "all" else self.outside_sums
            linear = sums(phi_q, block, state, groups)
            if self.mixing["kind"] == "mass":
                inside = self.inside_mass(phi_q, parts, groups)
                y = divided(divided(number, total) * inside[..., None] + linear[0], inside + linear[1])
            else:
                y = self.mix_shared(number, total, *linear, groups)
        state.keep_window(
            keys, values, key_positions.masked_fill(leaves, -1), self.window * (1 + self.terraced) - 1
        )
        return y

    def window_parts(self, block, state):
        """(keys, mask) and values of W_i: window, sinks, sparse cache."""
        at, key_at = block.positions[:, :, None], block.key_positions[:, None, :]
        mask_Brm = (key_at >= block.start[:, :, None]) & (key_at <= at) & (key_at >= self.sinks)
        parts = [(block.keys[:, :, None], mask_Brm[:, None, None])]
        value_parts = [block.values[:, :, None]]
        if self.sinks:
            places = torch.arange(self.sinks, device=at.device)
            mask_Brm = state.sink_seen[:, None, :] & (places <= at)
            parts.append((state.sink_k[:, :, None], mask_Brm[:, None, None]))
            value_parts.append(state.sink_v[:, :, None])
        if self.cache_size:
            parts.append((state.cache_k, (state.cache_scores > -math.inf)[..., None, :]))
            value_parts.append(state.cache_v)
        return parts, value_parts

    def all_sums(self, phi_q, block, state, groups):
        """sum of x v and sum of x over all keys up to the row; the block's keys are then in S, z."""
        phi_k, at = self.phi_k(block.k, groups), block.positions
        mask_Brm = (at[:, None, :] <= at[:, :, None]) & (at[:, None, :] >= 0)
        sums = linear_sums(phi_q, phi_k, block.v, mask_Brm, state)
        state.fold(phi_k, block.v[:, :, None], at >= 0)
        return sums

    def outside_sums(self, phi_q, block, state, groups):
        """The same over O_i; the keys that leave are then in S and z, or in the sparse cache."""
        seen = block.leaves & (block.key_positions >= self.sinks)
        # The last w - 1 columns (terraced: w) never leave.
        keeps_w = self.terraced and not self.align_end
        columns = max(0, block.keys.shape[2] - self.window + (0 if keeps_w else 1))
        if self.terraced and not bool(seen.any()):
            columns = 0  # w - 1 of w steps: no map over the ring
        seen, old_at = seen[:, :columns], block.key_positions[:, None, :columns]
        old_k, old_v = block.keys[:, :, :columns], block.values[:, :, :columns]
        phi_k = self.phi_k(old_k, groups)
        mask_Brm = seen[:, None, :] & (old_at < block.start[:, :, None])
        sums = linear_sums(phi_q, phi_k, old_v, mask_Brm, state)
        if self.has_defect and block.length is not None:
            sums = tuple(map(torch.add, sums, self.defect_sums(phi_q, block, groups)))
        if not self.cache_size:
            state.fold(phi_k, old_v[:, :, None], seen)
            return sums
        for m in range(columns):
            phi_m = phi_k[:, :, :, m].expand(-1, -1, self.num_groups, -1)
            out_k, out_v, folds = state.offer(old_k[:, :, m], old_v[:, :, m], phi_m, seen[:, m])
            phi_out = self.phi_k(out_k[:, :, :, None], groups)
            state.fold(phi_out, out_v[:, :, :, None], folds[..., None])
        return sums

    def defect_sums(self, phi_q, block, groups):
        """compat lolcats: the keys up to each row once more, in texts of w tokens or fewer."""
        at, key_at = block.positions[:, :, None], block.key_positions[:, None, :]
        mask_Brm = (key_at >= 0) & (key_at <= at) & (block.length <= self.window)[..., None]
        return masked_sums(phi_q, self.phi_k(block.keys, groups), block.values, mask_Brm)

    def gamma(self, dtype, groups):
        theta = self.window_factors.to(dtype)
        gamma = theta.sigmoid() if self.mixing["factor"] == "sigmoid" else theta.exp()
        gamma = gamma.view(self.num_kv_heads, self.num_groups, 1)
        return gamma if groups is None else gamma[groups]

    def mix_shared(self, number, total, linear_number, linear_total, groups):
        gamma = self.gamma(total.dtype, groups)  # (K, G, 1)
        share = 1 - gamma if self.mixing["affine"] else torch.ones_like(gamma)
        gamma = gamma * self.mixing["window_gain"]
        number = gamma[..., None] * number + share[..., None] * linear_number
        return divided(number, gamma * total + share * linear_total)

    def inside_mass(self, phi_q, parts, groups):
        """sum of x over W_i."""
        masses = (
            (phi_q @ self.phi_k(keys[:, :, 0], groups).mT) * mask for keys, mask in parts
        )
        return sum(mass.sum(-1) for mass in masses)


def linear_sums(phi_q, phi_k, v, mask_Brm, state):
    """sum of x v and sum of x over the state and over the keys beside it that the mask shows."""
    number, total = masked_sums(phi_q, phi_k, v, mask_Brm)
    return number + phi_q @ state.S, total + (phi_q @ state.z[..., None])[..., 0]


def masked_sums(phi_q, phi_k, v, mask_Brm):
    x = (phi_q @ phi_k.mT) * mask_Brm[:, None, None]
    return x @ v[:, :, None], x.sum(-1)
