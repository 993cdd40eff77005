"""The norm of gradients that ranks share out, and clipping to it, where DeepSpeed does neither (ZeRO stage 0)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aiftrain.train.mesh import Mesh
from aiftrain.train.parts import is_expert, is_part


def clip_gradients(parameters: Iterable[nn.Parameter], most: float, mesh: Mesh, loss_scale: float = 1.0) -> Tensor:
    """Scale the gradients down to the norm `most` of all of them together. Gives the norm before.

    Of losses that were multiplied by `loss_scale` the gradients are divided by it first.
    """
    parameters = list(parameters)
    if loss_scale != 1:
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1 / loss_scale)
    norm = global_norm(parameters, mesh)
    torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def global_norm(parameters: list[nn.Parameter], mesh: Mesh) -> Tensor:
    """The norm of the whole model's gradients; what the ranks of a tensor hold alike counts once."""
    counted = [p for p in parameters if p.grad is not None and (mesh.tensor.index == 0 or is_part(p))]
    norm = _norm(p for p in counted if not is_expert(p))
    if mesh.model.size == mesh.expert.size == 1:
        return norm
    square = norm.square()
    if mesh.expert.size > 1:
        of_experts = _norm(p for p in counted if is_expert(p)).square()
        dist.all_reduce(of_experts, group=mesh.expert.group)
        square += of_experts
    if mesh.model.size > 1:
        dist.all_reduce(square, group=mesh.model.group)
    return square.sqrt()


def _norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
