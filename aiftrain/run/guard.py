"""What a run does about numbers that are not finite and about spikes: thresholds, answers, and how often."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from aiftrain.run.base import Strict

# From the mildest to the hardest; each leaves weights and optimizer as they were before the step, but `ignore`.
Answer = Literal["ignore", "skip", "rollback", "stop"]


class GuardSpec(Strict):
    """Watches loss and gradient norm of every step, over all ranks, before the step is applied.

    `ignore` writes it down; `skip` does not apply the step; `rollback` goes back to a checkpoint from before the
    trouble and leaves out the data from there to here; `stop` ends the run. A `skip` that comes too often becomes a
    `rollback`, and that a `stop`. A step that is not finite is never applied.

    A spike is a value above median + sigmas * spread of the last `window` steps that were applied, where the spread
    is 1.4826 times their median absolute deviation: one standard deviation, if they were normal, and not moved by
    the odd one that is not. A stage with other data or lengths begins a new window.

    Skipping by a window of past losses and norms, its length, and 6 sigmas of the loss are those of OLMo-core's
    SkipStepOptimizer (with mean and deviation); going back and leaving the data out is what was done by hand for PaLM
    (arXiv 2204.02311, section 5.1).
    """

    non_finite: Literal["skip", "rollback", "stop"] = "skip"  # NaN or infinity in loss or gradient norm
    norm_spike: Answer = "skip"
    loss_spike: Answer = "skip"
    norm_sigmas: float = Field(10.0, gt=0)  # norms vary more than losses, and are clipped anyway
    loss_sigmas: float = Field(6.0, gt=0)
    window: int = Field(128, ge=4)  # steps
    least_steps: int = Field(64, ge=2)  # in the window, before which nothing counts as a spike
    skips_in_row: int = Field(4, ge=0)  # more become a rollback
    rollbacks: int = Field(4, ge=0)  # of a run; more end it
    rollbacks_to_one: int = Field(2, ge=0)  # to the same checkpoint; more end the run
    rollback_margin: int = Field(1, ge=0)  # good steps that a checkpoint must have seen after it to count as good

    @model_validator(mode="after")
    def _window_suffices(self) -> GuardSpec:
        if self.least_steps > self.window:
            raise ValueError(f"least_steps {self.least_steps} is more than the {self.window} steps of the window")
        return self
