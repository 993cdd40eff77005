"""The matrices that Muon orthogonalises: each projection by itself, though several are stored as one parameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from aiftrain.run.model import ModelSpec


@dataclass(frozen=True, order=True)
class Matrix:
    """`rows` x `columns` elements of a flattened parameter, from element `start` on."""

    parameter: str
    start: int
    rows: int
    columns: int

    def __len__(self) -> int:
        return self.rows * self.columns


def matrices_of(model: ModelSpec, name: str, shape: Sequence[int]) -> Iterator[Matrix]:
    """What stands below each other in a parameter of the decoder.

    Queries, keys, values, gate and up are projections of their own, and so is each expert's; joined they would share
    one spectrum, which orthogonalising makes flat. Heads are not taken apart (as in arXiv 2502.16982).
    """
    *_, height, columns = shape
    start = 0
    while start < prod(shape):
        for rows in _stacked(model, name, height):
            yield Matrix(name, start, rows, columns)
            start += rows * columns


def _stacked(model: ModelSpec, name: str, height: int) -> tuple[int, ...]:
    """The rows of the projections in a matrix of `height` rows."""
    if name.endswith("attention.qkv.weight"):
        return model.query_size, model.kv_size, model.kv_size
    if model.latent and name.endswith("attention.down.weight"):
        return model.latent.kv_rank, model.latent.rope_dim
    if model.gated and name.endswith(("gate_up.weight", "mlp.up")):
        return height // 2, height // 2
    return (height,)
