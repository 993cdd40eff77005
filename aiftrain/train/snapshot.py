"""Saving and resuming: the ranks' fragments to shards, digests and a manifest, and back.

Every rank writes its shard; rank 0 collects the digests and writes the manifest last. Resuming takes the newest
checkpoint whose files are all what they were, and fills in whatever the ranks of this layout hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.manifest import FileRecord, Manifest
from aiftrain.checkpoint.shards import Fragment, shard_name, write_shard
from aiftrain.errors import AiftrainError, UserError
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.train.engine import Engine
from aiftrain.train.randomness import random_states, restore_random_states
from aiftrain.train.rendezvous import gather
from aiftrain.train.tracking import Tracker
from aiftrain.train.versions import library_versions

T = TypeVar("T")


@dataclass(frozen=True)
class TrainState:
    """Where a run stands: finished steps and the tokens they took. All else follows from these or is in the engine."""

    step: int = 0
    tokens: int = 0


class Checkpoints:
    """The checkpoints of one run, as one of its ranks sees them. Every rank calls every method."""

    def __init__(self, spec: RunSpec, catalog: Catalog, rank: Rank, tracker: Tracker) -> None:
        self.spec = spec
        self.catalog = catalog
        self.rank = rank
        self.tracker = tracker

    def save(self, engine: Engine, state: TrainState, sources: dict[str, int]) -> None:
        """Make `state` a checkpoint. On return it is complete; where it cannot be, every rank gets the error."""
        started = time.monotonic()
        self._on_first(lambda: self.catalog.begin(state.step))
        shard = self.catalog.step_folder(state.step) / shard_name(self.rank.rank)
        records = _together(lambda: write_shard(shard, _readable(engine), random_states()))
        manifest = self._manifest(engine, state, sources, records)
        self._on_first(lambda: self.catalog.commit(manifest))
        seconds = round(time.monotonic() - started, 3)
        self.tracker.event("saved", step=state.step, bytes=manifest.size, seconds=seconds)
        self._retain()

    def resume(self, engine: Engine) -> TrainState:
        """Fill the engine from the newest checkpoint that verifies; a fresh state where nothing was ever saved."""
        self._on_first(self.catalog.remove_incomplete)
        while True:
            entry = _together(self.catalog.latest)[0]
            if entry is None:
                return TrainState()
            faults = self._verify(entry)
            if not faults:
                return self._load(engine, entry)
            self.tracker.event("damaged", step=entry.step, message="; ".join(faults))
            self._on_first(partial(self.catalog.set_aside, entry.step))

    def _manifest(
        self, engine: Engine, state: TrainState, sources: dict[str, int], records: list[FileRecord]
    ) -> Manifest:
        return Manifest(
            step=state.step,
            optimizer_step=engine.optimizer_steps,
            tokens=state.tokens,
            sources=sources,
            time=time.time(),
            attempt=self.tracker.attempt,
            world_size=self.rank.world_size,
            run_digest=self.spec.digest,
            identity=self.spec.identity(),
            versions=library_versions(),
            shapes=engine.shapes(),
            files=records,
        )

    def _retain(self) -> None:
        storage = self.spec.storage
        removed = self._on_first(lambda: self.catalog.retain(storage.keep_last, storage.keep_every))
        for step in removed or []:
            self.tracker.event("removed", step=step)

    def _verify(self, entry: Checkpoint) -> list[str]:
        """What is wrong with a checkpoint; each rank reads its share of the files."""
        names = [record.name for record in entry.manifest.files]
        mine = names[self.rank.rank :: self.rank.world_size]
        faults = _together(lambda: [str(fault) for fault in self.catalog.verify(entry.step, files=mine)])
        return [fault for of_rank in faults for fault in of_rank]

    def _load(self, engine: Engine, entry: Checkpoint) -> TrainState:
        refuse_other_run(self.spec, entry)
        _together(lambda: self._fill(engine, entry))
        engine.resumed(entry.manifest.optimizer_step)
        self.tracker.event("resume", step=entry.step)
        return TrainState(entry.manifest.step, entry.manifest.tokens)

    def _fill(self, engine: Engine, entry: Checkpoint) -> None:
        reader = entry.reader()
        for fragment in engine.resident_fragments():
            for state, view in fragment.views.items():
                values = reader.read(fragment.name, state, fragment.start, fragment.start + len(fragment))
                view.copy_(torch.from_numpy(values))
        if self.rank.world_size == entry.manifest.world_size:
            restore_random_states(reader.extra(self.rank.rank))

    def _on_first(self, action: Callable[[], T]) -> T | None:
        """Do something on rank 0 only; its error is everybody's."""
        return _together(lambda: action() if self.rank.rank == 0 else None)[0]


def refuse_other_run(spec: RunSpec, entry: Checkpoint) -> None:
    """UserError where a checkpoint was made by a run whose numbers are decided otherwise than this one's."""
    was, now = entry.manifest.identity, spec.identity()
    sections = [name for name in now if was.get(name) != now[name]]
    if sections:
        raise UserError(
            f"{entry.folder} belongs to a run with another {', '.join(sections)}: "
            "give this run a folder of its own with run_dir=..., or go back to the configuration in its run.json"
        )


def _readable(engine: Engine) -> Iterator[Fragment]:
    for fragment in engine.fragments():
        arrays = {state: view.detach().cpu().float().numpy() for state, view in fragment.views.items()}
        yield Fragment(fragment.name, fragment.start, arrays)


def _together(action: Callable[[], T]) -> list[T]:
    """Do something on every rank; all results, in order of rank. Where a rank fails, all get the first error."""
    result: T | AiftrainError
    try:
        result = action()
    except AiftrainError as error:
        result = error
    results = gather(result)
    for outcome in results:
        if isinstance(outcome, AiftrainError):
            raise outcome
    return [outcome for outcome in results if not isinstance(outcome, AiftrainError)]
