"""Ranges that name what a rank does, for torch's profiler: some microseconds each where it does not record."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from aiftrain.run.profile import Part
from aiftrain.train.profile.timeline import MARK


def mark(part: Part) -> AbstractContextManager[object]:
    """What is done inside counts as `part`; of computations on a device, the optimizer's alone."""
    return torch.profiler.record_function(f"{MARK}{part}")
