"""A checkpoint as a Hugging Face model: safetensors, configurations, tokenizer and model card. No torch.

One weight is in memory at a time. Everything is written into a folder beside the destination and moved there at
the end, so that the destination is either a whole model or not there.
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
from pydantic import ValidationError

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.digested import first_fault
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.huggingface import Weight, check_exportable, config, generation_config, weights
from aiftrain.checkpoint.model_card import model_card
from aiftrain.checkpoint.shards import Array, CheckpointReader
from aiftrain.checkpoint.tensorfile import Tensor, write_tensors
from aiftrain.checkpoint.tokenizer_files import write_tokenizer
from aiftrain.data.corpus import PreparedCorpus
from aiftrain.errors import DamagedError, UserError
from aiftrain.run.durable import replace_text, sync_folder
from aiftrain.run.folder import RunFolder
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
    folder: RunFolder, out: Path, step: int | None = None, shard_gb: float = 5.0, *, averaged: bool = False
) -> Export:
    """Write the checkpoint of `step`, or the newest, to the new folder `out`, weights in files of up to `shard_gb` GB.

    `averaged`: the weights' moving average in their place. The checkpoint is verified first. UserError where there is
    none, where it is of another model, where the run keeps no average, where transformers has no class for its shape,
    or where `out` holds something already; DamagedError where a file is not what was
    written; MachineError where the disk fails.
    """
    out = out.resolve()
    spec = folder.read_spec()
    check_exportable(spec.model)
    if averaged and spec.optimizer.ema_decay is None:
        raise UserError(f"{folder.path} keeps no average of its weights: only a run with optimizer.ema_decay does")
    corpus = _read_corpus(folder)
    _refuse(out, shard_gb)
    checkpoint = Catalog.of_run(folder, spec).find_whole(spec, step)
    with _in_one_move(out) as part:
        _write_weights(part, spec, checkpoint.reader(), shard_gb, AVERAGE if averaged else "weight")
        _write_texts(part, spec, checkpoint, corpus, averaged=averaged)
        write_tokenizer(part, corpus.tokenizer, spec.timeline.after(checkpoint.step).sequence_length)
        files = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
    return Export(out, checkpoint.step, files)


def _read_corpus(folder: RunFolder) -> PreparedCorpus:
    if not folder.data_json.is_file():
        raise UserError(f"{folder.path} has no data.json, which names the tokenizer: has the run begun?")
    try:
        with machine_errors("read", folder.data_json):
            return PreparedCorpus.model_validate_json(folder.data_json.read_bytes())
    except ValidationError as error:
        raise DamagedError(f"{folder.data_json} is damaged: {first_fault(error)}") from error


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


def _write_weights(out: Path, spec: RunSpec, reader: CheckpointReader, shard_gb: float, state: str) -> None:
    """model.safetensors, or model-00001-of-0000N.safetensors and an index, as transformers names them."""
    groups = list(_split(weights(spec.model), shard_gb * 1e9))
    if len(groups) == 1:
        _write_group(out / "model.safetensors", groups[0], reader, state)
        return
    files: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        _write_group(out / name, group, reader, state)
        files.update({weight.key: name for weight in group})
    total = spec.model.parameters * _FLOAT32.itemsize
    _write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": files})


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


def _write_group(path: Path, group: list[Weight], reader: CheckpointReader, state: str) -> None:
    tensors = [Tensor(weight.key, _FLOAT32, weight.shape, partial(_load, reader, weight, state)) for weight in group]
    write_tensors(path, tensors, {"format": "pt"})  # transformers asks for this word


def _load(reader: CheckpointReader, weight: Weight, state: str) -> Array:
    values = reader.read(weight.source, state, weight.start, weight.stop)
    if weight.turned:
        return np.ascontiguousarray(values.reshape(weight.shape[::-1]).T)
    return values.reshape(weight.shape)


def _write_texts(out: Path, spec: RunSpec, checkpoint: Checkpoint, corpus: PreparedCorpus, *, averaged: bool) -> None:
    _write_json(out / "config.json", config(spec, corpus.tokenizer.eos_id, checkpoint.step))
    _write_json(out / "generation_config.json", generation_config(corpus.tokenizer.eos_id))
    replace_text(out / "README.md", model_card(spec, checkpoint.manifest, averaged=averaged))


def _write_json(file: Path, document: object) -> None:
    replace_text(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
