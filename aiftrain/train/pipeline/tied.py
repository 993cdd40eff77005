"""Tied embeddings in a pipeline: the first stage owns the table of tokens and lends it to the last one.

The last stage projects with a copy that has no optimizer state. Once a step it gives back the gradient of its own use,
and after the update it gets the new weights: as many bytes as an all-reduce between two owners would take. So the table
is in the optimizer, in the gradient's norm and in checkpoints once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aiftrain.train.model import Decoder
from aiftrain.train.pipeline.handing import Answer, handed_on
from aiftrain.train.pipeline.neighbours import Neighbours


class Lender:
    """On the first stage."""

    def __init__(self, model: Decoder, neighbours: Neighbours) -> None:
        self._weight, self._neighbours = model.embed.weight, neighbours

    def share(self) -> None:
        """Bring the last stage's copy into line."""
        self._neighbours.send(self._weight.data, self._neighbours.last)

    def given_back(self) -> Tensor:
        """0, through which the gradient of the last stage's use joins that of the embedding."""
        answer, weight = Answer(), self._weight
        answer.gradient = self._neighbours.receive(weight.shape, weight.dtype, self._neighbours.last)
        return handed_on(weight, answer)


class Borrower:
    """On the last stage. Sums its gradient over micro-batches in fp32."""

    def __init__(self, model: Decoder, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        # DeepSpeed turns parameters into bf16, and leaves buffers as they are.
        model.head.weight = model.head.weight.to(next(model.parameters()).dtype)
        self._weight = model.head.weight.requires_grad_()
        self._sum = torch.zeros_like(self._weight, dtype=torch.float32)
        self._weight.register_post_accumulate_grad_hook(self._add)

    @torch.no_grad()
    def share(self) -> None:
        """Take the weights as the first stage has them."""
        self._weight.copy_(self._neighbours.receive(self._weight.shape, self._weight.dtype, 0))

    def give_back(self) -> None:
        self._neighbours.send(self._sum.to(self._weight.dtype), 0)
        self._sum.zero_()

    def _add(self, weight: Tensor) -> None:
        assert weight.grad is not None
        self._sum += weight.grad
        weight.grad = None
