"""Data made bad on disk: the token files of a run of its own, in which the windows of some steps hold other tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from aiftrain.data.batches import Batches
from aiftrain.data.corpus import PreparedCorpus
from aiftrain.data.indexed import Tokens, bin_file
from aiftrain.run.folder import RunFolder

Spoil = Callable[[Tokens], None]


def poison(folder: RunFolder, steps: Iterable[int], spoil: Spoil) -> None:
    """Give the run token files of its own, and spoil the windows of these global batches (from 0) in them."""
    corpus = _own_files(folder)
    spec = folder.read_spec()
    length, batch = spec.train.sequence_length, spec.train.global_batch
    order: Any = Batches(corpus, spec.timeline, vocab_size=spec.model.vocab_size, seed=spec.seed)._order
    for step in steps:
        samples = order.samples(step * batch, batch)
        for source, window in zip(samples.sources, samples.windows, strict=True):
            train = list(corpus.sources.values())[source].train
            tokens = np.memmap(bin_file(train.prefix), "<u2", "r+")
            spoil(tokens[window * length + 1 : (window + 1) * length])  # the ends are windows' on both sides


def at_random(tokens: Tokens) -> None:
    """Any tokens of the vocabulary."""
    tokens[:] = np.random.default_rng(int(tokens[0])).integers(0, 400, len(tokens))


def beyond_vocabulary(tokens: Tokens) -> None:
    """A token that the model has no row for."""
    tokens[3] = 60_000


def _own_files(folder: RunFolder) -> PreparedCorpus:
    corpus = json.loads(folder.data_json.read_text(encoding="utf-8"))
    for name, source in corpus["sources"].items():
        prefix = Path(source["train"]["prefix"])
        for file in prefix.parent.glob(f"{prefix.name}.*"):
            shutil.copy(file, folder.path / f"{name}{file.suffix}")
        source["train"]["prefix"] = str(folder.path / name)
    folder.write_json(folder.data_json, corpus)
    return PreparedCorpus.model_validate(corpus)
