"""From an OptimizerSpec to the optimizer that DeepSpeed is given."""

from __future__ import annotations

import torch
from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS

from aiftrain.run.spec import OptimizerSpec
from aiftrain.train.model import Decoder, decayed_and_not
from aiftrain.train.optimizers.gate import Gate, Gated


class AdamW(Gated, torch.optim.AdamW):
    """torch's fused AdamW behind a gate."""


ZERO_SUPPORTED_OPTIMIZERS.append(AdamW)  # else DeepSpeed warns of an untested one: tests/ranks/ tests it


def build(settings: OptimizerSpec, model: Decoder, gate: Gate) -> Gated:
    """The optimizer of `model`, with `gate` before its updates."""
    decayed, free = decayed_and_not(model)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)
    optimizer.gate = gate
    return optimizer
