"""The few physical constants behind every prediction, and what training software is known to differ in."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Literal

from pydantic import Field

from aiftrain.plan.groups import read_yaml
from aiftrain.run.base import Strict
from aiftrain.run.machine import Hardware
from aiftrain.shipped import conf_dir

MatmulRates = dict[str, dict[str, float]]  # TFLOP/s of one device, by hardware and precision
Attention = Literal["flash", "flash-ampere", "flash-1", "fused-softmax", "unfused"]

_NINE_OF_TEN = 1.64  # standard deviations


class Constants(Strict):
    """What is fitted to published runs. Shares are of the hardware profile's figures, times in seconds.

    A product of m x n x k runs at `matmul_share` of the best measured rate, less what small sides lose:
    each side costs a factor 1 + tile / side. Two things that overlap take (a^p + b^p)^(1/p): p = 1 is one after
    the other, a large p is the longer of the two.
    """

    matmul_share: float = 0.9
    tile: float = 30.0  # elements, on a device of 271 TFLOP/s; it grows with the rate
    cast_bytes: float = 3.0  # that each input of an 8- or 4-bit product costs in memory traffic
    fp8_share: float = 0.75  # of the data sheet's gain of fp8 over bf16 that large products show
    fp4_share: float = 0.5
    flash_share: float = 0.6  # attention in one kernel, of the matmul rate
    ampere_share: float = 0.65  # of that, where a kernel written for Ampere runs on what came after
    flash_1_share: float = 0.65  # of that, for the first generation of such kernels
    unfused_share: float = 0.4  # attention as separate products, of the matmul rate
    score_passes: float = 6.0  # how often the scores pass memory with softmax in one kernel
    unfused_passes: float = 16.0  # ... and with every operation by itself
    traffic: float = 1.6  # bytes really moved by norms, activations and residuals, over the least
    memory_share: float = 0.8  # of the memory's bandwidth that streaming reaches
    link_share: float = 0.75  # of the links inside a node
    net_share: float = 0.7  # of the network cards
    net_fall: float = 0.05  # the network's share falls as nodes ** -net_fall
    hop_seconds: float = 8e-6  # of a ring, from one rank to the next
    tensor_overlap: float = 1.2  # p of tensor-parallel traffic and computation
    data_overlap: float = 3.0  # p of data-parallel traffic and computation
    expert_overlap: float = 1.2  # p of the all-to-all and computation
    expert_share: float = 0.8  # of the matmul rate that the many small products of experts reach
    layer_seconds: float = 2e-3  # a layer's launches, forward and backward, from Python
    step_seconds: float = 5e-3  # of one optimizer step, whatever the size
    straggle: float = 0.004  # lost to the slowest, for every doubling of the nodes
    hardware: dict[str, float] = {}  # matmul rate of this hardware in training, over what the profile promises
    stacks: dict[str, float] = {}  # computation time of this software, over the model's
    talks: dict[str, float] = {}  # time of this software's collectives, over the model's
    spread: float = 0.1  # standard deviation of ln(measured / predicted) ...
    unseen_spread: float = 0.17  # ... and on hardware of which no run was fitted

    def spread_on(self, hardware: str) -> float:
        """Standard deviation of ln(measured / predicted) there."""
        return self.spread if hardware in self.hardware else self.unseen_spread

    def range_factor(self, hardware: str) -> float:
        """Nine of ten runs on this hardware are expected within this factor of what is predicted."""
        return math.exp(_NINE_OF_TEN * self.spread_on(hardware))


class Variant(Strict):
    """Software run with other kernels than usual, as a table's notes say."""

    pattern: str  # a regular expression on the notes
    attention: Attention = "flash"
    eager: float = Field(1.0, gt=0)


class Talk(Strict):
    """What software hands to collectives, where it differs from Megatron-LM. Ours: plan/traffic.py counts it."""

    all_reduces: bool = False  # gradients of ZeRO 1 and 2, in the place of sharing them out
    sums_again: float = Field(2.0, ge=0)  # of a layer's two sums over a tensor: under full recomputation, once more
    exchanges_heads: bool = False  # all-to-alls around attention, in the place of a ring of keys and values
    sends_all: bool = False  # every rank of a tensor sends all its tokens to experts, in the place of a share of them


class Stack(Strict):
    """Training software: what it does, as far as it changes the time of a step."""

    name: str
    pattern: str  # a regular expression on what a table of results calls it
    attention: Attention = "flash"
    eager: float = Field(1.0, gt=0)  # memory traffic over that of fused kernels
    launches: float = Field(1.0, gt=0)  # of kernels, over those of a layer written in PyTorch
    gradient_bytes: int = 2  # a parameter, as they travel
    vocabulary: int | None = None  # where a table states none, whatever the model's is
    zero_stage: int = Field(0, ge=0, le=3)  # where a table states none; Megatron's distributed optimizer is stage 1
    interleaves: bool = False  # a pipeline whose schedule is not stated is interleaved, one layer at a time
    sequence_parallel: bool = False  # where a table does not say
    talk: Talk = Talk()
    sends_once: bool = False  # a token goes to another node once, however many of its experts are there
    variants: tuple[Variant, ...] = ()

    def with_notes(self, notes: str) -> Stack:
        """The software as the notes say it was run."""
        for variant in self.variants:
            if re.search(variant.pattern, notes):
                return self.model_copy(update={"attention": variant.attention, "eager": variant.eager})
        return self


class Figures(Strict):
    """What a bench measured of one node type at one site, on so many nodes. Rates are of one device; None: not known.

    `matmul_tflops` by precision; links in GB/s in one direction and microseconds of one hop of a ring.
    """

    date: str
    nodes: int
    matmul_tflops: dict[str, float]
    memory_gb_per_s: float | None
    intra_node_gb_per_s: float | None
    inter_node_gb_per_s: float | None
    intra_node_us: float | None
    inter_node_us: float | None


class Calibration(Strict):
    """conf/throughput.yaml: the constants, the software, and where they were fitted.

    `own_runs` of the user's may have changed them; what those measured stands in where a profile has no rate, and the
    `figures` of benches stand in the place of the profile's, by the hardware's name.
    """

    source: str
    date: str
    constants: Constants
    stacks: tuple[Stack, ...]
    measured: MatmulRates = {}
    own_runs: int = 0
    figures: dict[str, Figures] = {}

    def stack(self, name: str) -> Stack:
        """The software called `name` in a table; the first pattern that is found in it."""
        return next(stack for stack in self.stacks if re.search(stack.pattern, name, re.IGNORECASE))

    def measured_rate(self, hardware: Hardware, precision: str) -> float | None:
        """TFLOP/s of one device, as the user's own runs measured it; on CPUs at this precision, else at 16 bits."""
        return self.measured.get(hardware.name, {}).get(precision if hardware.is_cpu else hardware.half)

    def named(self, name: str) -> Stack:
        """The software of that name."""
        return next(stack for stack in self.stacks if stack.name == name)


@cache
def shipped() -> Calibration:
    """The calibration that comes with aiftrain."""
    return Calibration.model_validate(read_yaml(conf_dir() / "throughput.yaml"))
