"""Cross-entropy of the next token without ever holding all logits.

Logits are made for a chunk of tokens, turned into loss and gradient at once, and thrown away. The memory
is chunk * vocabulary instead of tokens * vocabulary, and no product is computed twice: the same three
matrix products as the plain form (logits, gradient of the hidden states, gradient of the weights).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from aiftrain.train.mesh import ALONE, Axis
from aiftrain.train.tensor_parallel import gathered

IGNORE = -100  # the target of a token that has nothing to predict


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    chunk: int,
    z_loss: float = 0.0,
    tensor: Axis = ALONE.tensor,
) -> tuple[Tensor, Tensor]:
    """The objective, and the plain cross-entropy for people (no gradient), both summed over tokens, in nats.

    hidden [tokens, H], weight [V, H], targets [tokens] (IGNORE: no loss). The objective adds `z_loss` times
    the squared log-partition of each token (PaLM, arXiv 2204.02311, section 5). Where the ranks of a `tensor` share
    out the vocabulary, V is this rank's part of it, and the gradient of hidden what that part contributes.
    """
    losses: tuple[Tensor, Tensor] = _ChunkedCrossEntropy.apply(hidden, weight, targets, chunk, z_loss, tensor)  # type: ignore[no-untyped-call]
    return losses


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, z_loss: float, tensor: Axis
    ) -> tuple[Tensor, Tensor]:
        dtype = _compute_dtype(hidden)
        rows, matrix = hidden.detach().to(dtype), weight.detach().to(dtype)
        sums = torch.zeros(2, dtype=torch.float32, device=hidden.device)
        of_chunk = loss_and_gradient if tensor.size == 1 else partial(shared_loss_and_gradient, tensor=tensor)
        wants_gradient = any(ctx.needs_input_grad)
        d_hidden, d_weight = torch.empty_like(rows), torch.zeros_like(weight, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(rows), chunk):
                part = slice(start, start + chunk)
                chunk_sums, d_logits = of_chunk(rows[part] @ matrix.T, targets[part], z_loss)
                sums += chunk_sums
                if wants_gradient:
                    torch.mm(d_logits, matrix, out=d_hidden[part])
                    _add_product(d_weight, d_logits.T, rows[part])
        ctx.save_for_backward(d_hidden.to(hidden.dtype), d_weight.to(weight.dtype))
        objective, plain = sums[0].clone(), sums[1].clone()
        ctx.mark_non_differentiable(plain)
        return objective, plain

    @staticmethod
    def backward(ctx: Any, d_objective: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * d_objective, d_weight * d_objective, None, None, None, None


def loss_and_gradient(logits: Tensor, targets: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    """Sums [objective, plain] of one chunk, and the objective's gradient for its logits [n, V] in their own type.

    With p = softmax(logits) and Z the partition: d/dlogits = p * (1 + 2 * z_loss * log Z) - onehot(target).
    """
    values = logits.float()
    valid = (targets != IGNORE).float()
    goal = targets.clamp(min=0)
    picked = values.gather(1, goal[:, None])[:, 0]
    sums, gradient = _finish(values, values.logsumexp(-1), goal, picked, valid, valid, z_loss)
    return sums, gradient.to(logits.dtype)


def shared_loss_and_gradient(logits: Tensor, targets: Tensor, z_loss: float, *, tensor: Axis) -> tuple[Tensor, Tensor]:
    """The same where the ranks of `tensor` share out the vocabulary: logits [n, V / size], the sums of the whole."""
    values = logits.float()
    valid = (targets != IGNORE).float()
    place = targets - tensor.index * logits.shape[1]
    here = valid * ((place >= 0) & (place < logits.shape[1]))
    goal = place.clamp(0, logits.shape[1] - 1)
    own = torch.stack([values.logsumexp(-1), values.gather(1, goal[:, None])[:, 0] * here])
    log_zs, picked = gathered(own, tensor).unbind(1)
    sums, gradient = _finish(values, log_zs.logsumexp(0), goal, picked.sum(0), valid, here, z_loss)
    return sums, gradient.to(logits.dtype)


def _finish(
    values: Tensor, log_z: Tensor, goal: Tensor, picked: Tensor, valid: Tensor, here: Tensor, z_loss: float
) -> tuple[Tensor, Tensor]:
    """From each token's log-partition and the logit of its target, which is column `goal` where it is `here`."""
    plain = (log_z - picked) * valid
    objective = plain + z_loss * log_z.square() * valid
    scale = (1 + 2 * z_loss * log_z) * valid
    gradient = (values - log_z[:, None]).exp() * scale[:, None]
    gradient = gradient.scatter_add(1, goal[:, None], -here[:, None])
    return torch.stack([objective.sum(), plain.sum()]), gradient


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
