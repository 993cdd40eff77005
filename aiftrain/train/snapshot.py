"""Resuming: the newest checkpoint whose files are all what they were, into whatever the ranks of this layout hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.history import History, Rollback
from aiftrain.checkpoint.index import Range
from aiftrain.checkpoint.loss_scale import LossScale
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.rollbacks import read_rollbacks, set_void_aside, write_rollbacks
from aiftrain.checkpoint.saved import saved_at_home
from aiftrain.checkpoint.shards import CheckpointReader, shard_name
from aiftrain.checkpoint.signing.signers import Signers
from aiftrain.checkpoint.verify import check_files
from aiftrain.checkpoint.weights_only import refuse_to_resume
from aiftrain.errors import DamagedError, UserError
from aiftrain.run.identity import changed, changed_past, recorded
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.train.engine import Engine
from aiftrain.train.fetching import Fetcher
from aiftrain.train.fragments import LiveFragment
from aiftrain.train.init_from import begin_from
from aiftrain.train.randomness import restore_random_states
from aiftrain.train.together import on_first, together
from aiftrain.train.tracking import Tracker

T = TypeVar("T")


@dataclass(frozen=True)
class TrainState:
    """Where a run stands: finished steps, the tokens they took, what the guard knows, and how fp16's losses are scaled.

    All else follows from these or is in the engine.
    """

    step: int = 0
    tokens: int = 0
    guard: History = field(default_factory=History)
    loss_scale: LossScale | None = None


class Checkpoints:
    """The checkpoints of one run, as one of its ranks sees them. Every rank calls every method."""

    def __init__(self, spec: RunSpec, catalog: Catalog, rank: Rank, tracker: Tracker) -> None:
        self.spec = spec
        self.catalog = catalog
        self.rank = rank
        self.tracker = tracker
        self._fetcher = Fetcher(spec, catalog, rank, tracker)

    def resume(self, engine: Engine) -> TrainState:
        """Fill the engine from the newest checkpoint that verifies; a fresh state where nothing was ever saved.

        A fresh one has the weights of `init_from`, where the run begins from published ones.
        """
        on_first(self.catalog.remove_incomplete)
        self._fetcher.hear_rollbacks()
        self._adopt()
        self._set_void_aside()
        entry = self.newest_whole()
        self._fetcher.tidy()
        if entry is None:
            self._fetcher.refuse_to_begin()
        self._note_resumption(entry)
        if entry is None:
            if init := self.spec.init_from:
                begin_from(init, engine, self.spec, self.rank)
                self.tracker.event("init_from", path=init.path)
            return TrainState(guard=self._remembered(None), loss_scale=self._loss_scale(engine, None))
        state = self._load(engine, entry)
        past = state.guard
        self.tracker.event("resume", step=entry.step, skipped=past.skipped, rollbacks=len(past.rollbacks))
        if changes := changed(entry.manifest.identity, recorded(self.spec)):
            self.tracker.event("changed", step=entry.step, keys=[key for key, _, _ in changes])
        return state

    def roll_back(self, engine: Engine, entry: Checkpoint, rollbacks: tuple[Rollback, ...]) -> TrainState:
        """Go back to `entry` in the middle of a run. From the first line on a start after a crash does the same."""
        on_first(lambda: write_rollbacks(self.catalog, rollbacks))
        on_first(lambda: self.catalog.custody.add("rollback", entry.step, entry.manifest, self.tracker.attempt))
        self._set_void_aside()
        return self._load(engine, entry)

    def newest_whole(self, at_most: int | None = None) -> Checkpoint | None:
        """The newest checkpoint that verifies, up to step `at_most`; damaged ones on the way are set aside.

        It comes home from an archive where that has a newer one than home. UserError where the policy demands a
        signature that it lacks: an older one is not taken for it.
        """
        while True:
            self._fetcher.fetch_newer(at_most)
            entry = on_first(lambda: self.catalog.latest(at_most))
            if entry is None:
                return None
            faults = self._verify(entry)
            if not faults:
                on_first(partial(self._demand_signature, entry))
                return entry
            self.tracker.event("damaged", step=entry.step, message="; ".join(faults))
            on_first(partial(self.catalog.set_aside, entry.step))

    def _verify(self, entry: Checkpoint) -> list[str]:
        """What is wrong with a checkpoint; each rank reads its share of the files."""
        mine = self._share(entry.manifest.files)
        in_custody = on_first(lambda: [str(fault) for fault in self.catalog.custody_faults(entry)])
        faults = together(lambda: [str(fault) for fault in check_files(entry.folder, mine)])
        return [*in_custody, *(fault for of_rank in faults for fault in of_rank)]

    def _demand_signature(self, entry: Checkpoint) -> None:
        Signers.of(self.spec.policy).check(saved_at_home(entry), self.catalog.committed)

    def _adopt(self) -> None:
        """Custody that is damaged is set aside: it is no reason not to go on, and must not go unseen."""
        if damage := on_first(self._adopt_or_set_aside):
            self.tracker.event("custody damaged", message=damage)

    def _adopt_or_set_aside(self) -> str:
        try:
            self.catalog.adopt()
        except DamagedError as error:
            aside = self.catalog.custody.set_aside()
            self.catalog.adopt()
            return f"{error}; it is now {aside.name}, and custody begins anew with the checkpoints that are there"
        return ""

    def _note_resumption(self, entry: Checkpoint | None) -> None:
        """In custody; and if newer checkpoints should be there, say so loudly."""
        if vanished := on_first(lambda: self._resumed_in_custody(entry)):
            steps = ", ".join(map(str, vanished))
            message = f"custody.jsonl knows of newer checkpoints, of steps {steps}: they vanished, and were not removed"
            self.tracker.event("vanished", step=entry.step if entry else 0, steps=vanished, message=message)

    def _resumed_in_custody(self, entry: Checkpoint | None) -> list[int]:
        custody, step = self.catalog.custody, entry.step if entry else 0
        account = custody.account()
        if entry or account.digests:
            custody.add("resumed", step, entry.manifest if entry else None, self.tracker.attempt)
        return account.vanished(step)

    def _load(self, engine: Engine, entry: Checkpoint) -> TrainState:
        refuse_other_run(self.spec, entry)
        refuse_to_resume(entry.manifest, str(entry.folder))
        with entry.reader() as reader:
            wanted = list(engine.fragments())
            self._find(reader, entry.manifest, wanted)
            together(lambda: self._fill(reader, entry.manifest, wanted))
        engine.resumed(entry.manifest.optimizer_step)
        manifest = entry.manifest
        guard, loss_scale = self._remembered(manifest.guard), self._loss_scale(engine, manifest.loss_scale)
        return TrainState(manifest.step, manifest.tokens, guard, loss_scale)

    def _loss_scale(self, engine: Engine, saved: LossScale | None) -> LossScale | None:
        """None where losses are not scaled. A run that came from a machine with bf16 begins with it."""
        return (saved or LossScale.first(self.spec.train.loss_scale)) if engine.scales_losses else None

    def _remembered(self, guard: History | None) -> History:
        """What the guard knew when a checkpoint was made, and the rollbacks since."""
        return (guard or History()).with_rollbacks(on_first(lambda: read_rollbacks(self.catalog)))

    def _set_void_aside(self) -> None:
        for step in on_first(lambda: set_void_aside(self.catalog)):
            self.tracker.event("void", step=step)

    def _find(self, reader: CheckpointReader, manifest: Manifest, wanted: list[LiveFragment]) -> None:
        """Have `reader` know where the shards hold what this rank wants.

        In the layout that saved it, that is in the rank's own shard. In another one the ranks look into their share
        of the shards and tell each other: nobody opens them all.
        """
        ranges: dict[str, list[Range]] = {}
        for fragment in wanted:
            for state in fragment.views:
                key = f"{state}/{fragment.name}"
                ranges.setdefault(key, []).append((fragment.start, fragment.start + len(fragment)))
        own = [file.name for file in manifest.files if file.name == shard_name(self.rank.rank)]
        if all(together(lambda: reader.look_into(own).holds(ranges))):
            return
        share = self._share([file.name for file in manifest.shards])
        reader.learn(together(lambda: reader.look_into(share).pack()), ranges)

    def _fill(self, reader: CheckpointReader, manifest: Manifest, wanted: list[LiveFragment]) -> None:
        for fragment in wanted:
            for state, view in fragment.views.items():
                values = reader.read(fragment.name, state, fragment.start, fragment.start + len(fragment))
                view.copy_(torch.from_numpy(values))
        if self.rank.world_size == manifest.world_size:
            restore_random_states(reader.extra(self.rank.rank))

    def _share(self, of_all: list[T]) -> list[T]:
        """What falls to this rank of something that the ranks share out."""
        return of_all[self.rank.rank :: self.rank.world_size]


def refuse_other_run(spec: RunSpec, entry: Checkpoint) -> None:
    """UserError where a checkpoint was made by a run whose past is another one than this one's."""
    manifest = entry.manifest
    changes = changed_past(manifest.identity, recorded(spec), manifest.step, manifest.tokens)
    if changes:
        keys = [key for key, _, _ in changes]
        sections = dict.fromkeys(key.partition(".")[0] for key in keys)
        raise UserError(
            f"{entry.folder} belongs to a run with another {', '.join(sections)} ({', '.join(keys)}): "
            "give this run a folder of its own with run_dir=..., or go back to the configuration in its run.json"
        )
