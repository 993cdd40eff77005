"""The orthogonal matrix next to a given one, nearly, by products alone."""

from __future__ import annotations

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315  # Keller Jordan's quintic, steep at 0: kellerjordan.github.io/posts/muon


def orthogonalised(matrix: Tensor, steps: int) -> Tensor:
    """U V^T of `matrix` [m, n] = U S V^T, but for singular values between about 0.7 and 1.2, in its own precision.

    Newton-Schulz iteration on the side that is shorter, as in torch.optim.Muon.
    """
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)  # the iteration converges for a spectral norm of at most 1
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def working_type(device: torch.device) -> torch.dtype:
    """What the products are taken in: bf16 where it is fast, else fp32. fp16 overflows in them."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32
