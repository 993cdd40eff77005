"""Memory that a GPU copies to by itself (pinned): such a copy runs beside the computing, at the speed of the bus.

To other memory CUDA copies by way of a small pinned buffer, piece by piece, and what is launched meanwhile waits.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np
import torch


class Pinning:
    """What of this process' memory the driver has registered: one piece at a time, until the process ends."""

    def __init__(self) -> None:
        self._pinned: mmap.mmap | None = None  # the reference keeps it mapped: the driver would not notice its end

    def pin(self, memory: mmap.mmap) -> None:
        """Register all of `memory`, once. Where the driver refuses, copies to it are slow, and right all the same."""
        if memory is self._pinned:
            return
        driver = torch.cuda.cudart()
        answers = [] if self._pinned is None else [driver.cudaHostUnregister(_address(self._pinned))]
        answers.append(driver.cudaHostRegister(_address(memory), len(memory), 0))
        self._pinned = memory
        if any(answer != driver.cudaError.success for answer in answers):
            _forget_error()


def _address(memory: mmap.mmap) -> int:
    return np.frombuffer(memory, np.uint8).ctypes.data


def _forget_error() -> None:
    """The next kernel that this thread launches raises what the driver has answered, whatever it is for."""
    with suppress(RuntimeError):
        torch.ones(1, device="cuda")
