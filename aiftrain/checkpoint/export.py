"""A checkpoint as a Hugging Face model: safetensors, configurations, tokenizer and model card. No torch.

One weight is in memory at a time, wherever the checkpoint is. Everything is written into a folder beside the
destination and moved there at the end, so that the destination is either a whole model or not there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from aiftrain.checkpoint.described import Model
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.huggingface import Weight, check_exportable, config, generation_config, weights
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.model_card import model_card
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.shards import Array, CheckpointReader
from aiftrain.checkpoint.tensorfile import Tensor, write_tensors
from aiftrain.checkpoint.tokenizer_files import describe_tokenizer
from aiftrain.data.corpus import PreparedTokenizer
from aiftrain.errors import UserError
from aiftrain.run.durable import replace_text, sync_folder
from aiftrain.run.optimizer import AVERAGE
from aiftrain.run.spec import RunSpec

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Export:
    """What was exported: the model's folder, the step it is of, and its files by name with their bytes."""

    folder: Path
    step: int
    files: dict[str, int]

    def __str__(self) -> str:
        return str(self.folder)


def export(
    model: Model,
    out: Path,
    shard_gb: float = 5.0,
    *,
    averaged: bool = False,
    progress: Progress = unwatched,
) -> Export:
    """Write a checkpoint's model to the new folder `out`, weights in files of up to `shard_gb` GB.

    `averaged`: the weights' moving average in their place. The checkpoint is verified first, unless it is sealed: what
    is opened of that is what was sealed, or nothing. `progress` hears of the bytes verified, and of those written.
    UserError where the run keeps no average, where transformers has no class for its shape, or where `out` holds
    something already; DamagedError where a file is not what was written; MachineError where the disk fails.
    """
    out = out.resolve()
    spec, saved = model.spec, model.saved
    check_exportable(spec.model)
    if averaged and spec.optimizer.ema_decay is None:
        raise UserError(f"{saved.address} has no average of the weights: only a run with optimizer.ema_decay keeps one")
    _refuse(out, shard_gb)
    if not saved.sealed:
        saved.check_whole(progress)
    with _in_one_move(out) as part, saved.reader() as reader:
        tokenizer = model.tokenizer_in(part)
        writer = _Writer(part, spec, reader, AVERAGE if averaged else "weight", progress)
        writer.write(shard_gb)
        _write_texts(part, spec, saved.manifest, tokenizer, averaged=averaged)
        describe_tokenizer(part, tokenizer, spec.timeline.after(saved.manifest.step).sequence_length)
        files = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
    return Export(out, saved.manifest.step, files)


def _refuse(out: Path, shard_gb: float) -> None:
    if not shard_gb > 0:  # so that NaN is refused too
        raise UserError(f"a file of {shard_gb} GB holds nothing: the size must be above 0")
    with machine_errors("read", out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} exists and is not empty: name a new folder for the exported model")


@contextlib.contextmanager
def _in_one_move(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` at the end; what an export that was killed left of it is cleared away."""
    part = out.with_name(f".{out.name}.part")
    with machine_errors("write", out):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            sync_folder(part)
            part.rename(out)
            sync_folder(out.parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


@dataclass(frozen=True)
class _Writer:
    """Writes one state of all parameters into a folder, as transformers names them. A weight is in memory at a time."""

    out: Path
    spec: RunSpec
    reader: CheckpointReader
    state: str
    progress: Progress

    def write(self, shard_gb: float) -> None:
        """model.safetensors, or model-00001-of-0000N.safetensors and an index."""
        groups = list(_split(weights(self.spec.model), shard_gb * 1e9))
        if len(groups) == 1:
            self._write_group("model.safetensors", groups[0])
            return
        files: dict[str, str] = {}
        for number, group in enumerate(groups, 1):
            name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
            self._write_group(name, group)
            files.update({weight.key: name for weight in group})
        total = self.spec.model.parameters * _FLOAT32.itemsize
        document = {"metadata": {"total_size": total}, "weight_map": files}
        _write_json(self.out / "model.safetensors.index.json", document)

    def _write_group(self, name: str, group: list[Weight]) -> None:
        tensors = [Tensor(weight.key, _FLOAT32, weight.shape, partial(self._load, weight)) for weight in group]
        write_tensors(self.out / name, tensors, {"format": "pt"})  # transformers asks for this word

    def _load(self, weight: Weight) -> Array:
        values = self.reader.read(weight.source, self.state, weight.start, weight.stop)
        self.progress(values.nbytes)
        if weight.turned:
            return np.ascontiguousarray(values.reshape(weight.shape[::-1]).T)
        return values.reshape(weight.shape)


def _split(all_weights: Iterable[Weight], limit: float) -> Iterator[list[Weight]]:
    """Consecutive weights of at most `limit` bytes together; a weight that is larger stands alone."""
    group: list[Weight] = []
    size = 0
    for weight in all_weights:
        count = (weight.stop - weight.start) * _FLOAT32.itemsize
        if group and size + count > limit:
            yield group
            group, size = [], 0
        group.append(weight)
        size += count
    yield group


def _write_texts(out: Path, spec: RunSpec, manifest: Manifest, tokenizer: PreparedTokenizer, *, averaged: bool) -> None:
    _write_json(out / "config.json", config(spec, tokenizer.eos_id, manifest.step))
    _write_json(out / "generation_config.json", generation_config(tokenizer.eos_id))
    replace_text(out / "README.md", model_card(spec, manifest, averaged=averaged))


def _write_json(file: Path, document: object) -> None:
    replace_text(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
