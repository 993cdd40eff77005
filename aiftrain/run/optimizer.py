"""The optimizer of a run and its learning-rate schedule: settings, and what it keeps of every parameter.

The planner counts bytes by it and a rank builds its optimizer by it; checkpoints take whatever states there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from aiftrain.run.base import Strict

# Of parameters: the matrices inside layers; embeddings and the output projection; norms, biases and scalars.
Kind = Literal["matrix", "table", "vector"]

AVERAGE = "ema"  # the state that is an exponential moving average of the weights
ADAM = ("exp_avg", "exp_avg_sq")
MOMENTUM = "momentum"  # of Muon


class AdemamixSpec(Strict):
    """AdEMAMix (arXiv 2409.03137): AdamW with a second, slow average of the gradients, mixed in with weight `alpha`.

    `alpha` rises linearly from 0 over `alpha_steps`. The slow average's half-life rises linearly over `beta3_steps`,
    from that of betas[0] to that of `beta3`. 0 steps: at once.
    """

    alpha: float = Field(8.0, ge=0)
    beta3: float = Field(0.9999, gt=0, lt=1)
    alpha_steps: int = Field(100_000, ge=0)
    beta3_steps: int = Field(100_000, ge=0)


class MuonSpec(Strict):
    """Muon (arXiv 2502.16982) for the matrices inside layers; AdamW for embeddings, the output projection, vectors.

    `rms`: the root mean square of an update before the learning rate, AdamW's, so that both take the same rate.
    """

    momentum: float = Field(0.95, ge=0, lt=1)
    steps: int = Field(5, ge=1, lt=100)  # of the iteration that orthogonalises
    rms: float = Field(0.2, gt=0)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are updated alike: their kinds, whether weight decay pulls on them, and their fp32 states."""

    kinds: tuple[Kind, ...]
    decays: bool
    states: tuple[str, ...]


def parameter_groups(
    ademamix: AdemamixSpec | None = None, muon: MuonSpec | None = None, *, average: bool = False
) -> tuple[ParameterGroup, ...]:
    """The groups of an optimizer, in its order."""
    more = (AVERAGE,) if average else ()
    adam = (*ADAM, *(("exp_avg_slow",) if ademamix else ()), *more)
    vectors = ParameterGroup(("vector",), False, adam)
    if muon:
        return ParameterGroup(("matrix",), True, (MOMENTUM, *more)), ParameterGroup(("table",), True, adam), vectors
    return ParameterGroup(("matrix", "table"), True, adam), vectors


class OptimizerSpec(Strict):
    """The optimizer, AdamW where nothing else is named, and its learning-rate schedule.

    `warmup_steps` of linear rise, then `schedule`: `cosine` falls to `min_lr_ratio * lr` at the end;
    `wsd` holds lr and falls to `min_lr_ratio * lr` over the last `decay_fraction` of all steps (warm-up, stable,
    decay: arXiv 2404.06395), linearly or as 1 - sqrt (arXiv 2405.18392); `constant` holds it.
    """

    name: str
    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    grad_clip: float = Field(1.0, ge=0)  # global norm; 0: none
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    decay_fraction: float = Field(0.2, ge=0, le=1)
    decay_shape: Literal["linear", "1-sqrt"] | None = None  # of wsd; None: linear
    min_lr_ratio: float = Field(0.1, ge=0, le=1)
    ademamix: AdemamixSpec | None = None
    muon: MuonSpec | None = None
    ema_decay: float | None = Field(None, gt=0, lt=1)  # a step, of an average of the weights; None: no average

    @property
    def groups(self) -> tuple[ParameterGroup, ...]:
        """The parameter groups, in the optimizer's order, and what it keeps of their elements."""
        return parameter_groups(self.ademamix, self.muon, average=self.ema_decay is not None)

    @model_validator(mode="after")
    def _one_optimizer(self) -> OptimizerSpec:
        if self.ademamix and self.muon:
            raise ValueError("optimizer.ademamix and optimizer.muon are two optimizers: set one of them to null")
        return self

    def decay_steps(self, steps: int) -> int:
        """How many of `steps` steps `wsd` decays over."""
        return max(1, round(self.decay_fraction * steps))

    def decay_begins(self, steps: int) -> int | None:
        """The first of `steps` steps whose rate is below the peak, once it is warm; None: there is none."""
        if self.schedule == "constant":
            return None
        return self.warmup_steps + 1 if self.schedule == "cosine" else steps - self.decay_steps(steps)
