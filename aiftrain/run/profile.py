"""profile.json: where the time of some steps went, of every rank."""

from __future__ import annotations

from typing import Literal

from aiftrain.run.base import Strict
from aiftrain.run.documents import read_document
from aiftrain.run.folder import RunFolder

FORMAT = 1

Part = Literal["compute", "optimizer", "communication", "waiting", "data", "evaluation", "checkpoint", "host"]
MEANINGS: dict[Part, str] = {
    "compute": "forward and backward passes",
    "optimizer": "what DeepSpeed's step computes: clipping, update, casts",
    "communication": "messages that no computation hides",
    "waiting": "in a message, for ranks that come later",
    "data": "reading rows",
    "evaluation": "validation losses",
    "checkpoint": "saving",
    "host": "nothing of these: Python, launches, logs",
}


class RankTimes(Strict):
    """Of one rank: seconds of each part, which add up to `wall`; and communication that was hidden by computation."""

    rank: int
    wall: float
    parts: dict[Part, float]
    hidden_communication: float


class Profile(Strict):
    """Steps `first` to `last`, counted from 1, as `attempt` made them. Without `compared`, waiting is not told from
    communication: the ranks' messages do not match one by one, or there is one rank."""

    format: int = FORMAT
    attempt: int
    first: int
    last: int
    device: Literal["cpu", "gpu"]
    compared: bool
    traces: tuple[str, ...]  # files beside this one
    ranks: tuple[RankTimes, ...]

    @property
    def steps(self) -> int:
        return self.last - self.first + 1


def read_profile(folder: RunFolder) -> Profile:
    """UserError where nothing was profiled, or another aiftrain did it."""
    lacking = f"{folder.path} has no profile: train with profile=true"
    return read_document(folder.profile_json, Profile, lacking)
