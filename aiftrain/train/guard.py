"""The guard of a run: passes the verdict on each step at the gate, and goes back where that is the answer."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from aiftrain.checkpoint.catalog import Checkpoint
from aiftrain.checkpoint.history import History, Rollback
from aiftrain.errors import AiftrainError
from aiftrain.run.guard import GuardSpec
from aiftrain.train.engine import Engine
from aiftrain.train.rendezvous import agree
from aiftrain.train.snapshot import Checkpoints, TrainState
from aiftrain.train.tracking import Tracker
from aiftrain.train.verdict import Verdict, judge


class Guard:
    """As one rank sees it. Every rank calls every method, and all come to the same."""

    def __init__(
        self, spec: GuardSpec, engine: Engine, checkpoints: Checkpoints, tracker: Tracker, device: torch.device
    ) -> None:
        self._spec, self._engine, self._checkpoints = spec, engine, checkpoints
        self._tracker, self._device = tracker, device
        self._judge: Callable[[], Verdict] | None = None
        self._verdict: Verdict | None = None
        engine.gate.ask = self._applies

    def expect(self, history: History, tokens: float, *, may_overflow: bool = False) -> None:
        """A step of so many tokens begins, after what `history` tells; `may_overflow` as `judge` has it."""
        self._judge, self._verdict = lambda: self._judged(history, tokens, may_overflow), None

    def verdict(self) -> Verdict:
        """On the step at hand, for the gate, or on the last one: DeepSpeed may have dropped it before the gate."""
        assert self._judge is not None
        if self._verdict is None:
            self._verdict = self._judge()
        return self._verdict

    def tell(self, step: int, verdict: Verdict, history: History) -> None:
        """Write down the trouble of a step that was skipped, or applied all the same."""
        name = "spike" if verdict.applies else "skip"
        self._tracker.event(name, step=step, trouble=verdict.trouble, **verdict.numbers(), skipped=history.skipped)

    def go_back(self, state: TrainState, verdict: Verdict, samples: Callable[[int], int]) -> TrainState:
        """To a checkpoint from before the trouble that the step after `state` is in, or no further: AiftrainError.

        `samples` tells how many samples a number of steps takes.
        """
        entry = self._goal(state, verdict)
        before, after = samples(entry.step), samples(state.step + 1)
        rollback = Rollback(
            at_step=state.step,
            to_step=entry.step,
            start=before + state.guard.left_out(before),
            stop=after + state.guard.left_out(samples(state.step)),
            trouble=str(verdict.trouble),
            attempt=self._tracker.attempt,
            time=time.time(),
        )
        made = (*state.guard.rollbacks, rollback)
        told = {"step": state.step + 1, "trouble": verdict.trouble, "to_step": entry.step, **verdict.numbers()}
        samples_left_out = [rollback.start, rollback.stop]
        counts = {"skipped": entry.manifest.guard.skipped if entry.manifest.guard else 0, "rollbacks": len(made)}
        self._tracker.event("rollback", **told, left_out=samples_left_out, **counts)
        return self._checkpoints.roll_back(self._engine, entry, made)

    def _applies(self) -> bool:
        return self.verdict().applies

    def _judged(self, history: History, tokens: float, may_overflow: bool) -> Verdict:
        """Of the sums over all ranks, which are the same everywhere, and no number where one rank has none."""
        loss, norm, ranks = agree([self._engine.loss, self._engine.grad_norm, 1.0], self._device)
        return judge(self._spec, history, loss / tokens, norm / ranks, may_overflow=may_overflow)

    def _goal(self, state: TrainState, verdict: Verdict) -> Checkpoint:
        if verdict.answer == "stop":
            raise self._hopeless(state, verdict, "")
        before = state.step - state.guard.skips_in_row - self._spec.rollback_margin
        entry = self._checkpoints.newest_whole(before)
        if entry is None:
            raise self._hopeless(state, verdict, f"; there is no checkpoint of step {before} or before to go back to")
        made = sum(rollback.to_step == entry.step for rollback in state.guard.rollbacks)
        if made >= self._spec.rollbacks_to_one:
            raise self._hopeless(state, verdict, f"; it went back to step {entry.step} {made} times already")
        return entry

    def _hopeless(self, state: TrainState, verdict: Verdict, why: str) -> AiftrainError:
        step, past = state.step + 1, state.guard
        self._tracker.event("hopeless", step=step, trouble=verdict.trouble, **verdict.numbers())
        return AiftrainError(
            f"step {step} gave {verdict}: training cannot go on from there, after {past.skips_in_row} skipped steps in "
            f"a row and {len(past.rollbacks)} rollbacks{why}. The checkpoints before it are intact. What may help: a "
            "lower optimizer.lr or optimizer.grad_clip; a look at the data that events.jsonl names; "
            "guard.* for what to do and how often"
        )
