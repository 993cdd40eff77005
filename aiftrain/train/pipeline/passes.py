"""One stage at work: carries out DeepSpeed's schedules, instruction by instruction.

DeepSpeed's own PipelineEngine is not used. It numbers layers by itself, which other layouts could not resume from; it
runs a stage's whole backward pass once for every tensor that it hands on, copies twice what it receives, and tells the
shapes of what may change its shape before every tensor. Here every stage reads the batch, so that hidden states alone
travel, in a shape that both sides know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from deepspeed.runtime.pipe import schedule as instructions
from torch import Tensor

from aiftrain.data.batches import Batch
from aiftrain.train.pipeline.handing import Answer
from aiftrain.train.pipeline.neighbours import Neighbours


@dataclass
class MicroBatch:
    """A micro-batch on its way through a stage, number `number` of its step."""

    number: int
    batch: Batch
    handed: Tensor | None = None  # by the stage before: `States`
    output: Tensor | None = None  # for the stage after, the same
    objective: Tensor | None = None
    answer: Answer = field(default_factory=Answer)  # the stage after's, to `output`


@dataclass(frozen=True)
class States:
    """The hidden states that are handed on: this rank's part of each sequence."""

    hidden: int
    dtype: torch.dtype
    sharers: int  # ranks that share out each sequence

    def of(self, batch: Batch) -> tuple[tuple[int, int, int], torch.dtype]:
        """Shape and type of a micro-batch's."""
        rows, length = batch.tokens.shape
        return (rows, length // self.sharers, self.hidden), self.dtype


@dataclass(frozen=True)
class Work:
    """What a stage does besides talking. `forward` sets a micro-batch's output, or its objective, or both."""

    forward: Callable[[MicroBatch], None]
    backward: Callable[[MicroBatch], None] = lambda _: None
    give_back: Callable[[], None] = lambda: None  # the gradient of a tied weight
    update: Callable[[], None] = lambda: None


class Passes:
    """The micro-batches of one step or one evaluation."""

    def __init__(self, batches: Sequence[Batch], work: Work, neighbours: Neighbours, states: States) -> None:
        self._coming = (MicroBatch(number, batch) for number, batch in enumerate(batches))
        self._work, self._neighbours, self._states = work, neighbours, states
        self._under_way: dict[int, MicroBatch] = {}  # by the schedule's number of a buffer
        self._actions: dict[type, Callable[..., None]] = {
            instructions.LoadMicroBatch: self._load,
            instructions.RecvActivation: self._receive,
            instructions.ForwardPass: self._forward,
            instructions.SendActivation: self._hand_on,
            instructions.RecvGrad: self._receive_answer,
            instructions.BackwardPass: self._backward,
            instructions.SendGrad: self._answer,
            instructions.ReduceTiedGrads: work.give_back,
            instructions.ReduceGrads: lambda: None,  # DeepSpeed's engine does it in the last backward pass
            instructions.OptimizerStep: work.update,
        }

    def follow(self, schedule: instructions.PipeSchedule) -> None:
        for at_once in schedule:
            for instruction in at_once:
                self._actions[type(instruction)](**instruction.kwargs)

    def _load(self, buffer_id: int) -> None:
        """The first and the last stage are told to; the others read a micro-batch when its states come."""
        if self._neighbours.stage == 0:
            self._under_way[buffer_id] = next(self._coming)

    def _receive(self, buffer_id: int) -> None:
        micro = self._under_way[buffer_id] = next(self._coming)
        micro.handed = self._neighbours.receive(*self._states.of(micro.batch), self._neighbours.stage - 1)
        micro.handed.requires_grad_(torch.is_grad_enabled())

    def _forward(self, buffer_id: int) -> None:
        self._work.forward(self._under_way[buffer_id])

    def _hand_on(self, buffer_id: int) -> None:
        """What was sent is not kept: the backward pass does not read it."""
        micro = self._under_way[buffer_id]
        assert micro.output is not None
        self._neighbours.send(micro.output.detach(), self._neighbours.stage + 1)
        micro.output = None

    def _receive_answer(self, buffer_id: int) -> None:
        micro = self._under_way[buffer_id]
        micro.answer.gradient = self._neighbours.receive(*self._states.of(micro.batch), self._neighbours.stage + 1)

    def _backward(self, buffer_id: int) -> None:
        self._work.backward(self._under_way[buffer_id])

    def _answer(self, buffer_id: int) -> None:
        micro = self._under_way.pop(buffer_id)
        assert micro.handed is not None and micro.handed.grad is not None
        self._neighbours.send(micro.handed.grad, self._neighbours.stage - 1)
