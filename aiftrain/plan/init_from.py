"""`init_from`, before the queue: whether published weights fit the run, and which ones exactly they are.

What reads weights needs numpy and tokenizers, which take longer to load than most plans to make: it is imported by the
functions that a run with `init_from` comes to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiftrain.errors import AiftrainError, ConfigError, Problem
from aiftrain.run.init_from import InitSpec, StartingFile
from aiftrain.run.shape import MoeSpec
from aiftrain.run.spec import RunSpec

IMPORTED = "imported"  # the choice of `model` that takes its shape from the weights


def imported_model(init_from: str | None) -> dict[str, Any]:
    """The section `model` that config.json in the folder `init_from` describes. Raises ConfigError."""
    if not init_from:
        found = f"model={IMPORTED} takes the shape of the weights in a folder, and none is named"
        raise ConfigError([Problem("init_from", found, "init_from=FOLDER")])
    try:
        return {"name": Path(init_from).absolute().name, **_shape(init_from)}
    except AiftrainError as error:
        raise ConfigError([Problem("init_from", str(error))]) from error


def with_digests(spec: RunSpec) -> RunSpec:
    """`spec` with the digests of the files that it begins from, read once and remembered. Raises ConfigError."""
    if spec.init_from is None:
        return spec
    path = Path(spec.init_from.path).absolute()
    try:
        files = _digests(path, spec.data.cache_dir)
    except AiftrainError as error:
        raise ConfigError([Problem("init_from", str(error))]) from error
    return spec.model_copy(update={"init_from": InitSpec(path=str(path), files=files)})


def init_problems(spec: RunSpec) -> list[Problem]:
    """Why the weights of `init_from` cannot be those of `spec.model`, or its tokenizer not that of the data."""
    if spec.init_from is None or spec.purpose != "train":
        return []
    path = spec.init_from.path
    try:
        _demand_signature(spec, spec.init_from)
        return _of_shape(spec, path) or _of_weights(spec, path) or _of_tokenizer(spec, path)
    except AiftrainError as error:
        return [Problem("init_from", str(error))]


def init_warnings(spec: RunSpec) -> Iterator[str]:
    """What of a run that begins from published weights may be meant, and may not. The weights fit: `init_problems`."""
    if spec.init_from is None or spec.purpose != "train":
        return
    from aiftrain.checkpoint.pretrained.folder import PretrainedFolder

    config = PretrainedFolder(Path(spec.init_from.path)).config()
    if new := spec.model.vocab_size - config["vocab_size"]:
        yield f"{new:,} of {spec.model.vocab_size:,} rows of the vocabulary are new: they begin as means of old ones"
    longest = config.get("max_position_embeddings") or spec.train.sequence_length
    if spec.train.sequence_length > longest:
        yield f"the weights know {longest:,} positions, and train.sequence_length is {spec.train.sequence_length:,}"
    if not spec.optimizer.warmup_steps:
        yield "the optimizer begins without a memory of these weights: optimizer.warmup_steps should not be 0"


def _shape(path: str) -> dict[str, Any]:
    from aiftrain.checkpoint.pretrained.folder import PretrainedFolder
    from aiftrain.checkpoint.pretrained.shape import shape

    return shape(PretrainedFolder(Path(path)).config())


def _digests(path: Path, cache_dir: str) -> dict[str, StartingFile]:
    from aiftrain.checkpoint.pretrained.folder import PretrainedFolder
    from aiftrain.data.cache import Cache

    files, cache = PretrainedFolder(path).all_files(), Cache(cache_dir)
    cache.make()
    digests = cache.digests.compute(files, os.cpu_count() or 1, lambda _: None)
    return {file.name: StartingFile(size=file.stat().st_size, sha256=digests[file]) for file in files}


def _demand_signature(spec: RunSpec, init: InitSpec) -> None:
    """At the start the files are compared with these digests."""
    if spec.policy.signed_by:
        from aiftrain.checkpoint.signing.signers import Signers

        digests = {name: file.sha256 for name, file in init.files.items()}
        Signers.of(spec.policy).check_folder(Path(init.path), digests)


def _of_shape(spec: RunSpec, path: str) -> list[Problem]:
    from aiftrain.checkpoint.pretrained.shape import differences

    return [
        Problem(
            f"model.{key}",
            f"{_said(ours)}, but the weights in {Path(path).name} have {_said(theirs)}",
            f"model.{key}={_said(theirs)}, or take the whole shape from the folder: model={IMPORTED}",
        )
        for key, ours, theirs in differences(spec.model, _shape(path))
    ]


def _of_weights(spec: RunSpec, path: str) -> list[Problem]:
    from aiftrain.checkpoint.pretrained.reader import check_weights

    check_weights(Path(path), spec.model)
    return []


def _of_tokenizer(spec: RunSpec, path: str) -> list[Problem]:
    from aiftrain.checkpoint.pretrained.folder import PretrainedFolder
    from aiftrain.checkpoint.pretrained.vocabulary import spellings, tokenizer_file

    tokenizer = spec.data.tokenizer
    if tokenizer.kind != "file" or tokenizer.path is None:
        found = "a new tokenizer would be trained, whose tokens the weights do not know"
        fits = f"data.tokenizer.kind=file data.tokenizer.path={path}/tokenizer.json"
        return [Problem("data.tokenizer.kind", found, fits)]
    try:
        file = tokenizer_file(tokenizer.path)
        spellings(PretrainedFolder(Path(path)).tokenizer(file), file)
    except AiftrainError as error:
        return [Problem("data.tokenizer.path", str(error), f"the tokenizer of the weights: {path}")]
    return []


def _said(value: object) -> str:
    """As it is typed; of a mixture of experts that it is one."""
    if isinstance(value, MoeSpec):
        return f"{value.num_experts} experts"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
