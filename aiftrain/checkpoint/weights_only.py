"""A checkpoint without what only a run that goes on needs: no optimizer states, no random states. A third of the size.

Its manifest says `holds: weights`, and lists shards of their own. It can be exported, and no run resumes from it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from numpy.typing import NDArray

from aiftrain.checkpoint.manifest import FileRecord, Manifest
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.saved import Saved
from aiftrain.checkpoint.shards import CheckpointReader
from aiftrain.checkpoint.tensorfile import Arranged, Tensor
from aiftrain.errors import UserError
from aiftrain.run.optimizer import AVERAGE

_KEPT = ("weight/", f"{AVERAGE}/")


@contextlib.contextmanager
def weights_only(saved: Saved, progress: Progress = unwatched) -> Iterator[Saved]:
    """A checkpoint of the weights, and their average, in `saved`, which is verified first; nothing is written anywhere.

    Each weight is read twice from where it is: for its file's digest, and when the file is wanted. DamagedError where
    it is not what was written.
    """
    if not saved.sealed:
        saved.check_whole(progress)
    with saved.reader() as reader:
        files = {record.name: _weights_of(reader, record.name) for record in saved.manifest.shards}
        records = [_record(name, file, progress) for name, file in files.items()]
        attached = [record for record in saved.manifest.files if record not in saved.manifest.shards]
        changes = {"files": [*records, *attached], "holds": "weights", "weights": None}
        manifest = saved.manifest.model_copy(update=changes)

        def blocks(record: FileRecord) -> Iterator[bytes]:
            file = files.get(record.name)
            return map(bytes, file.blocks()) if file else saved.blocks(record)

        yield Saved(saved.address, manifest, partial(_no_reader, saved), blocks, saved.sealed)


def refuse_to_resume(manifest: Manifest, where: str) -> None:
    """UserError where a checkpoint holds too little to go on from."""
    if manifest.holds:
        raise UserError(
            f"{where} holds {manifest.holds} only, and no run can go on from it; begin a new run from what "
            "`checkpoints export` makes of it (init_from=FOLDER), or fetch a complete checkpoint"
        )


def _weights_of(reader: CheckpointReader, name: str) -> Arranged:
    shard = reader.shard(name)
    kept = {key: stored for key, stored in shard.tensors.items() if key.startswith(_KEPT)}
    tensors = [Tensor(key, each.dtype, each.shape, partial(_read, reader, name, key)) for key, each in kept.items()]
    return Arranged(tensors, {key: start for key, start in shard.metadata.items() if key in kept})


def _read(reader: CheckpointReader, name: str, key: str) -> NDArray[Any]:
    return reader.shard(name).read(key)


def _record(name: str, file: Arranged, progress: Progress) -> FileRecord:
    digest = hashlib.sha256()
    for block in file.blocks():
        digest.update(block)
        progress(0)
    return FileRecord(name=name, size=file.size, sha256=digest.hexdigest())


def _no_reader(saved: Saved) -> CheckpointReader:
    raise ValueError(f"{saved.address}: this checkpoint is only on its way")
