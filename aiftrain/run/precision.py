"""What numbers a run computes with, and how the losses of fp16 are scaled."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from aiftrain.run.base import Strict

Precision = Literal["fp32", "bf16", "fp16"]
Half = Literal["bf16", "fp16"]  # of 16 bits


class LossScaleSpec(Strict):
    """How the factor moves by which fp16 multiplies losses, so that small gradients are numbers (arXiv 1710.03740).

    It doubles after `window` steps in a row whose gradients were all finite. Where they are not, the step is not
    applied, and the factor halves; of the first `hysteresis - 1` such steps since it last doubled nothing follows.
    The rule is Megatron-LM's, which begins with 2^32; DeepSpeed 0.19.8 has these values.
    """

    initial: float = Field(2.0**16, gt=0)
    window: int = Field(1000, ge=1)  # steps
    hysteresis: int = Field(2, ge=1)
    minimum: float = Field(1.0, gt=0)  # gradients that are not finite even so are the guard's affair


def is_half(precision: str) -> bool:
    """Whether its numbers have 16 bits."""
    return precision in get_args(Half)
