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
        d_hidden, d_weight = torch.empty_like(rows), torch.empty_like(weight, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(rows), chunk):
                part = slice(start, start + chunk)
                chunk_sums, d_logits = of_chunk(rows[part] @ matrix.T, targets[part], z_loss)
                sums += chunk_sums
                if wants_gradient:
                    torch.mm(d_logits, matrix, out=d_hidden[part])
                    _add_product(d_weight, d_logits.T, rows[part], first=start == 0)
        ctx.save_for_backward(d_hidden.to(hidden.dtype), d_weight.to(weight.dtype))
        objective, plain = sums[0].clone(), sums[1].clone()
        ctx.mark_non_differentiable(plain)
        return objective, plain

    @staticmethod
    def backward(ctx: Any, d_objective: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden.mul_(d_objective), d_weight.mul_(d_objective), None, None, None, None


def loss_and_gradient(logits: Tensor, targets: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    """Sums [objective, plain] of one chunk, and the objective's gradient for its logits [n, V] in their own type.

    With p = softmax(logits) and Z the partition: d/dlogits = p * (1 + 2 * z_loss * log Z) - onehot(target).
    """
    shares, log_z = _softmax(logits)
    valid = (targets != IGNORE).float()
    goal = targets.clamp(min=0)[:, None]
    picked = logits.gather(1, goal)[:, 0]
    gradient = _gradient(shares, _factor(log_z, valid, z_loss), goal, valid)
    return _sums(log_z, picked, valid, z_loss), gradient.to(logits.dtype)


def shared_loss_and_gradient(logits: Tensor, targets: Tensor, z_loss: float, *, tensor: Axis) -> tuple[Tensor, Tensor]:
    """The same where the ranks of `tensor` share out the vocabulary: logits [n, V / size], the sums of the whole."""
    shares, own_log_z = _softmax(logits)
    valid = (targets != IGNORE).float()
    place = targets - tensor.index * logits.shape[1]
    here = valid * ((place >= 0) & (place < logits.shape[1]))
    goal = place.clamp(0, logits.shape[1] - 1)[:, None]
    own = torch.stack([own_log_z, logits.gather(1, goal)[:, 0] * here])
    log_zs, picked = gathered(own, tensor).unbind(1)
    log_z = log_zs.logsumexp(0)
    factor = _factor(log_z, valid, z_loss) * (own_log_z - log_z).exp()
    return _sums(log_z, picked.sum(0), valid, z_loss), _gradient(shares, factor, goal, here).to(logits.dtype)


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of logits [n, V], and its log-partition [n], in fp32.

    The largest share is 1/V or more, so the partition can be had from it, without another pass of exponentials.
    """
    shares = torch.softmax(logits, -1, dtype=torch.float32)
    return shares, logits.amax(-1) - shares.amax(-1).log()


def _factor(log_z: Tensor, valid: Tensor, z_loss: float) -> Tensor:
    return (1 + 2 * z_loss * log_z) * valid


def _gradient(shares: Tensor, factor: Tensor, goal: Tensor, here: Tensor) -> Tensor:
    """shares * factor, less one at the target's column `goal` [n, 1] where it is `here` [n]. Overwrites `shares`."""
    return shares.mul_(factor[:, None]).scatter_add_(1, goal, -here[:, None])


def _sums(log_z: Tensor, picked: Tensor, valid: Tensor, z_loss: float) -> Tensor:
    """[objective, plain] from each token's log-partition and the logit of its target."""
    plain = (log_z - picked) * valid
    objective = plain + z_loss * log_z.square() * valid
    return torch.stack([objective.sum(), plain.sum()])


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _add_product(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """total += left @ right, whatever the types; the `first` product overwrites what was there."""
    if left.dtype == total.dtype:
        total.addmm_(left, right, beta=0 if first else 1)
    elif first:
        total.copy_(left @ right)
    else:
        total += left @ right
