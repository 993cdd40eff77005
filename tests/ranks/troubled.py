"""A rank of a run that meets trouble on purpose, as the variable TROUBLE says, a JSON object:

    nan_loss, nan_gradient    steps (from 0) in which rank 1, and no other, has NaN for a loss or in its gradients
    without                   [start, stop): samples that the order does not have, from the start
    dies                      "before rollback", "in rollback", "after skip": where rank 0 is killed

It leaves states-RANK.jsonl in the run folder: for each step a digest of all that the rank holds, after it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from aiftrain.checkpoint import rollbacks
from aiftrain.data.batches import Batch
from aiftrain.data.gaps import Gap
from aiftrain.data.order import SampleOrder, Samples
from aiftrain.data.shuffle import Numbers
from aiftrain.run.folder import RunFolder, append_line
from aiftrain.train import __main__ as trainer
from aiftrain.train import snapshot
from aiftrain.train.engine import Engine
from aiftrain.train.guard import Guard
from aiftrain.train.loop import Trainer

_TROUBLE: dict[str, Any] = {}
_RANK = 0
_at_step = 0


def main(arguments: list[str]) -> int:
    global _RANK
    _TROUBLE.update(json.loads(os.environ.get("TROUBLE", "{}")))
    _RANK = int(os.environ["RANK"])
    _spoil_numbers()
    _write_states(RunFolder(arguments[0]))
    if "without" in _TROUBLE:
        _shorten_order(*_TROUBLE["without"])
    if _RANK == 0:
        _arrange_death()
    return trainer.main(arguments)


def _spoil_numbers() -> None:
    whole, reading = Engine._forward, Trainer._read

    def forward(engine: Engine, batch: Batch, handed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        objective, plain = whole(engine, batch, handed)
        if _RANK == 1 and objective.requires_grad and _at_step in _TROUBLE.get("nan_gradient", []):
            objective.register_hook(lambda gradient: gradient * math.nan)
        if _RANK == 1 and objective.requires_grad and _at_step in _TROUBLE.get("nan_loss", []):
            plain = plain * math.nan
        return objective, plain

    def read(self: Trainer, state: Any) -> Any:
        global _at_step
        _at_step = state.step
        return reading(self, state)

    Engine._forward, Trainer._read = forward, read  # type: ignore[method-assign, assignment]


def _write_states(folder: RunFolder) -> None:
    step = Engine.step

    def and_write(engine: Engine, *arguments: Any) -> tuple[float, float]:
        result = step(engine, *arguments)
        digest = hashlib.sha256()
        for tensor in _held(engine):
            digest.update(tensor.detach().contiguous().flatten().view(-1).float().numpy().tobytes())
        append_line(folder.path / f"states-{_RANK}.jsonl", {"step": _at_step, "state": digest.hexdigest()})
        return result

    Engine.step = and_write  # type: ignore[method-assign, assignment]


def _held(engine: Engine) -> list[Tensor]:
    """Weights as the forward pass has them, whole or this rank's part; masters; optimizer state."""
    weights = [getattr(parameter, "ds_tensor", parameter) for parameter in engine.model.parameters()]
    views = [view for fragment in engine.fragments() for view in fragment.views.values()]  # makes what is not there yet
    inner = getattr(engine._engine.optimizer, "optimizer", engine._engine.optimizer)
    return [*weights, *views, *(tensor for state in inner.state.values() for tensor in state.values())]


def _shorten_order(start: int, stop: int) -> None:
    samples, counts = SampleOrder.samples, SampleOrder.counts

    def without(order: SampleOrder, first: int, count: int, skipped: int = 0) -> Samples:
        assert not skipped
        if first >= start:
            return samples(order, first + stop - start, count)
        assert first + count <= start
        return samples(order, first, count)

    def counted(order: SampleOrder, number: int, gaps: Sequence[Gap] = ()) -> list[Numbers]:
        assert not gaps
        if number <= start:
            return counts(order, number)
        all_of, before, after = (counts(order, end)[0] for end in (number + stop - start, start, stop))
        return [all_of - (after - before)]

    SampleOrder.samples, SampleOrder.counts = without, counted  # type: ignore[method-assign, assignment]


def _arrange_death() -> None:
    write, tell = rollbacks.write_rollbacks, Guard.tell

    def write_and_die(*arguments: Any) -> None:
        if _TROUBLE["dies"] == "in rollback":
            write(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    def tell_and_die(*arguments: Any) -> None:
        tell(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    if _TROUBLE.get("dies") in ("before rollback", "in rollback"):
        vars(snapshot)["write_rollbacks"] = write_and_die
    if _TROUBLE.get("dies") == "after skip":
        Guard.tell = tell_and_die  # type: ignore[method-assign, assignment]
