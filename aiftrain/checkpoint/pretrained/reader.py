"""Ranges of our parameters, read from published weights: as CheckpointReader does it from a checkpoint's shards.

A rank reads what it holds and nothing else, except of the matrices that we store as [in, out]: there it goes through
the file in blocks and keeps its columns, since a read of a few bytes a row would take longer than the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from aiftrain.checkpoint.huggingface import Weight, weights
from aiftrain.checkpoint.pretrained.folder import PretrainedFolder, opened
from aiftrain.checkpoint.pretrained.shape import shape
from aiftrain.checkpoint.shards import Array
from aiftrain.checkpoint.tensorfile import Stored, TensorFile
from aiftrain.errors import UserError
from aiftrain.run.model import ModelSpec

_READABLE = ("F32", "F16", "BF16")
_BLOCK = 1 << 23  # elements that are read at one time
_OF_NO_USE = ("rotary_emb.inv_freq", "lm_head.weight")  # a table that we compute; a copy of a tied embedding

Tensors = Mapping[str, tuple[TensorFile, Stored]]


class PretrainedReader:
    """The weights of `model`, whose vocabulary is the file's, by our names."""

    def __init__(self, tensors: Tensors, model: ModelSpec) -> None:
        self._tensors = tensors
        self._weights: dict[str, list[Weight]] = {}
        for weight in weights(model):
            self._weights.setdefault(weight.source, []).append(weight)

    def read(self, name: str, start: int, stop: int) -> Array:
        """Elements [start, stop) of a flattened parameter, as a new float32 array. DamagedError where a file ends."""
        values = np.empty(stop - start, np.float32)
        for weight in self._weights[name]:
            first, last = max(start, weight.start), min(stop, weight.stop)
            if first < last:
                self._fill(values[first - start : last - start], weight, first - weight.start)
        return values

    def problems(self) -> Iterator[str]:
        """What the files lack, hold in another shape or form, or hold besides."""
        expected = {weight.key: weight.shape for of_one in self._weights.values() for weight in of_one}
        for key, wanted in expected.items():
            if key not in self._tensors:
                yield f"{key} is in none of the files"
            elif (stored := self._tensors[key][1]).shape != wanted:
                yield f"{key} is {list(stored.shape)}, and config.json makes it {list(wanted)}"
            elif stored.kind not in _READABLE:
                yield f"{key} is stored as {stored.kind}; readable are {', '.join(_READABLE)}"
        for key in self._tensors.keys() - expected.keys():
            if not key.endswith(_OF_NO_USE):
                yield f"{key} is a weight that aiftrain has no place for"

    def _fill(self, values: Array, weight: Weight, first: int) -> None:
        """Elements of our form of a weight from `first` on, as many as `values` has."""
        if weight.turned:
            self._fill_turned(values, weight, first)
            return
        for begin in range(0, values.size, _BLOCK):
            end = min(begin + _BLOCK, values.size)
            values[begin:end] = self._floats(weight.key, first + begin, first + end)

    def _fill_turned(self, values: Array, weight: Weight, first: int) -> None:
        """The same of a transposed matrix, flattened: some of its columns, the first and the last partly."""
        outputs, inputs = weight.shape
        begin, end = first // outputs, -(-(first + values.size) // outputs)
        columns = np.empty((end - begin, outputs), np.float32)
        rows = max(1, _BLOCK // inputs)
        for row in range(0, outputs, rows):
            upto = min(row + rows, outputs)
            block = self._floats(weight.key, row * inputs, upto * inputs).reshape(-1, inputs)
            columns[:, row:upto] = block[:, begin:end].T
        skipped = first - begin * outputs
        values[:] = columns.reshape(-1)[skipped : skipped + values.size]

    def _floats(self, key: str, first: int, last: int) -> Array:
        """Elements [first, last) of a weight in a file."""
        file, stored = self._tensors[key]
        raw = np.empty(last - first, stored.dtype)
        file.read_into(stored.offset + first * stored.dtype.itemsize, raw)
        if stored.kind == "BF16":  # the upper half of a float32
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32, copy=False)


def own_vocabulary(folder: PretrainedFolder, model: ModelSpec) -> ModelSpec:
    """`model` with the vocabulary of the weights."""
    return model.model_copy(update={"vocab_size": shape(folder.config())["vocab_size"], "published_parameters": None})


@contextmanager
def pretrained_reader(path: Path, model: ModelSpec) -> Iterator[PretrainedReader]:
    """The weights in `path` of a model of that shape, whatever its vocabulary."""
    folder = PretrainedFolder(path)
    with opened(folder.weight_files()) as tensors:
        yield PretrainedReader(tensors, own_vocabulary(folder, model))


def check_weights(path: Path, model: ModelSpec) -> None:
    """UserError unless the files' headers show every weight of `model`, each in its shape, and no others."""
    with pretrained_reader(path, model) as reader:
        found = list(reader.problems())
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(f"the weights in {path} do not fit its config.json: {'; '.join(found[:3])}{more}")
