"""A rank's state as it was after a step, on its way to the rank's shard while training goes on.

Between one update and the next neither weights nor optimizer states change. So there is the time of a forward and a
backward pass to copy them into the memory that the writer's process shares; only the next update has to wait, where it
comes first. Where there is no memory for a copy, the state itself is written, and the update waits for that.
"""

from __future__ import annotations

import mmap
import threading
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aiftrain.checkpoint.background import BackgroundWriter
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.manifest import FileRecord
from aiftrain.checkpoint.shards import Shard, mark_of
from aiftrain.checkpoint.tensorfile import Tensor, record_of
from aiftrain.checkpoint.writer import Written, write_file
from aiftrain.train.engine import Engine
from aiftrain.train.pinning import Pinning
from aiftrain.train.randomness import random_states

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class LiveTensor(Tensor):
    """A tensor whose values are in one that the optimizer updates."""

    view: torch.Tensor


@dataclass(frozen=True)
class Saved:
    """A shard that is on the disk. `weights` is a digest of its weights, the seconds are those of its writer."""

    record: FileRecord
    weights: str
    write_seconds: float
    read_seconds: float
    copied: bool  # or the state itself was written
    restarts: int = 0  # of the writer


class Capture:
    """The state of `engine` at this moment. It must not change before `released` is set."""

    def __init__(self, engine: Engine, writer: BackgroundWriter | None, pinning: Pinning) -> None:
        self.released = threading.Event()
        self._writer, self._pinning = writer, pinning
        self._device = engine.device
        self._arranged = _shard(engine).arranged()
        self._mark = mark_of(self._arranged)
        self._computed = torch.cuda.current_stream().record_event() if self._device.type == "cuda" else None

    @property
    def size(self) -> int:
        """Bytes of the shard."""
        return self._arranged.size

    def save(self, path: Path) -> Saved:
        """Write the shard; in a thread beside the training. MachineError where it cannot be written."""
        use_device(self._device)
        try:
            memory = self._writer.memory(self._arranged.size) if self._writer else None
            if self._writer is None or memory is None:
                return self._written(path)
            self._copy(memory)
            self.released.set()
            written = self._writer.write(path, self._arranged.size, self._mark)
            return _saved(path, written, copied=True, restarts=self._writer.restarts)
        finally:
            self.released.set()

    def _written(self, path: Path) -> Saved:
        with machine_errors("write", path):
            return _saved(path, write_file(path, self._arranged.blocks(), self._mark), copied=False)

    def _copy(self, memory: mmap.mmap) -> None:
        view = memoryview(memory)
        view[: len(self._arranged.header)] = self._arranged.header
        if self._computed is not None:
            self._pinning.pin(memory)
            self._copy_from_device(view)
            return
        for tensor, place in self._arranged.places(view):
            np.copyto(place, tensor.values())

    def _copy_from_device(self, memory: memoryview) -> None:
        """On a stream of its own, so that computing does not wait; what was computed before it does wait for."""
        assert self._computed is not None
        stream = torch.cuda.Stream(self._device)
        stream.wait_event(self._computed)
        with torch.cuda.stream(stream):
            for tensor, place in self._arranged.places(memory):
                if isinstance(tensor, LiveTensor):
                    torch.from_numpy(place).copy_(tensor.view, non_blocking=True)
                else:
                    np.copyto(place, tensor.values())
        stream.synchronize()


def use_device(device: torch.device) -> None:
    """For a thread that works with this process' GPU: each begins with the first GPU of the node, whoever owns it.

    There its first call would make a context: half a GB of that GPU for each rank of the node.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _shard(engine: Engine) -> Shard:
    shard = Shard(random_states())
    for fragment in filter(attrgetter("owned"), engine.fragments()):
        for state, view in fragment.views.items():
            shard.add(state, fragment.name, fragment.start, partial(_live, view=view.detach()))
    return shard


def _live(key: str, view: torch.Tensor) -> LiveTensor:
    return LiveTensor(key, _FLOAT32, (view.numel(),), partial(_on_host, view), view)


def _on_host(view: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = view.cpu().float().numpy()
    return array


def _saved(path: Path, written: Written, *, copied: bool, restarts: int = 0) -> Saved:
    record = record_of(path, written)
    return Saved(record, written.mark, written.write_seconds, written.read_seconds, copied, restarts)
