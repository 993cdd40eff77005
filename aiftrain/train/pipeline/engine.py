"""The engine of one stage of a pipeline: to the loop it is like any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from deepspeed.runtime.pipe.schedule import InferenceSchedule, TrainSchedule
from torch import Tensor

from aiftrain.data.batches import Batch
from aiftrain.run.layout import Execution
from aiftrain.run.spec import RunSpec
from aiftrain.train.engine import Engine
from aiftrain.train.mesh import Mesh
from aiftrain.train.model import Decoder, full_shapes
from aiftrain.train.pipeline.handing import handed_on
from aiftrain.train.pipeline.neighbours import Neighbours
from aiftrain.train.pipeline.passes import MicroBatch, Passes, States, Work
from aiftrain.train.pipeline.tied import Borrower, Lender


class PipelinedEngine(Engine):
    """Trains the layers of one stage. The last stage takes the loss, and every stage its layers' part of the objective.

    One forward, one backward: a stage holds at most as many micro-batches as stages follow it, and its own.
    """

    def __init__(
        self, spec: RunSpec, execution: Execution, config: dict[str, Any], device: torch.device, mesh: Mesh
    ) -> None:
        super().__init__(spec, execution, config, device, mesh)
        self._neighbours = Neighbours(mesh.pipeline, device)
        dtype = next(self.model.parameters()).dtype
        self._states = States(spec.model.hidden_size, dtype, mesh.sequence.size)
        self._lender = Lender(self.model, self._neighbours) if self._ties and self.model.is_first else None
        self._borrower = Borrower(self.model, self._neighbours) if self._ties and self.model.is_last else None
        self._share_tied()

    def shapes(self) -> dict[str, list[int]]:
        """The whole shape of every parameter, of those on other stages as well."""
        with torch.device("meta"):
            return dict(full_shapes(Decoder(self.model.spec, sequence_length=1)))

    def resumed(self, optimizer_steps: int) -> None:
        super().resumed(optimizer_steps)
        self._share_tied()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        with super().averaged():
            self._share_tied()
            yield
        self._share_tied()

    def _passes(self, batches: Sequence[Batch], scale: float) -> None:
        work = Work(
            forward=partial(self._train_forward, scale),
            backward=partial(self._train_backward, len(batches) - 1),
            give_back=self._borrower.give_back if self._borrower else lambda: None,
            update=self._update,
        )
        schedule = TrainSchedule(len(batches), self._neighbours.stages, self._neighbours.stage)
        self._follow(schedule, batches, work)
        self._share_tied()

    def _validation_loss(self, batches: Sequence[Batch]) -> Tensor:
        total = torch.zeros((), device=self.device)
        schedule = InferenceSchedule(len(batches), self._neighbours.stages, self._neighbours.stage)
        self._follow(schedule, batches, Work(forward=partial(self._evaluate_forward, total)))
        return total

    def _follow(self, schedule: Any, batches: Sequence[Batch], work: Work) -> None:
        Passes(batches, work, self._neighbours, self._states).follow(schedule)

    def _train_forward(self, scale: float, micro: MicroBatch) -> None:
        with nullcontext() if micro.number else self.first_forward.timing():
            first, second = self._forward(micro.batch, micro.handed)
        if self.model.is_last:
            micro.objective = first * scale
            self._loss += second
            return
        micro.output, micro.objective = first, handed_on(first, micro.answer)
        if second is not None:
            micro.objective = micro.objective + second * scale

    def _train_backward(self, last: int, micro: MicroBatch) -> None:
        assert micro.objective is not None
        if micro.number < last:
            self._backward(micro.objective, last=False)
            self._update()  # for DeepSpeed to count; the schedule says when the real one comes
        else:
            given_back = self._lender.given_back() if self._lender else 0.0
            self._backward(micro.objective + given_back, last=True)
        micro.objective = None

    def _evaluate_forward(self, total: Tensor, micro: MicroBatch) -> None:
        first, second = self._forward(micro.batch, micro.handed)
        if self.model.is_last:
            total += second
        else:
            micro.output = first

    def _share_tied(self) -> None:
        """Where the table of tokens is lent out, its weights go to the borrower."""
        for side in (self._lender, self._borrower):
            if side is not None:
                side.share()

    @property
    def _ties(self) -> bool:
        return self.model.spec.tie_embeddings
