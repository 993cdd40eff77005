"""Stage 3: how often a weight is gathered, by the rule by which DeepSpeed's coordinator of parameters lets it go.

A weight is gathered before its use, and let go after it unless it is used again within a number of elements of other
weights (stage3_max_reuse_distance). So those of the last layers stay from the forward to the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from aiftrain.plan.parameters import Shares, Tensor, embedding, head, layer, own_size
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec


class Weight(NamedTuple):
    """What one rank holds of a weight while it is gathered, and of that while it is not; `number` tells it from others.

    ends: computing a layer again stops in its midst. DeepSpeed does not see that end, and keeps the weight.
    """

    number: int
    size: int
    part: int
    ends: bool


class Gathers(NamedTuple):
    """Elements that one rank hands over in a micro-batch: of each weight once, and of those gathered again."""

    first: int
    again: int


class _Use(NamedTuple):
    weight: Weight
    stays: bool = False  # whatever comes next


class _Block(NamedTuple):
    """Weights in the order of the forward pass, and whether that is done again when the backward pass comes here."""

    weights: tuple[Weight, ...]
    again: bool = False


@lru_cache(maxsize=1024)
def gathers(model: ModelSpec, layout: ParallelLayout, persistent: int, reuse: int) -> Gathers:
    """Of weights with more than `persistent` elements; `reuse`: the distance."""
    uses = list(_uses(list(_blocks(model, layout, persistent))))
    sums = [0, *accumulate(use.weight.size for use in uses)]
    before: dict[int, int] = {}  # the place of the last use, by the weight's number
    first = again = 0
    for place, (weight, _) in enumerate(uses):
        last = before.get(weight.number)
        if last is None:
            first += weight.part
        elif sums[place] - sums[last + 1] >= reuse and not uses[last].stays:
            again += weight.part
        before[weight.number] = place
    return Gathers(first, again)


def _uses(blocks: list[_Block]) -> Iterator[_Use]:
    """In the forward pass, and in the backward pass."""
    for block in blocks:
        yield from map(_Use, block.weights)
    for block in reversed(blocks):
        if block.again:
            yield from (_Use(weight, stays=weight.ends) for weight in block.weights)
        yield from map(_Use, reversed(block.weights))


def _blocks(model: ModelSpec, layout: ParallelLayout, persistent: int) -> Iterator[_Block]:
    """Embedding, layers and head; a tied head is the embedding's first weight once more."""
    shares = Shares(layout.tensor_parallel, layout.expert_parallel)
    number = 0

    def gathered(tensors: Iterable[Tensor]) -> Iterator[Weight]:
        nonlocal number
        for tensor in tensors:
            ranks = (
                layout.sharers // layout.expert_parallel if tensor.of_experts and shares.expert > 1 else _group(layout)
            )
            size = own_size(tensor, shares)
            if size > persistent:
                yield Weight(number, size, -(-size // ranks), tensor.ends)
            number += 1

    table, *others = gathered(embedding(model))
    yield _Block((table, *others))
    for index in range(model.num_layers):
        again = layout.recompute != "none" and index % layout.recompute_every == 0
        yield _Block(tuple(gathered(layer(model, index))), again)
    yield _Block((*gathered(head(model)), *((table,) if model.tie_embeddings else ())))


def _group(layout: ParallelLayout) -> int:
    return layout.shard_group or layout.sharers
