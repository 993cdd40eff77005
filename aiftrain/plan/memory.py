"""Model states: the bytes that weights, gradients and optimizer take on one rank, under each ZeRO stage."""

from __future__ import annotations

from aiftrain.plan.engine_config import uses_autocast
from aiftrain.run.base import Strict
from aiftrain.run.layout import ranks_per_node
from aiftrain.run.spec import Precision, RunSpec

GIB = 2**30
STAGES = (0, 1, 2, 3)
CHECKPOINT_BYTES = 12  # a parameter: fp32 weight and Adam's two moments


class StateBytes(Strict):
    """Bytes on one rank. Activations, buffers and the libraries come on top."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


def state_bytes(parameters: int, ranks: int, stage: int, *, bf16_weights: bool) -> StateBytes:
    """Model states on one of `ranks` ranks (ZeRO, arXiv 1910.02054, section 3 and figure 1).

    Bytes a parameter. bf16 weights: 2; gradients 2, and 4 for the sum over micro-batches that is kept in
    fp32; optimizer 12 (fp32 weight and Adam's two moments). fp32 weights: 4, 4 and 8, to which ZeRO adds
    4 for the copy of its own part that it updates. Stage 1 shares out the optimizer's part, stage 2
    also the gradients, stage 3 also the weights.
    """
    weights, gradients = (2, 6) if bf16_weights else (4, 4)
    optimizer = 12 if bf16_weights or stage else 8

    def held(each: int, from_stage: int) -> int:
        total = each * parameters
        return -(-total // ranks) if stage >= from_stage else total

    return StateBytes(weights=held(weights, 3), gradients=held(gradients, 2), optimizer=held(optimizer, 1))


def states_of(spec: RunSpec, precision: Precision, *, nodes: int | None = None, stage: int | None = None) -> StateBytes:
    """The model states of one rank of `spec`, or of the same run on other nodes or with another stage."""
    stage = spec.parallelism.zero_stage if stage is None else stage
    asked = spec.model_copy(update={"parallelism": spec.parallelism.model_copy(update={"zero_stage": stage})})
    ranks = (nodes or spec.nodes) * ranks_per_node(spec)
    bf16_weights = precision == "bf16" and not uses_autocast(asked, precision)
    return state_bytes(spec.model.parameters, ranks, stage, bf16_weights=bf16_weights)


def memory_per_rank(spec: RunSpec) -> int | None:
    """Bytes one rank may use: its device's, or on CPUs its share of the node's. None where nobody documents it."""
    hardware = spec.hardware
    gib = hardware.node_memory_gib if hardware.is_cpu else hardware.device_memory_gib
    if gib is None:
        return None
    sharing = ranks_per_node(spec) / hardware.devices_per_node
    return int(gib * GIB / max(1.0, sharing))


def choose_precision(spec: RunSpec) -> Precision:
    """What was asked for; `auto` is bf16 where the hardware has fast bf16, which of a CPU is known only on the spot."""
    if spec.train.precision != "auto":
        return spec.train.precision
    return "bf16" if spec.hardware.bf16 else "fp32"
