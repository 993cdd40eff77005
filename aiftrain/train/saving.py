"""Saving: each rank's state to its shard beside the training, digests to rank 0, and the manifest last.

save      every rank captures its state; rank 0 looks for room and makes the folder; training goes on
stage 1   every rank: copy the state, write the shard, read it again
stage 2   rank 0: commit the manifest, remove what retention does not keep; only now it is a checkpoint
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from aiftrain.checkpoint.attachments import attach
from aiftrain.checkpoint.background import BackgroundWriter
from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.provenance import DataRecord, LayoutRecord, StorageRecord
from aiftrain.checkpoint.room import make_room
from aiftrain.checkpoint.shards import shard_name
from aiftrain.checkpoint.spool import Removed, retain
from aiftrain.data.corpus import PreparedCorpus
from aiftrain.run.identity import recorded
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.train.capture import Capture, Saved
from aiftrain.train.engine import Engine
from aiftrain.train.in_flight import InFlight, Stages
from aiftrain.train.pinning import Pinning
from aiftrain.train.rendezvous import gather
from aiftrain.train.schedule import Schedule
from aiftrain.train.snapshot import TrainState
from aiftrain.train.together import on_first
from aiftrain.train.tracking import Tracker
from aiftrain.train.versions import library_versions

_PATIENCE = 1.0  # seconds between two looks at what other ranks have done; no collective waits for a disk


class Committed(NamedTuple):
    """What rank 0 has to tell of a checkpoint: what retention removed, and a step of the very same weights."""

    removed: list[Removed]
    unchanged_since: int | None


class Saver:
    """Saves one rank's part of a run's checkpoints, one at a time. Every rank calls every method."""

    def __init__(
        self,
        spec: RunSpec,
        layout: ParallelLayout,
        corpus: PreparedCorpus,
        catalog: Catalog,
        rank: Rank,
        tracker: Tracker,
        alive: Callable[[], None],
    ) -> None:
        """`alive` is called again and again while training waits for storage: that is no hang."""
        self._spec, self._corpus, self._catalog = spec, corpus, catalog
        self._rank, self._tracker, self._alive = rank, tracker, alive
        self._layout = LayoutRecord.of(spec.parallelism.name, layout)
        self._writer = BackgroundWriter(rank.local_size) if spec.storage.background else None
        self._pinning = Pinning()
        self._thread = ThreadPoolExecutor(1, "save")
        self._in_flight: InFlight | None = None
        self._stalled = 0.0  # seconds that training has waited for the save at hand

    @property
    def under_way(self) -> bool:
        """Whether a save has begun that is no checkpoint yet."""
        return self._in_flight is not None

    @property
    def ready(self) -> bool:
        """Whether this rank has done what others may wait for: where all have, all `advance`."""
        return self._in_flight is not None and self._in_flight.ready

    def save(self, engine: Engine, state: TrainState, sources: dict[str, int], samples: int) -> None:
        """Begin to make `state` a checkpoint; the one before is finished first. `samples`: how many were taken so far.

        Where it cannot be made, every rank gets the error: here, from `advance` or from `finish`.
        """
        self._wait_for_the_last(state.step)
        self._stalled = 0.0
        with self._stalling():
            capture = Capture(engine, self._writer, self._pinning)
            self._begin(state.step, sum(gather(capture.size)))
            manifest = self._manifest(engine, state, sources, samples)
            self._in_flight = InFlight(self._stages(capture, manifest), self._thread)
        engine.gate.before_change = lambda: self._wait_for(capture, engine)
        if not self._spec.storage.background:
            self.finish()

    def advance(self) -> None:
        """Go on with the save at hand; all ranks are ready."""
        assert self._in_flight is not None
        with self._stalling():
            if not self._in_flight.advance():
                self._in_flight = None

    def finish(self) -> None:
        """Wait until the save at hand, where there is one, is a checkpoint."""
        while self._in_flight:
            with self._stalling():
                self._in_flight.wait(_PATIENCE)
                ready = all(gather(self.ready))
            self._alive()
            if ready:
                self.advance()

    def close(self) -> None:
        """No save is to come."""
        if self._writer:
            self._writer.close()
        self._thread.shutdown()

    def _begin(self, step: int, size: int) -> None:
        """Of a checkpoint of `size` bytes."""
        storage, catalog = self._spec.storage, self._catalog

        def begin() -> list[int]:
            removed = make_room(catalog, size, self._rank.world_size, storage.keep_last, storage.keep_every)
            catalog.begin(step)
            return removed

        for old in on_first(begin):
            self._tracker.event("removed", step=old, message="there was too little room for the next one beside it")

    def _stages(self, capture: Capture, manifest: Manifest) -> Stages:
        started = time.monotonic()
        path = self._catalog.step_folder(manifest.step) / shard_name(self._rank.rank)
        saved: list[Saved] = yield lambda: capture.save(path)
        commits = self._rank.rank == 0
        results = yield lambda: (self._commit(manifest, saved) if commits else None, self._stalled)
        self._tell(manifest.step, saved, time.monotonic() - started, max(stalled for _, stalled in results))
        self._tell_committed(manifest.step, results[0][0])

    def _commit(self, manifest: Manifest, saved: list[Saved]) -> Committed:
        attached = attach(self._catalog.step_folder(manifest.step), self._spec, self._corpus)
        files = [*(each.record for each in saved), *attached]
        weights = hashlib.sha256("".join(each.weights for each in saved).encode()).hexdigest()
        storage = StorageRecord.of(self._catalog.folder)
        changes = {"files": files, "weights": weights, "storage": storage, "time": time.time()}
        before = self._catalog.latest(at_most=manifest.step)
        checkpoint = self._catalog.commit(manifest.model_copy(update=changes))
        unchanged = (
            before is not None
            and checkpoint.manifest.is_stuck_at(before.manifest)
            and self._learns(before.step, manifest.step)
        )
        removed = retain(self._catalog, self._spec.storage)
        return Committed(removed, before.step if before and unchanged else None)

    def _learns(self, start: int, stop: int) -> bool:
        """Whether a step between has a learning rate: where it decays to nothing, the last one has none."""
        schedule = Schedule(self._spec)
        return any(schedule.rate(step) > 0 for step in range(start, stop))

    def _tell_committed(self, step: int, committed: Committed) -> None:
        for removed in committed.removed:
            self._tracker.event("removed", step=removed.step, **({"lacking": True} if removed.lacking else {}))
        if (since := committed.unchanged_since) is not None:
            message = f"no weight has changed between steps {since} and {step}, though updates were made"
            self._tracker.event("unchanged", step=step, since=since, message=message)

    def _tell(self, step: int, saved: list[Saved], seconds: float, stalled: float) -> None:
        if uncopied := sum(not each.copied for each in saved) if self._spec.storage.background else 0:
            message = "no memory for a copy of the state: the next update waited until it was written"
            self._tracker.event("saved uncopied", step=step, ranks=uncopied, message=message)
        if restarts := sum(each.restarts for each in saved):
            self._tracker.event("writer restarted", step=step, times=restarts)
        self._tracker.event(
            "saved",
            step=step,
            bytes=sum(each.record.size for each in saved),
            seconds=round(seconds, 3),
            stall=round(max(stalled, self._stalled), 4),
            write_seconds=round(max(each.write_seconds for each in saved), 3),
            read_seconds=round(max(each.read_seconds for each in saved), 3),
        )

    def _manifest(self, engine: Engine, state: TrainState, sources: dict[str, int], samples: int) -> Manifest:
        """All but what is known only when the shards are written."""
        return Manifest(
            step=state.step,
            optimizer_step=engine.optimizer_steps,
            tokens=state.tokens,
            sources=sources,
            time=time.time(),
            attempt=self._tracker.attempt,
            world_size=self._rank.world_size,
            run_digest=self._spec.digest,
            identity=recorded(self._spec),
            versions=library_versions(),
            shapes=engine.shapes(),
            files=[],
            guard=state.guard,
            loss_scale=state.loss_scale,
            layout=self._layout,
            data=DataRecord.of(self._corpus, samples),
        )

    def _wait_for_the_last(self, step: int) -> None:
        """Storage that is slower than saves come does not pile them up: training waits."""
        if self._in_flight is None:
            return
        started = time.monotonic()
        self.finish()
        self._tracker.event("save waited", step=step, seconds=round(time.monotonic() - started, 3))

    def _wait_for(self, capture: Capture, engine: Engine) -> None:
        """Before the weights or the optimizer's states change: until no rank needs them as they are.

        All wait together, or one whose storage is slow would seem to hang to those that went on.
        """
        with self._stalling():
            while not all(gather(capture.released.wait(_PATIENCE))):
                self._alive()
        engine.gate.before_change = lambda: None

    @contextmanager
    def _stalling(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._stalled += time.monotonic() - started
