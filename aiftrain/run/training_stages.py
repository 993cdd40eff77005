"""What a spec says of changes on the way: stages, and the warm-up of the batch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aiftrain.run.base import Strict

Weight = Annotated[float, Field(ge=0)]
Recompute = Literal["none", "selective", "full"]  # of activations, in the backward pass


class BatchWarmup(Strict):
    """The global batch begins with `start` sequences and grows by `increment`, evenly over the first `tokens` tokens.

    Megatron-LM's --rampup-batch-size, which counts the warm-up in samples.
    """

    start: int = Field(ge=1)
    increment: int = Field(ge=1)
    tokens: int = Field(ge=1)

    def levels(self, full: int) -> int:
        """How many increments lead from `start` to the `full` batch."""
        return max(0, -(-(full - self.start) // self.increment))


class StageSpec(Strict):
    """What changes once a run has come so far. What a stage leaves out goes on as before.

    It begins with the first step that has `from_tokens` tokens, or `from_step` steps, behind it.
    """

    from_tokens: int | None = Field(None, ge=1)
    from_step: int | None = Field(None, ge=1)
    weights: dict[str, Weight] | None = None  # of data.sources; those that are not named are not read
    sequence_length: int | None = Field(None, ge=2)
    rope_theta: float | None = Field(None, gt=0)
    global_batch: int | None = Field(None, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    recompute: Recompute | None = None
    rewarm: int | None = Field(None, ge=1)  # steps in which the learning rate rises again, to decay again
    lr: float | None = Field(None, gt=0)  # that it rises to, with rewarm; None: the optimizer's

    @model_validator(mode="after")
    def _is_complete(self) -> StageSpec:
        if (self.from_tokens is None) == (self.from_step is None):
            raise ValueError("a stage begins at from_tokens or at from_step: give one of them")
        if self.lr is not None and self.rewarm is None:
            raise ValueError("lr is what the learning rate rises to again: give it with rewarm, in steps")
        if not self.changes and self.rewarm is None:
            raise ValueError(f"a stage changes one of {', '.join(_CHANGES)}, or has rewarm")
        return self

    @property
    def changes(self) -> dict[str, object]:
        """What holds from then on, by field; the learning rate has a schedule of its own."""
        return {name: value for name in _CHANGES if (value := getattr(self, name)) is not None}


_CHANGES = ("weights", "sequence_length", "rope_theta", "global_batch", "micro_batch", "recompute")
