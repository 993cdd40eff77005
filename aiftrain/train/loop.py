"""The loop: batch -> engine.step -> state -> tracker; now and then evaluate, save, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from aiftrain.data.batches import Batch, Batches
from aiftrain.errors import EXIT_OK, EXIT_RESUME, AiftrainError
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.lock import RunLock
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.run.timeline import Phase, Timeline
from aiftrain.train import stragglers
from aiftrain.train.engine import Engine
from aiftrain.train.process import StopRequest
from aiftrain.train.profile.marks import mark
from aiftrain.train.profile.recorder import StepProfiler
from aiftrain.train.rendezvous import agree, part
from aiftrain.train.schedule import Schedule
from aiftrain.train.snapshot import Checkpoints, TrainState
from aiftrain.train.tracking import Tracker
from aiftrain.train.watchdog import Watchdog


@dataclass
class Trainer:
    """One rank's view of a run in progress."""

    spec: RunSpec
    timeline: Timeline
    schedule: Schedule
    layout: ParallelLayout
    rank: Rank
    device: torch.device
    engine: Engine
    batches: Batches
    checkpoints: Checkpoints
    tracker: Tracker
    stop: StopRequest
    matmul_flops: float | None  # per second, all ranks together
    lock: RunLock  # held by rank 0 as long as this object lives
    watchdog: Watchdog
    stragglers: stragglers.Watch
    profiler: StepProfiler

    def run(self, state: TrainState) -> int:
        """Train from `state` to the end, or to a request to stop. Gives the exit code."""
        total, saved = self.timeline.total_steps, state.step
        while state.step < total:
            self.watchdog.alive()
            self.profiler.before(state.step + 1)
            phase = self._enter(state.step)
            started = time.perf_counter()
            with mark("data"):
                micro_batches = list(self._micro_batches(state.step))
            read = time.perf_counter() - started
            valid = sum(batch.valid_tokens for batch in micro_batches) if self.engine.mesh.leads else 0
            tokens, stops = agree([valid, bool(self.stop.signal)], self.device)
            if stops:
                return self._leave(state, saved)
            lr = self.schedule.rate(state.step)
            loss, norm = self.engine.step(micro_batches, lr, tokens)
            state = TrainState(state.step + 1, state.tokens + phase.tokens_per_step)
            seconds = time.perf_counter() - started
            self._record(state, loss, tokens, norm, lr, seconds)
            self.stragglers.step(state.step, read + self.engine.first_forward.seconds, seconds)
            if self._due(state, self.spec.train.evaluate_every):
                with mark("evaluation"):
                    self._evaluate(state)
            if self._due(state, self.spec.storage.save_every):
                with mark("checkpoint"):
                    self._save(state)
                saved = state.step
            self.profiler.after(state.step)
        self.tracker.event("end", step=state.step, exit_code=EXIT_OK)
        return EXIT_OK

    def _due(self, state: TrainState, every: int) -> bool:
        last = state.step == self.timeline.total_steps
        return last or (every > 0 and state.step % every == 0)

    def _enter(self, step: int) -> Phase:
        """What holds at a step, with the engine ready for it."""
        phase = self.timeline.at(step)
        self.engine.enter(phase)
        if step and step == phase.first_step:
            changed = {"sequence_length": phase.sequence_length, "global_batch": phase.global_batch}
            self.tracker.event("phase", step=step, stage=phase.stage, rope_theta=phase.rope_theta, **changed)
        return phase

    def _micro_batches(self, step: int) -> Iterator[Batch]:
        """This rank's rows of a global batch, a micro-batch at a time."""
        layout = self.layout.during(self.timeline.at(step))
        first = layout.place(self.rank.rank).data * layout.micro_batch * layout.accumulation
        for number in range(layout.accumulation):
            yield self.batches.batch(step, first + number * layout.micro_batch, layout.micro_batch)

    def _record(self, state: TrainState, loss: float, tokens: float, norm: float, lr: float, seconds: float) -> None:
        mean = agree([loss], self.device)[0] / tokens
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise AiftrainError(
                f"step {state.step} gave loss {mean} and gradient norm {norm}: training cannot go on from there. "
                "The checkpoints before it are intact; a lower optimizer.lr or optimizer.grad_clip may help"
            )
        if not self._due(state, self.spec.tracking.log_every):
            return
        phase = self.timeline.after(state.step)
        rate = phase.tokens_per_step / seconds
        flops = rate * self.spec.model.flops_per_token(phase.sequence_length)
        self.tracker.log(
            state.step,
            tokens=state.tokens,
            loss=mean,
            grad_norm=norm,
            lr=lr,
            **self.engine.routing(),
            tokens_per_s=rate,
            flop_share=flops / self.matmul_flops if self.matmul_flops else None,
            seconds=seconds,
            sources=self.batches.source_tokens(state.step),
        )

    def _evaluate(self, state: TrainState) -> None:
        """Validation loss of each source that has a validation part, the same tokens every time."""
        losses, phase = {}, self.timeline.after(state.step)
        for source in self.batches.names:
            total, count = agree(list(self.engine.evaluate(self._validation_batches(source, phase))), self.device)
            if count:
                losses[source] = total / count
        if losses:
            self.tracker.log(state.step, validation=losses)

    def _validation_batches(self, source: str, phase: Phase) -> Iterator[Batch]:
        """This rank's share: ranks take micro-batches in turn, and all the same number, as ZeRO 3 needs."""
        micro, length, takers = phase.micro_batch, phase.sequence_length, self.layout.data_parallel
        train = self.spec.train
        wanted = -(-train.evaluate_batches * train.global_batch * train.sequence_length // length)
        rows = min(wanted, self.batches.validation(source, length))
        for start in range(0, rows, micro * takers):
            mine = start + self.layout.place(self.rank.rank).data * micro
            yield self.batches.validation_batch(source, length, min(mine, rows), max(0, min(micro, rows - mine)))

    def _save(self, state: TrainState) -> None:
        self.checkpoints.save(self.engine, state, self.batches.source_tokens(state.step))

    def _leave(self, state: TrainState, saved: int) -> int:
        self.tracker.event("stopping", step=state.step, signal=self.stop.signal or "on another rank")
        if state.step > saved:
            self._save(state)
        self.tracker.event("end", step=state.step, exit_code=EXIT_RESUME)
        return EXIT_RESUME

    def close(self) -> None:
        """Leave in good order: the tracker's files, the process group, the lock."""
        self.watchdog.stop()
        self.profiler.close()
        self.tracker.close()
        part()
        self.lock.release()
