"""The norms that a shape asks for."""

from __future__ import annotations

from torch import nn

from aiftrain.run.model import ModelSpec


def hidden_norm(spec: ModelSpec) -> nn.Module:
    """A norm of the hidden state: RMSNorm (arXiv 1910.07467), or LayerNorm (arXiv 1607.06450) with or without bias."""
    if spec.norm == "rms":
        return nn.RMSNorm(spec.hidden_size, eps=spec.norm_eps)
    return nn.LayerNorm(spec.hidden_size, eps=spec.norm_eps, bias=spec.norm_bias)
