"""A checkpoint with what says which model it is: its attachments, or the run folder of one that has none yet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from aiftrain.checkpoint.digested import first_fault
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.places import Home, Place
from aiftrain.checkpoint.saved import Saved
from aiftrain.data.corpus import PreparedCorpus, PreparedTokenizer
from aiftrain.errors import DamagedError, UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec


@dataclass(frozen=True)
class Model:
    """A checkpoint, the run that it is of, and its tokenizer, whose file `bring_tokenizer` puts into a folder."""

    saved: Saved
    spec: RunSpec
    tokenizer: PreparedTokenizer
    bring_tokenizer: Callable[[Path], Path]

    def tokenizer_in(self, folder: Path) -> PreparedTokenizer:
        """The tokenizer, its file brought into a folder under the name that transformers knows."""
        return self.tokenizer.model_copy(update={"path": self.bring_tokenizer(folder)})


def model_at(place: Place, step: int | None = None) -> Model:
    """The model of a step, or of the newest. UserError where nothing there says which one it is."""
    saved = place.find(step)
    attached = saved.attachments
    spec, corpus = attached.spec(), attached.corpus()
    if spec and corpus:
        model = Model(saved, spec, corpus.tokenizer, attached.bring_tokenizer)
    elif isinstance(place, Home):
        tokenizer = corpus_of(place.folder).tokenizer
        model = Model(saved, place.spec, tokenizer, partial(_copy_tokenizer, tokenizer))
    else:
        raise UserError(
            f"{saved.address} is from before checkpoints said which model they are: copy it home to its run folder "
            "(checkpoints copy), and export it there"
        )
    if saved.manifest.identity.get("model") != model.spec.identity()["model"]:
        raise UserError(f"{saved.address} is a checkpoint of another model than run.json describes")
    return model


def corpus_of(folder: RunFolder) -> PreparedCorpus:
    """What data.json of a run folder says. UserError where there is none."""
    if not folder.data_json.is_file():
        raise UserError(f"{folder.path} has no data.json, which names the tokenizer: has the run begun?")
    try:
        with machine_errors("read", folder.data_json):
            return PreparedCorpus.model_validate_json(folder.data_json.read_bytes())
    except ValidationError as error:
        raise DamagedError(f"{folder.data_json} is damaged: {first_fault(error)}") from error


def _copy_tokenizer(tokenizer: PreparedTokenizer, out: Path) -> Path:
    if not tokenizer.path.is_file():
        raise UserError(f"the tokenizer of the run, {tokenizer.path}, is not there any more: put it back to export")
    is_json = tokenizer.path.suffix == ".json"
    return Path(shutil.copyfile(tokenizer.path, out / ("tokenizer.json" if is_json else "tokenizer.model")))
