"""Memory that a GPU copies to by itself (pinned): such a copy runs beside the computing, at the speed of the bus.

To other memory CUDA copies by way of a small pinned buffer, piece by piece, and the calling thread moves each piece on.
"""

from __future__ import annotations

import mmap

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
        if self._pinned is not None:
            torch.cuda.cudart().cudaHostUnregister(_address(self._pinned))
        self._pinned = memory
        torch.cuda.cudart().cudaHostRegister(_address(memory), len(memory), 0)


def _address(memory: mmap.mmap) -> int:
    return np.frombuffer(memory, np.uint8).ctypes.data
