"""The engine: model, optimizer and DeepSpeed behind the few things that the loop needs of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import deepspeed
import torch
from torch import Tensor

from aiftrain.data.batches import Batch
from aiftrain.run.layout import Execution, ParallelLayout
from aiftrain.run.spec import Recompute, RunSpec
from aiftrain.train import fragments, loss
from aiftrain.train.fragments import LiveFragment
from aiftrain.train.model import Decoder, decayed_and_not, full_shapes, initialise
from aiftrain.train.stragglers import Stopwatch


class Engine:
    """Trains one rank's part of a run. Losses are sums over tokens, in nats."""

    def __init__(self, spec: RunSpec, execution: Execution, config: dict[str, Any], device: torch.device) -> None:
        """`config` is what DeepSpeed is given: the content of deepspeed.json."""
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        self.layout = execution.layout
        self.device = device
        self.first_forward = Stopwatch(device)  # of each step: the first micro-batch's forward pass
        self._autocast = execution.precision == "bf16" and "bf16" not in config
        self._document_mask = spec.data.document_mask
        # Without ZeRO, DeepSpeed clips but keeps the norm to itself; deepspeed.json then leaves clipping to us.
        self._clips = self.layout.zero_stage == 0
        self._max_norm = spec.optimizer.grad_clip or math.inf
        model = _build(spec, self.layout, config, device)
        if spec.train.compile:
            _compile(model, spec.train.recompute)
        self._engine: Any = deepspeed.initialize(
            model=model, optimizer=_optimizer(spec, model, device), config=config, dist_init_required=False
        )[0]

    @property
    def model(self) -> Decoder:
        module: Decoder = self._engine.module
        return module

    def step(self, batches: Iterable[Batch], lr: float, tokens: float) -> tuple[float, float]:
        """One optimizer step over this rank's micro-batches.

        `tokens` is how many tokens of the whole global batch carry a loss; it makes every token weigh the same,
        however they fall to ranks and micro-batches. Gives this rank's summed loss and the global gradient norm.
        """
        self._set_lr(lr)
        # DeepSpeed averages over micro-batches and ranks; what we want is the sum over tokens / tokens.
        scale = self.layout.accumulation * self.layout.data_parallel / tokens
        total = torch.zeros((), device=self.device)
        self._engine.train()
        for number, batch in enumerate(batches):
            with nullcontext() if number else self.first_forward.timing():
                objective, plain = self._losses(batch)
            self._engine.backward(objective * scale)
            norm = self._clip() if self._clips and self._engine.is_gradient_accumulation_boundary() else None
            self._engine.step()
            total += plain
        return float(total), float(self._engine.get_global_grad_norm() if norm is None else norm)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> tuple[float, int]:
        """This rank's summed loss, and the number of tokens that carry one."""
        self._engine.eval()
        total, count = torch.zeros((), device=self.device), 0
        for batch in batches:
            total += self._losses(batch)[1]
            count += batch.valid_tokens
        return float(total), count

    def fragments(self) -> Iterator[LiveFragment]:
        """This rank's part of weights and optimizer state; together the ranks' parts are the whole, once."""
        for fragment in fragments.live_fragments(self._engine):
            if self.layout.zero_stage == 0:
                fragment = fragments.owned_part(fragment, torch.distributed.get_rank(), self.layout.world_size)
            yield fragment

    def shapes(self) -> dict[str, list[int]]:
        """The whole shape of every parameter."""
        return dict(full_shapes(self.model))

    @property
    def optimizer_steps(self) -> int:
        return fragments.optimizer_step_count(self._engine)

    def resumed(self, optimizer_steps: int) -> None:
        """After every rank has filled its `fragments`: make the state consistent."""
        if self.layout.zero_stage == 0:
            fragments.put_together(self._engine, torch.distributed.get_rank(), self.layout.world_size)
        fragments.set_optimizer_step_count(self._engine, optimizer_steps)
        fragments.publish_weights(self._engine)

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        tokens, targets, documents = (
            torch.from_numpy(array).to(self.device) for array in (batch.tokens, batch.targets, batch.documents)
        )
        with self._precision():
            objective, plain = self._engine(tokens, targets, documents if self._document_mask else None)
        return objective, plain

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self._autocast else nullcontext()

    def _set_lr(self, lr: float) -> None:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr

    def _clip(self) -> Tensor:
        """Clip the averaged gradients and give their norm before clipping."""
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._max_norm)


def _build(spec: RunSpec, layout: ParallelLayout, config: dict[str, Any], device: torch.device) -> Decoder:
    """The model with its first weights; under ZeRO 3 no rank ever holds it whole."""
    with deepspeed.zero.Init(config_dict_or_path=config, enabled=layout.zero_stage == 3):
        model = Decoder(
            spec.model,
            sequence_length=spec.train.sequence_length,
            loss_chunk=spec.train.loss_chunk,
            recompute=layout.recompute,
        )
    initialise(model, spec.seed)
    return model.to(device)


def _optimizer(spec: RunSpec, model: Decoder, device: torch.device) -> torch.optim.Optimizer:
    settings = spec.optimizer
    decayed, free = decayed_and_not(model)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def _compile(model: Decoder, recompute: Recompute) -> None:
    """Compile one layer and use it for all: their code is the same, so the wait is one layer's.

    To selective recomputation a compiled layer would be a single operator; there the two are compiled together.
    """
    if recompute == "selective":
        model.run_layer = torch.compile(model.run_layer)
    else:
        for layer in model.layers:
            layer.compile()
    loss.loss_and_gradient = torch.compile(loss.loss_and_gradient)
