"""The feature maps phi of the linear branch, one per query head. Needs torch alone.

u = x W + b, f columns; b (feature_map.bias) is a number per head for relu, else one per column.
phi(u) = max(side(u), 1e-12), or with feature_map.two_sided max([side(u), side(-u)], 1e-12), 2f wide:

    hedgehog     side(u) = softmax(u)
    exp          exp(clamp(u, -20, 20))
    exp_shifted  exp(u - max u)
    relu         relu(u)
    elu          1 + elu(u)
"""

import torch
from torch import nn
from torch.nn import functional

MIN_FEATURE = 1e-12
MAX_EXPONENT = 20.0


def side(kind, u):
    if kind == "hedgehog":
        return u.softmax(-1)
    if kind == "exp":
        return u.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()
    if kind == "exp_shifted":
        return (u - u.amax(-1, keepdim=True)).exp()
    if kind == "relu":
        return u.relu()
    return 1 + functional.elu(u)


class FeatureMap(nn.Module):
    """phi, with W (heads, d, f) and b (heads) or (heads, f); `options`: config.hybrid's own."""

    def __init__(self, options, num_heads, head_dim):
        super().__init__()
        self.kind, self.two_sided = options["kind"], options["two_sided"]
        dim = options["dim"]
        self.num_features = 2 * dim if self.two_sided else dim
        self.weight = nn.Parameter(torch.empty(num_heads, head_dim, dim))
        shape = (num_heads,) if self.kind == "relu" else (num_heads, dim)
        bias = nn.Parameter(torch.empty(shape)) if options["bias"] else None
        self.register_parameter("bias", bias)

    def forward(self, x, groups, num_kv_heads):
        """x (B, K', G or 1, m, d) in fp32 belongs to the KV heads `groups`; all: None.

        Returns (B, K', heads per KV head, m, F).
        """
        weight, bias = self.weight.to(x.dtype).unflatten(0, (num_kv_heads, -1)), self.bias
        if bias is not None:
            bias = bias.to(x.dtype).view(num_kv_heads, weight.shape[1], 1, -1)
        if groups is not None:
            weight, bias = weight[groups], None if bias is None else bias[groups]
        u = x @ weight if bias is None else x @ weight + bias
        phi = side(self.kind, u)
        if self.two_sided:
            phi = torch.cat((phi, side(self.kind, -u)), -1)
        return phi.clamp_min(MIN_FEATURE)
