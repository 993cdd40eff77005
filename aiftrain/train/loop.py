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
from aiftrain.train import stragglers
from aiftrain.train.engine import Engine
from aiftrain.train.process import StopRequest
from aiftrain.train.rendezvous import agree, part
from aiftrain.train.schedule import learning_rate
from aiftrain.train.snapshot import Checkpoints, TrainState
from aiftrain.train.tracking import Tracker
from aiftrain.train.watchdog import Watchdog


@dataclass
class Trainer:
    """One rank's view of a run in progress."""

    spec: RunSpec
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

    def run(self, state: TrainState) -> int:
        """Train from `state` to the end, or to a request to stop. Gives the exit code."""
        total, saved = self.spec.train.total_steps, state.step
        while state.step < total:
            self.watchdog.alive()
            started = time.perf_counter()
            micro_batches = list(self._micro_batches(state.step))
            read = time.perf_counter() - started
            valid = sum(batch.valid_tokens for batch in micro_batches) if self.engine.mesh.leads else 0
            tokens, stops = agree([valid, bool(self.stop.signal)], self.device)
            if stops:
                return self._leave(state, saved)
            lr = learning_rate(self.spec.optimizer, state.step, total)
            loss, norm = self.engine.step(micro_batches, lr, tokens)
            state = TrainState(state.step + 1, state.tokens + self.spec.train.tokens_per_step)
            seconds = time.perf_counter() - started
            self._record(state, loss, tokens, norm, lr, seconds)
            self.stragglers.step(state.step, read + self.engine.first_forward.seconds, seconds)
            if self._due(state, self.spec.train.evaluate_every):
                self._evaluate(state)
            if self._due(state, self.spec.storage.save_every):
                self._save(state)
                saved = state.step
        self.tracker.event("end", step=state.step, exit_code=EXIT_OK)
        return EXIT_OK

    def _due(self, state: TrainState, every: int) -> bool:
        last = state.step == self.spec.train.total_steps
        return last or (every > 0 and state.step % every == 0)

    def _micro_batches(self, step: int) -> Iterator[Batch]:
        """This rank's rows of a global batch, a micro-batch at a time."""
        layout = self.layout
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
        rate = self.spec.train.tokens_per_step / seconds
        flops = rate * self.spec.model.flops_per_token(self.spec.train.sequence_length)
        self.tracker.log(
            state.step,
            tokens=state.tokens,
            loss=mean,
            grad_norm=norm,
            lr=lr,
            tokens_per_s=rate,
            flop_share=flops / self.matmul_flops if self.matmul_flops else None,
            seconds=seconds,
            sources=self.batches.source_tokens(state.step),
        )

    def _evaluate(self, state: TrainState) -> None:
        """Validation loss of each source that has a validation part, the same rows every time."""
        if losses := self._validation_losses():
            self.tracker.log(state.step, validation=losses)
        if losses and self.spec.train.evaluate_average:
            with self.engine.averaged():
                self.tracker.log(state.step, validation_average=self._validation_losses())

    def _validation_losses(self) -> dict[str, float]:
        losses = {}
        for source in filter(self.batches.validation, self.batches.names):
            total, count = agree(list(self.engine.evaluate(self._validation_batches(source))), self.device)
            if count:
                losses[source] = total / count
        return losses

    def _validation_batches(self, source: str) -> Iterator[Batch]:
        """This rank's share: ranks take micro-batches in turn, and all the same number, as ZeRO 3 needs."""
        micro, takers = self.layout.micro_batch, self.layout.data_parallel
        wanted = self.spec.train.evaluate_batches * self.spec.train.global_batch
        rows = min(wanted, self.batches.validation(source))
        for start in range(0, rows, micro * takers):
            mine = start + self.layout.place(self.rank.rank).data * micro
            yield self.batches.validation_batch(source, min(mine, rows), max(0, min(micro, rows - mine)))

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
        self.tracker.close()
        part()
        self.lock.release()
