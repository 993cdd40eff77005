"""What stages of a pipeline send each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from aiftrain.train.mesh import Axis


class Neighbours:
    """The other stages of this rank's pipeline. Whoever receives knows shape and type of what comes."""

    def __init__(self, axis: Axis, device: torch.device) -> None:
        self._axis, self._device = axis, device
        self.stage, self.stages, self.last = axis.index, axis.size, axis.size - 1

    def send(self, tensor: Tensor, stage: int) -> None:
        dist.send(tensor.contiguous(), group=self._axis.group, group_dst=stage)

    def receive(self, shape: Sequence[int], dtype: torch.dtype, stage: int) -> Tensor:
        tensor = torch.empty(*shape, dtype=dtype, device=self._device)
        dist.recv(tensor, group=self._axis.group, group_src=stage)
        return tensor
