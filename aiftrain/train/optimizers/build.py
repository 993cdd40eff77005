"""From an OptimizerSpec to the optimizer that DeepSpeed is given."""

from __future__ import annotations

from typing import Any

from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS

from aiftrain.run.spec import OptimizerSpec
from aiftrain.train.expert_groups import with_expert_groups
from aiftrain.train.model import Decoder, kind_of
from aiftrain.train.optimizers.ademamix import AdEMAMix
from aiftrain.train.optimizers.base import AdamW, GatedOptimizer
from aiftrain.train.optimizers.gate import Gate

ZERO_SUPPORTED_OPTIMIZERS.extend([AdamW, AdEMAMix])  # else DeepSpeed warns of untested ones: tests/ranks tests them


def build(settings: OptimizerSpec, model: Decoder, gate: Gate) -> GatedOptimizer:
    """The optimizer of `model`, with `gate` before its updates."""
    groups = list(with_expert_groups(_groups(settings, model)))
    defaults: dict[str, Any] = {"lr": settings.lr, "betas": settings.betas, "eps": settings.eps}
    optimizer: GatedOptimizer
    if settings.ademamix:
        optimizer = AdEMAMix(groups, settings.ademamix, **defaults)
    else:
        optimizer = AdamW(groups, **defaults, fused=True)
    optimizer.gate, optimizer.ema_decay = gate, settings.ema_decay
    return optimizer


def _groups(settings: OptimizerSpec, model: Decoder) -> list[dict[str, Any]]:
    """The model's parameters in the groups of `settings`, each in the model's order."""
    named = list(model.named_parameters())
    return [
        {
            "params": [parameter for name, parameter in named if kind_of(name, parameter) in group.kinds],
            "weight_decay": settings.weight_decay if group.decays else 0.0,
            "states": group.states,
        }
        for group in settings.groups
    ]
