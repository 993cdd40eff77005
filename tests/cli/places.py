"""A run with checkpoints that say which model they are, and folders to copy them to."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from aiftrain.checkpoint.attachments import attach
from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.shards import Fragment, shard_name, write_shard
from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder
from tests.checkpoint.run_to_export import LLAMA, Weights, byte_tokenizer, corpus, random_weights
from tests.conftest import small_spec


class SavedRun:
    """Checkpoints of random weights with optimizer states, cut between two ranks."""

    def __init__(self, path: Path, **changes: Any) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.spec = small_spec(**{"model": LLAMA} | changes)
        self.folder, self.path = RunFolder(path), str(path)
        self.folder.write(self.folder.run_json, self.spec.model_dump_json())
        self.home = Catalog.of_run(self.folder, self.spec)
        self.corpus = corpus(byte_tokenizer(path))
        self.weights: Weights = random_weights(self.spec.model)

    def save(self, *steps: int) -> None:
        for step in steps:
            folder = self.home.begin(step)
            records = [self._shard(folder, rank, step) for rank in (0, 1)]
            files = [*records, *attach(folder, self.spec, self.corpus)]
            self.home.commit(self._manifest(step, files))

    def _shard(self, folder: Path, rank: int, step: int) -> Any:
        halves = []
        for name, array in self.weights.items():
            cut, flat = array.size // 2, array.reshape(-1)
            part = flat[cut:] if rank else flat[:cut]
            states = {"weight": part, "exp_avg": part * step, "exp_avg_sq": part**2}
            halves.append(Fragment(name, cut if rank else 0, states))
        return write_shard(folder / shard_name(rank), halves, {"random": np.arange(3)})

    def _manifest(self, step: int, files: list[Any]) -> Manifest:
        shapes = {name: list(array.shape) for name, array in self.weights.items()}
        return Manifest(
            step=step, optimizer_step=step, tokens=step, sources={}, time=time.time(), attempt=1, world_size=2,
            run_digest=self.spec.digest, identity=self.spec.identity(), versions={}, shapes=shapes, files=files,
        )  # fmt: skip


def asked(capsys: Any, *words: str | Path, code: int = 0) -> Any:
    """The document that `checkpoints WORDS --json` prints."""
    assert main(["checkpoints", *map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)
