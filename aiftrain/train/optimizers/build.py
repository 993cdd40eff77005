"""From an OptimizerSpec to the optimizer that DeepSpeed is given; and its states, once DeepSpeed has its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS

from aiftrain.run.model import ModelSpec
from aiftrain.run.optimizer import MOMENTUM, OptimizerSpec
from aiftrain.train.expert_groups import with_expert_groups
from aiftrain.train.fragments import Slot, holdings
from aiftrain.train.model import Decoder, full_shapes, kind_of
from aiftrain.train.optimizers.ademamix import AdEMAMix
from aiftrain.train.optimizers.base import AdamW, GatedOptimizer
from aiftrain.train.optimizers.exchange import Piece
from aiftrain.train.optimizers.gate import Gate
from aiftrain.train.optimizers.matrices import matrices_of
from aiftrain.train.optimizers.muon import Muon
from aiftrain.train.swapping import in_memory

ZERO_SUPPORTED_OPTIMIZERS.extend([AdamW, AdEMAMix, Muon])  # else DeepSpeed warns of untested ones


def build(settings: OptimizerSpec, model: Decoder, gate: Gate) -> GatedOptimizer:
    """The optimizer of `model`, with `gate` before its updates."""
    groups = list(with_expert_groups(_groups(settings, model)))
    defaults: dict[str, Any] = {"lr": settings.lr, "betas": settings.betas, "eps": settings.eps}
    optimizer: GatedOptimizer
    if settings.ademamix:
        optimizer = AdEMAMix(groups, settings.ademamix, **defaults)
    elif settings.muon:
        optimizer = Muon(groups, settings.muon, **defaults, fused=True)
    else:
        optimizer = AdamW(groups, **defaults, fused=True)
    optimizer.gate, optimizer.ema_decay = gate, settings.ema_decay
    return optimizer


def prepare(optimizer: GatedOptimizer, engine: Any, model: ModelSpec) -> None:
    """Make the optimizer's states for the tensors that it updates, and tell it what matrices lie in them."""
    shapes = dict(full_shapes(engine.module))
    for held in holdings(engine):
        group = optimizer.param_groups[held.group]
        with in_memory(engine, held.master, changes=True):
            optimizer.make_state(held.master, group)
        if isinstance(optimizer, Muon) and MOMENTUM in group["states"]:
            optimizer.lay_out(held.master, list(_pieces(held.slots, model, shapes)), held.sharers)


def _pieces(slots: list[Slot], model: ModelSpec, shapes: dict[str, list[int]]) -> Iterator[Piece]:
    """Of the matrices in the slots' parameters, what lies here."""
    for slot in slots:
        for matrix in matrices_of(model, slot.name, shapes[slot.name]):
            start = max(slot.start, matrix.start)
            count = min(slot.start + slot.count, matrix.start + len(matrix)) - start
            if count > 0:
                yield Piece(matrix, start - matrix.start, count, slot.offset + start - slot.start)


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
