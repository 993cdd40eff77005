"""Muon: the momentum of each matrix, made orthogonal, is its update; AdamW updates what is no matrix.

As in "Muon is Scalable for LLM Training" (arXiv 2502.16982, algorithm 1): Nesterov momentum, decoupled weight decay,
and updates scaled to the root mean square of AdamW's, so that learning rate and weight decay mean the same for both.

DeepSpeed's own Muon is not used. It orthogonalises gradients before it takes their norm (but for bf16 weights with
ZeRO 1), so that the norm that is reported and clipped is not the gradients'; joined projections are one matrix to it,
and it works in fp16. Here DeepSpeed sees an optimizer like any other, called with clipped gradients.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from aiftrain.run.optimizer import MOMENTUM, MuonSpec
from aiftrain.train.optimizers.base import AdamW
from aiftrain.train.optimizers.exchange import Exchange, Piece
from aiftrain.train.optimizers.orthogonal import orthogonalised, working_type


class Muon(AdamW):
    """Groups whose states have a momentum are matrices, all others AdamW's."""

    def __init__(self, groups: list[dict[str, Any]], spec: MuonSpec, **adam: Any) -> None:
        super().__init__(groups, **adam)
        self.spec = spec
        self._exchanges: dict[Tensor, Exchange] = {}

    def lay_out(self, weights: Tensor, pieces: list[Piece], group: Any) -> None:
        """What matrices lie in `weights`, with the ranks of `group` holding the rest. All of these have to call it."""
        self._exchanges[weights] = Exchange(pieces, group)

    def update(self) -> None:
        groups = self.param_groups
        self.param_groups = [group for group in groups if MOMENTUM not in group["states"]]
        super().update()
        self.param_groups = groups
        for group in groups:
            if MOMENTUM in group["states"]:
                self._update_matrices(group)

    def _update_matrices(self, group: dict[str, Any]) -> None:
        for weights in group["params"]:
            if weights.grad is not None:
                update = self._direction(weights, weights.grad)
                weights.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])

    def _direction(self, weights: Tensor, grad: Tensor) -> Tensor:
        """Where `weights` would go at a learning rate of 1."""
        state, spec = self.state[weights], self.spec
        state["step"] += 1
        momentum = state[MOMENTUM].lerp_(grad, 1 - spec.momentum)
        ahead = grad.lerp(momentum, spec.momentum)  # Nesterov's: with the gradient counted once more
        self._exchanges[weights].apply(ahead.view(-1), self._orthogonal, working_type(weights.device))
        return ahead

    def _orthogonal(self, matrix: Tensor) -> Tensor:
        """An orthogonal [m, n] has a root mean square of 1 / sqrt(max(m, n)) (arXiv 2502.16982, section 2.2)."""
        return orthogonalised(matrix, self.spec.steps) * (self.spec.rms * math.sqrt(max(matrix.shape)))
