"""What a hybrid remembers of the text behind it: constant in size but for retained heads.

Shapes: B batch, K key-value heads, G query heads per key-value head, m keys, d head_dim, F features.
Positions count real tokens; padding has -1 and is never seen.
"""

import math

import torch
from transformers.cache_utils import Cache


class HybridLayerState:
    """What one layer remembers: of its linear heads the window, sinks, sums and sparse cache, of
    its retained heads all keys and values. `names` lists the tensors that are there."""

    linear_names = ("k", "v", "positions", "sink_k", "sink_v", "sink_seen", "S", "z")
    cache_names = ("cache_k", "cache_v", "cache_scores")
    retained_names = ("retained_k", "retained_v", "retained_positions")

    def __init__(self):
        self.names = ()

    def start_linear(self, k, v, num_maps, num_features, sinks):
        """k, v (B, K, t, d): shapes and types alone are read. num_maps: key maps per KV head."""
        batch, heads, _, dim = k.shape
        self.names += self.linear_names
        self.k, self.v = k[:, :, :0], v[:, :, :0]  # (B, K, m, d)
        self.positions = k.new_zeros(batch, 0, dtype=torch.long)
        self.sink_k, self.sink_v = (k.new_zeros(batch, heads, sinks, dim) for _ in "kv")
        self.sink_seen = k.new_zeros(batch, sinks, dtype=torch.bool)
        self.S = k.new_zeros(batch, heads, num_maps, num_features, dim)
        self.z = k.new_zeros(batch, heads, num_maps, num_features)

    def start_cache(self, k, num_groups, size):
        batch, heads, _, dim = k.shape
        self.names += self.cache_names
        self.cache_k, self.cache_v = (
            k.new_zeros(batch, heads, num_groups, size, dim) for _ in "kv"
        )
        self.cache_scores = k.new_full((batch, heads, num_groups, size), -math.inf)  # -inf: free

    def start_retained(self, k, v):
        self.names += self.retained_names
        self.retained_k, self.retained_v = k[:, :, :0], v[:, :, :0]
        self.retained_positions = k.new_zeros(k.shape[0], 0, dtype=torch.long)

    def pin_sinks(self, k, v, positions):
        """Copies keys 0 ... s-1 to their places; rows may be shifted by padding."""
        places = torch.arange(self.sink_seen.shape[1], device=k.device)
        chosen_Bsr = positions[:, None, :] == places[None, :, None]
        pick = chosen_Bsr[:, None].to(k.dtype)
        self.sink_k = self.sink_k + pick @ k
        self.sink_v = self.sink_v + pick @ v
        self.sink_seen = self.sink_seen | chosen_Bsr.any(-1)

    def fold(self, phi_k_BKGmF, v_BKGmd, seen):
        """Adds keys to S and z; seen (B, m) or broadcastable to (B, K, G, m)."""
        seen = seen[:, None, None] if seen.dim() == 2 else seen
        phi = phi_k_BKGmF * seen[..., None]
        self.S = self.S + phi.mT @ v_BKGmd
        self.z = self.z + phi.sum(-2)

    def keep_window(self, keys, values, positions, count):
        """The last `count` columns stay; copies, so that the rest can be freed."""
        first = max(0, keys.shape[2] - count)
        self.k, self.v = keys[:, :, first:].contiguous(), values[:, :, first:].contiguous()
        self.positions = positions[:, first:].contiguous()

    def append_retained(self, k, v, positions):
        self.retained_k = torch.cat((self.retained_k, k), 2)
        self.retained_v = torch.cat((self.retained_v, v), 2)
        self.retained_positions = torch.cat((self.retained_positions, positions), 1)

    def offer(self, k, v, phi_k, seen_B):
        """One key that left the window, per sequence where seen_B: k, v (B, K, d), phi_k (B, K, G,
        F). Each query head keeps it in its cache if its score is above the lowest there. The score is
        ||phi_k S / phi_k z - v|| ||k||: how badly the sums recall it (LoLA), times the key's norm.

        Returns what is to be folded, key and value (B, K, G, d), and where there is any (B, K, G).
        """
        total = (phi_k * self.z).sum(-1, keepdim=True).clamp_min(1e-12)
        readout = (phi_k[..., None, :] @ self.S)[..., 0, :] / total
        score = (readout - v[:, :, None]).norm(dim=-1) * k.norm(dim=-1)[:, :, None]  # (B, K, G)
        lowest = self.cache_scores.amin(-1)
        slot = self.cache_scores.eq(lowest[..., None]).int().argmax(-1, keepdim=True)  # the first
        takes = (score > lowest) & seen_B[:, None, None]
        at = slot[..., None].expand(*slot.shape, k.shape[-1])
        new_k, new_v = (x[:, :, None].expand_as(readout) for x in (k, v))
        old_k, old_v = self.cache_k.gather(3, at)[..., 0, :], self.cache_v.gather(3, at)[..., 0, :]
        put_k, put_v = (
            torch.where(takes[..., None], new, old)[..., None, :]
            for new, old in ((new_k, old_k), (new_v, old_v))
        )
        self.cache_k = self.cache_k.scatter(3, at, put_k)
        self.cache_v = self.cache_v.scatter(3, at, put_v)
        self.cache_scores = self.cache_scores.scatter(
            3, slot, torch.where(takes, score, lowest)[..., None]
        )
        out_k = torch.where(takes[..., None], old_k, new_k)
        out_v = torch.where(takes[..., None], old_v, new_v)
        return out_k, out_v, seen_B[:, None, None] & ~(takes & (lowest == -math.inf))

    def select(self, rows):
        for name in self.names:
            tensor = getattr(self, name)
            setattr(self, name, tensor.index_select(0, rows.to(tensor.device)))

    def num_bytes(self, retained):
        names = [n for n in self.names if retained or n not in self.retained_names]
        return sum(t.numel() * t.element_size() for t in (getattr(self, n) for n in names))


class HybridLinearCache(Cache):
    """The layers' states: constant in size once the window is full, but for the keys and values of
    retained heads. It cannot go back (crop)."""

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

    def num_bytes(self, retained=True):
        """Bytes of all tensors kept; without those of retained heads, a constant."""
        return sum(state.num_bytes(retained) for state in self.states)

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
