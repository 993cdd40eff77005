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


class AdemamixSpec(Strict):
    """AdEMAMix (arXiv 2409.03137): AdamW with a second, slow average of the gradients, mixed in with weight `alpha`.

    `alpha` rises linearly from 0 over `alpha_steps`. The slow average's half-life rises linearly over `beta3_steps`,
    from that of betas[0] to that of `beta3`. 0 steps: at once.
    """

    alpha: float = Field(8.0, ge=0)
    beta3: float = Field(0.9999, gt=0, lt=1)
    alpha_steps: int = Field(100_000, ge=0)
    beta3_steps: int = Field(100_000, ge=0)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are updated alike: their kinds, whether weight decay pulls on them, and their fp32 states."""

    kinds: tuple[Kind, ...]
    decays: bool
    states: tuple[str, ...]


def parameter_groups(ademamix: AdemamixSpec | None, ema_decay: float | None) -> tuple[ParameterGroup, ...]:
    """The groups of an optimizer, in its order."""
    average = () if ema_decay is None else (AVERAGE,)
    states = (*ADAM, *(("exp_avg_slow",) if ademamix else ()), *average)
    return ParameterGroup(("matrix", "table"), True, states), ParameterGroup(("vector",), False, states)
