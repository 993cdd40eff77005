"""Hybrid sharding: a group of ranks, such as a node's, shares out the states, and all groups hold the same.

Weights are gathered inside a group; between the groups travel gradients alone, once a step (MiCS, arXiv 2205.00119).
DeepSpeed knows one group. What it has averaged there is averaged over the groups here, before its optimizer's step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from aiftrain.train.mesh import Axis


@torch.no_grad()
def average_over_replicas(engine: Any, replicas: Axis) -> None:
    """The mean over the groups of this rank's part of the gradients, under ZeRO 3."""
    for gradients in engine.optimizer.averaged_gradients.values():
        flat = torch.cat([gradient.view(-1) for gradient in gradients]).div_(replicas.size)
        dist.all_reduce(flat, group=replicas.group)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, flat.split(sizes), strict=True):
            gradient.view(-1).copy_(mean)
