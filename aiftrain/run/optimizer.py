"""The optimizers beside AdamW: their settings, and what each keeps of every parameter.

The planner counts bytes by it and a rank builds its optimizer by it; checkpoints take whatever states there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

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
