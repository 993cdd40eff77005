"""The first weights of a run from a folder of published ones, as a checkpoint's are read: each rank what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from aiftrain.checkpoint.manifest import FileRecord
from aiftrain.checkpoint.pretrained.folder import PretrainedFolder
from aiftrain.checkpoint.pretrained.reader import own_vocabulary, pretrained_reader
from aiftrain.checkpoint.pretrained.vocabulary import GrownReader, spellings, tokenizer_file
from aiftrain.checkpoint.verify import check_files
from aiftrain.errors import DamagedError
from aiftrain.run.init_from import InitSpec
from aiftrain.run.optimizer import AVERAGE
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.train.engine import Engine
from aiftrain.train.together import together


def begin_from(init: InitSpec, engine: Engine, spec: RunSpec, rank: Rank) -> None:
    """Fill the engine with the weights in `init`; every rank calls it. An average begins with them, all else at zero.

    DamagedError on all ranks where a file is not what it was when the run was planned.
    """
    _check(init, rank)
    together(lambda: _fill(init, engine, spec))
    engine.resumed(0)


def _check(init: InitSpec, rank: Rank) -> None:
    """Each rank reads its share of the files."""
    records = [FileRecord(name=name, size=file.size, sha256=file.sha256) for name, file in sorted(init.files.items())]
    mine = records[rank.rank :: rank.world_size]
    found = together(lambda: [str(fault) for fault in check_files(Path(init.path), mine)])
    if faults := [fault for of_rank in found for fault in of_rank]:
        raise DamagedError(f"{init.path} does not hold the weights that this run was planned with: {'; '.join(faults)}")


def _fill(init: InitSpec, engine: Engine, spec: RunSpec) -> None:
    with _reader(init, spec) as reader:
        for fragment in engine.fragments():
            values = torch.from_numpy(reader.read(fragment.name, fragment.start, fragment.start + len(fragment)))
            for state in {"weight", AVERAGE} & fragment.views.keys():
                fragment.views[state].copy_(values)


@contextmanager
def _reader(init: InitSpec, spec: RunSpec) -> Iterator[GrownReader]:
    folder, tokenizer = PretrainedFolder(Path(init.path)), spec.data.tokenizer.path
    assert tokenizer is not None, "the plan saw to it"
    new = tokenizer_file(tokenizer)
    old_rows = own_vocabulary(folder, spec.model).vocab_size
    with pretrained_reader(folder.path, spec.model) as reader:
        spelled = spellings(folder.tokenizer(new), new)
        yield GrownReader(reader, old_rows, spec.model.hidden_size, spelled, spec.seed)
