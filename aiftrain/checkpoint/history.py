"""What the guard knows of a run so far: part of every checkpoint, so that a resumed run decides as it would have.

Rollbacks stand beside the checkpoints too, in rollbacks.json: the newest are known to no checkpoint yet.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from aiftrain.data.gaps import Gap, left_out, merge
from aiftrain.run.base import Strict


class Rollback(Strict):
    """After `at_step` steps the run went back to the checkpoint of `to_step`.

    Samples [start, stop) of the order, which led there, are left out from then on. `time` is in unix seconds.
    """

    at_step: int = Field(ge=0)
    to_step: int = Field(ge=0)
    start: int = Field(ge=0)
    stop: int = Field(ge=0)
    trouble: str
    attempt: int = Field(ge=0)
    time: float


class History(Strict):
    """`losses` (nats a token) and `norms` of the last steps that were applied, oldest first.

    `skips_in_row`: steps not applied since the last that was; `skipped`: those of the whole run.
    """

    losses: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    skips_in_row: int = Field(0, ge=0)
    skipped: int = Field(0, ge=0)
    rollbacks: tuple[Rollback, ...] = ()

    @property
    def gaps(self) -> list[Gap]:
        """What of the sample order the run leaves out."""
        return merge((rollback.start, rollback.stop) for rollback in self.rollbacks)

    def left_out(self, sample: int) -> int:
        """How much further on in the order the run's sample number `sample` stands."""
        return left_out(self.gaps, sample)

    def applied(self, loss: float, norm: float, window: int) -> History:
        """After a step that was applied; `window` steps are remembered."""
        losses, norms = (*self.losses, loss)[-window:], (*self.norms, norm)[-window:]
        return self.model_copy(update={"losses": losses, "norms": norms, "skips_in_row": 0})

    def skip(self) -> History:
        """After a step that was not applied."""
        return self.model_copy(update={"skips_in_row": self.skips_in_row + 1, "skipped": self.skipped + 1})

    def forget(self) -> History:
        """Before steps whose losses and norms are not to be compared with those before."""
        return self.model_copy(update={"losses": (), "norms": ()})

    def with_rollbacks(self, known: Sequence[Rollback]) -> History:
        """With the rollbacks that are known, where these are more: those of a checkpoint end when it was made."""
        return self if len(known) <= len(self.rollbacks) else self.model_copy(update={"rollbacks": tuple(known)})
