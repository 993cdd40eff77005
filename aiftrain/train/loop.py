"""The loop: batch -> engine.step -> state -> tracker; now and then evaluate, save, stop."""

from __future__ import annotations

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
from aiftrain.train.guard import Guard
from aiftrain.train.process import StopRequest
from aiftrain.train.rendezvous import agree, part
from aiftrain.train.schedule import learning_rate
from aiftrain.train.snapshot import Checkpoints, TrainState
from aiftrain.train.together import outcome_of, share
from aiftrain.train.tracking import Tracker
from aiftrain.train.verdict import Verdict, finite, remember
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
    guard: Guard
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
            mine = self._read(state)
            read = time.perf_counter() - started
            micro_batches, tokens, stops = self._agree(mine)
            if stops:
                return self._leave(state, saved)
            lr = learning_rate(self.spec.optimizer, state.step, total)
            self.guard.expect(state.guard, tokens)
            self.engine.step(micro_batches, lr, tokens)
            verdict = self.guard.verdict()
            if verdict.answer in ("rollback", "stop"):
                state = self.guard.go_back(state, verdict, self.batches.samples)
                saved = state.step
                continue
            state = self._after(state, verdict)
            seconds = time.perf_counter() - started
            self._record(state, verdict, lr, seconds)
            self.stragglers.step(state.step, read + self.engine.first_forward.seconds, seconds)
            if self._due(state, self.spec.train.evaluate_every):
                self._evaluate(state)
            if self._owes_checkpoint(state, saved):
                self._save(state)
                saved = state.step
        self.tracker.event("end", step=state.step, exit_code=EXIT_OK)
        return EXIT_OK

    def _due(self, state: TrainState, every: int) -> bool:
        last = state.step == self.spec.train.total_steps
        return last or (every > 0 and state.step % every == 0)

    def _owes_checkpoint(self, state: TrainState, saved: int) -> bool:
        """In trouble none is made: one that is half in it would be there to go back to."""
        every, last = self.spec.storage.save_every, state.step == self.spec.train.total_steps
        return last or (state.step // every > saved // every and not state.guard.skips_in_row)

    def _after(self, state: TrainState, verdict: Verdict) -> TrainState:
        """A step that was skipped counts as one, and its data as read."""
        past = remember(self.spec.guard, state.guard, verdict)
        if verdict.trouble:
            self.guard.tell(state.step + 1, verdict, past)
        return TrainState(state.step + 1, state.tokens + self.spec.train.tokens_per_step, past)

    def _read(self, state: TrainState) -> list[Batch] | AiftrainError:
        return outcome_of(lambda: list(self._micro_batches(state)))

    def _agree(self, mine: list[Batch] | AiftrainError) -> tuple[list[Batch], float, bool]:
        """This rank's micro-batches, how many tokens of all ranks' carry a loss, and whether a rank is to stop.

        What one rank could not read ends all, in the same words.
        """
        batches = [] if isinstance(mine, AiftrainError) else mine
        valid = sum(batch.valid_tokens for batch in batches) if self.engine.mesh.leads else 0
        tokens, stops, failures = agree([valid, bool(self.stop.signal), mine is not batches], self.device)
        if failures:
            share(mine)
        return batches, tokens, bool(stops)

    def _micro_batches(self, state: TrainState) -> Iterator[Batch]:
        """This rank's rows of a global batch, a micro-batch at a time."""
        layout = self.layout
        skipped = state.guard.left_out(self.batches.samples(state.step))
        first = layout.place(self.rank.rank).data * layout.micro_batch * layout.accumulation
        for number in range(layout.accumulation):
            yield self.batches.batch(state.step, first + number * layout.micro_batch, layout.micro_batch, skipped)

    def _record(self, state: TrainState, verdict: Verdict, lr: float, seconds: float) -> None:
        if not self._due(state, self.spec.tracking.log_every):
            return
        rate = self.spec.train.tokens_per_step / seconds
        flops = rate * self.spec.model.flops_per_token(self.spec.train.sequence_length)
        self.tracker.log(
            state.step,
            tokens=state.tokens,
            loss=finite(verdict.loss),
            grad_norm=finite(verdict.norm),
            lr=lr,
            tokens_per_s=rate,
            flop_share=flops / self.matmul_flops if self.matmul_flops else None,
            seconds=seconds,
            sources=self._source_tokens(state),
            **({} if verdict.applies else {"skipped": True}),
        )

    def _evaluate(self, state: TrainState) -> None:
        """Validation loss of each source that has a validation part, the same rows every time."""
        losses = {}
        for source in filter(self.batches.validation, self.batches.names):
            total, count = agree(list(self.engine.evaluate(self._validation_batches(source))), self.device)
            if count:
                losses[source] = total / count
        if losses:
            self.tracker.log(state.step, validation=losses)

    def _validation_batches(self, source: str) -> Iterator[Batch]:
        """This rank's share: ranks take micro-batches in turn, and all the same number, as ZeRO 3 needs."""
        micro, takers = self.layout.micro_batch, self.layout.data_parallel
        wanted = self.spec.train.evaluate_batches * self.spec.train.global_batch
        rows = min(wanted, self.batches.validation(source))
        for start in range(0, rows, micro * takers):
            mine = start + self.layout.place(self.rank.rank).data * micro
            yield self.batches.validation_batch(source, min(mine, rows), max(0, min(micro, rows - mine)))

    def _save(self, state: TrainState) -> None:
        self.checkpoints.save(self.engine, state, self._source_tokens(state))

    def _source_tokens(self, state: TrainState) -> dict[str, int]:
        return self.batches.source_tokens(state.step, state.guard.gaps)

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
