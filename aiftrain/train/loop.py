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
from aiftrain.run.timeline import Phase, Timeline
from aiftrain.train import stragglers
from aiftrain.train.engine import Engine
from aiftrain.train.guard import Guard
from aiftrain.train.process import StopRequest
from aiftrain.train.profile.marks import mark
from aiftrain.train.profile.recorder import StepProfiler
from aiftrain.train.rendezvous import agree, part
from aiftrain.train.saving import Saver
from aiftrain.train.schedule import Schedule
from aiftrain.train.shipping import Shipping
from aiftrain.train.snapshot import TrainState
from aiftrain.train.together import outcome_of, share
from aiftrain.train.tracking import Tracker
from aiftrain.train.verdict import Verdict, finite, remember, rescaled
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
    saver: Saver
    guard: Guard
    tracker: Tracker
    stop: StopRequest
    matmul_flops: float | None  # per second, all ranks together
    lock: RunLock  # held by rank 0 as long as this object lives
    watchdog: Watchdog
    stragglers: stragglers.Watch
    profiler: StepProfiler
    shipping: Shipping | None

    def run(self, state: TrainState) -> int:
        """Train from `state` to the end, or to a request to stop. Gives the exit code."""
        total, saved = self.timeline.total_steps, state.step
        if self.shipping:
            self.shipping.begin()
        while state.step < total:
            self.watchdog.alive()
            self.profiler.before(state.step + 1)
            phase = self._enter(state.step)
            started = time.perf_counter()
            mine = self._read(state)
            read = time.perf_counter() - started
            micro_batches, tokens, stops = self._agree(mine)
            if stops:
                return self._leave(state, saved)
            lr = self.schedule.rate(state.step)
            self.guard.expect(state.guard, tokens, may_overflow=self._may_overflow(state))
            self.engine.step(micro_batches, lr, tokens, state.loss_scale.factor if state.loss_scale else 1.0)
            verdict = self.guard.verdict()
            if verdict.answer in ("rollback", "stop"):
                self.saver.finish()
                state = self.guard.go_back(state, verdict, self.batches.samples)
                saved = state.step
                continue
            state = self._after(state, phase, verdict)
            seconds = time.perf_counter() - started
            self._record(state, verdict, lr, seconds)
            self.stragglers.step(state.step, read + self.engine.first_forward.seconds, seconds)
            if self._due(state, self.spec.train.evaluate_every):
                with mark("evaluation"):
                    self._evaluate(state)
            if self._owes_checkpoint(state, saved):
                with mark("checkpoint"):
                    self._save(state)
                saved = state.step
            self.profiler.after(state.step)
        self.saver.finish()
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

    def _owes_checkpoint(self, state: TrainState, saved: int) -> bool:
        """In trouble none is made: one that is half in it would be there to go back to."""
        every, last = self.spec.storage.save_every, state.step == self.timeline.total_steps
        return last or (state.step // every > saved // every and not state.guard.skips_in_row)

    def _after(self, state: TrainState, phase: Phase, verdict: Verdict) -> TrainState:
        """A step that was skipped counts as one, and its data as read."""
        past = remember(self.spec.guard, state.guard, verdict)
        scale = state.loss_scale and rescaled(self.spec.train.loss_scale, state.loss_scale, verdict)
        if verdict.overflows:
            self.tracker.event("overflow", step=state.step + 1, loss=verdict.loss, loss_scale=scale and scale.factor)
        elif verdict.trouble:
            self.guard.tell(state.step + 1, verdict, past)
        if not phase.compares_with(self.timeline.at(state.step + 1)):
            past = past.forget()
        return TrainState(state.step + 1, state.tokens + phase.tokens_per_step, past, scale)

    def _may_overflow(self, state: TrainState) -> bool:
        return state.loss_scale is not None and state.loss_scale.can_yield(self.spec.train.loss_scale)

    def _read(self, state: TrainState) -> list[Batch] | AiftrainError:
        with mark("data"):
            return outcome_of(lambda: list(self._micro_batches(state)))

    def _agree(self, mine: list[Batch] | AiftrainError) -> tuple[list[Batch], float, bool]:
        """This rank's micro-batches, how many tokens of all ranks' carry a loss, and whether a rank is to stop.

        What one rank could not read ends all, in the same words. A save beside the training goes on from here, too.
        """
        batches = [] if isinstance(mine, AiftrainError) else mine
        valid = sum(batch.valid_tokens for batch in batches) if self.engine.mesh.leads else 0
        told: list[float] = [valid, bool(self.stop.signal), mine is not batches, self.saver.ready]
        tokens, stops, failures, ready = agree(told, self.device)
        if ready == self.rank.world_size:
            self.saver.advance()
        if failures:
            self.saver.finish()
            share(mine)
        return batches, tokens, bool(stops)

    def _micro_batches(self, state: TrainState) -> Iterator[Batch]:
        """This rank's rows of a global batch, a micro-batch at a time."""
        layout = self.layout.during(self.timeline.at(state.step))
        skipped = state.guard.left_out(self.batches.samples(state.step))
        first = layout.place(self.rank.rank).data * layout.micro_batch * layout.accumulation
        for number in range(layout.accumulation):
            yield self.batches.batch(state.step, first + number * layout.micro_batch, layout.micro_batch, skipped)

    def _record(self, state: TrainState, verdict: Verdict, lr: float, seconds: float) -> None:
        if not self._due(state, self.spec.tracking.log_every):
            return
        phase = self.timeline.after(state.step)
        rate = phase.tokens_per_step / seconds
        flops = rate * self.spec.model.flops_per_token(phase.sequence_length)
        self.tracker.log(
            state.step,
            tokens=state.tokens,
            loss=finite(verdict.loss),
            grad_norm=finite(verdict.norm),
            lr=lr,
            **self.engine.routing(),
            tokens_per_s=rate,
            flop_share=flops / self.matmul_flops if self.matmul_flops else None,
            seconds=seconds,
            sources=self._source_tokens(state),
            **({"loss_scale": state.loss_scale.factor} if state.loss_scale else {}),
            **({"overflow": True} if verdict.overflows else {}),
            **({} if verdict.applies else {"skipped": True}),
        )

    def _evaluate(self, state: TrainState) -> None:
        """Validation loss of each source that has a validation part, the same tokens every time."""
        phase = self.timeline.after(state.step)
        if losses := self._validation_losses(phase):
            self.tracker.log(state.step, validation=losses)
        if losses and self.spec.train.evaluate_average:
            with self.engine.averaged():
                self.tracker.log(state.step, validation_average=self._validation_losses(phase))

    def _validation_losses(self, phase: Phase) -> dict[str, float]:
        losses = {}
        for source in self.batches.names:
            self.watchdog.alive()
            total, count = agree(list(self.engine.evaluate(self._validation_batches(source, phase))), self.device)
            if count:
                losses[source] = total / count
        return losses

    def _validation_batches(self, source: str, phase: Phase) -> Iterator[Batch]:
        """This rank's share: ranks take micro-batches in turn, and all the same number, as ZeRO 3 needs.

        Where no row is left for a rank, it takes no loss of the last one: attention on GPUs refuses a batch of no rows.
        """
        micro, length, takers = phase.micro_batch, phase.sequence_length, self.layout.data_parallel
        train = self.spec.train
        wanted = -(-train.evaluate_batches * train.global_batch * train.sequence_length // length)
        rows = min(wanted, self.batches.validation(source, length))
        for start in range(0, rows, micro * takers):
            mine = start + self.layout.place(self.rank.rank).data * micro
            first, count = min(mine, rows - 1), max(1, min(micro, rows - mine))
            batch = self.batches.validation_batch(source, length, first, count)
            yield batch if mine < rows else batch.without_loss()

    def _save(self, state: TrainState) -> None:
        self.saver.save(self.engine, state, self._source_tokens(state), self.batches.samples(state.step))

    def _source_tokens(self, state: TrainState) -> dict[str, int]:
        return self.batches.source_tokens(state.step, state.guard.gaps)

    def _leave(self, state: TrainState, saved: int) -> int:
        self.tracker.event("stopping", step=state.step, signal=self.stop.signal or "on another rank")
        if state.step > saved:
            self._save(state)
        self.saver.finish()
        if self.shipping:
            self.shipping.hurry()
        self.tracker.event("end", step=state.step, exit_code=EXIT_RESUME)
        return EXIT_RESUME

    def close(self) -> None:
        """Leave in good order: the tracker's files, the process group, the lock."""
        self.watchdog.stop()
        self.profiler.close()
        self.saver.close()
        self.tracker.close()
        self.engine.close()
        part()
        if self.shipping:
            self.shipping.close()
        self.lock.release()
