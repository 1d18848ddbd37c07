"""The feature maps phi of the linear branch, one per query head. Needs torch alone.

u = x W, and by kind, f columns of W (features: 2f for hedgehog, exp and exp_shifted, else f):

    hedgehog     max([softmax(u), softmax(-u)], 1e-12)
    exp          [exp(clamp(u, -20, 20)), exp(clamp(-u, -20, 20))]
    exp_shifted  max([exp(u - max u), exp(min u - u)], 1e-12)
    relu         max(relu(u + b), 1e-12), b a number per head
    elu          max(1 + elu(u), 1e-12)
"""

import torch
from torch import nn
from torch.nn import functional

MIN_FEATURE = 1e-12
MAX_EXPONENT = 20.0
TWO_SIDED = ("hedgehog", "exp", "exp_shifted")


def num_features(kind, dim):
    return 2 * dim if kind in TWO_SIDED else dim


def features(kind, u, bias=None):
    if kind == "hedgehog":
        return torch.cat((u.softmax(-1), (-u).softmax(-1)), -1).clamp_min(MIN_FEATURE)
    if kind == "exp":
        u = u.clamp(-MAX_EXPONENT, MAX_EXPONENT)
        return torch.cat((u.exp(), (-u).exp()), -1)
    if kind == "exp_shifted":
        largest, smallest = u.amax(-1, keepdim=True), u.amin(-1, keepdim=True)
        return torch.cat(((u - largest).exp(), (smallest - u).exp()), -1).clamp_min(MIN_FEATURE)
    if kind == "relu":
        return (u + bias).relu().clamp_min(MIN_FEATURE)
    return (1 + functional.elu(u)).clamp_min(MIN_FEATURE)


class FeatureMap(nn.Module):
    """phi, with W (heads, d, f) and, for relu, b (heads)."""

    def __init__(self, kind, num_heads, head_dim, dim):
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.empty(num_heads, head_dim, dim))
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(num_heads)) if kind == "relu" else None
        )

    def forward(self, x, groups, num_kv_heads):
        """x (B, K', G or 1, m, d) in fp32 belongs to the KV heads `groups`; all: None.

        Returns (B, K', heads per KV head, m, F).
        """
        weight, bias = self.weight.to(x.dtype).unflatten(0, (num_kv_heads, -1)), self.bias
        if bias is not None:
            bias = bias.to(x.dtype).view(num_kv_heads, -1, 1, 1)
        if groups is not None:
            weight, bias = weight[groups], None if bias is None else bias[groups]
        return features(self.kind, x @ weight, bias)
