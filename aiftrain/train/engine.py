"""The engine: model, optimizer and DeepSpeed behind the few things that the loop needs of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import deepspeed
import torch
from torch import Tensor

from aiftrain.data.batches import Batch
from aiftrain.run.layout import Execution, ParallelLayout
from aiftrain.run.spec import RunSpec
from aiftrain.run.timeline import Phase
from aiftrain.train import fragments
from aiftrain.train.clip import clip_gradients
from aiftrain.train.compiling import compile_layers, compile_model
from aiftrain.train.expert_groups import introduce_experts
from aiftrain.train.experts import passed_by
from aiftrain.train.fp8 import use_fp8
from aiftrain.train.fragments import LiveFragment
from aiftrain.train.kernels import Site, choose
from aiftrain.train.mesh import Mesh, ModelParallelUnit
from aiftrain.train.model import Decoder, full_shapes, initialise
from aiftrain.train.optimizers.build import build, prepare
from aiftrain.train.optimizers.gate import Gate
from aiftrain.train.precision import TYPES, compute_in
from aiftrain.train.profile.marks import mark
from aiftrain.train.recompute import runner
from aiftrain.train.rendezvous import agree
from aiftrain.train.replicas import average_over_replicas
from aiftrain.train.stragglers import Stopwatch
from aiftrain.train.swapping import remove_files


class Engine:
    """Trains one rank's part of a run. Losses are sums over tokens, in nats; over all ranks each token counts once."""

    def __init__(
        self, spec: RunSpec, execution: Execution, config: dict[str, Any], device: torch.device, mesh: Mesh
    ) -> None:
        """`config` is what DeepSpeed is given: the content of deepspeed.json."""
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        self.layout, self.mesh = execution.layout, mesh
        self.device = device
        self._config = config
        self.first_forward = Stopwatch(device)  # of each step: the first micro-batch's forward pass
        precision = execution.precision
        self.scales_losses = precision == "fp16"  # and wants to be told by how much
        self._document_mask = spec.data.document_mask
        # Without ZeRO, DeepSpeed clips but keeps the norm to itself; deepspeed.json then leaves clipping to us.
        self._clips = self.layout.zero_stage == 0
        self._max_norm = spec.optimizer.grad_clip or math.inf
        self._norm: Tensor | None = None  # of the last step's gradients, as `_clip` found it
        self._loss = torch.zeros((), device=device)  # of the last step, as far as this rank takes it
        self._own_loss_scale = 1.0  # where DeepSpeed knows of none
        self.gate = Gate()  # may stop an update; `loss` and `grad_norm` are then known
        unit = None if mesh.is_plain else ModelParallelUnit(mesh)
        model = _build(spec, self.layout, config, device, mesh, unit)
        if spec.train.fp8 != "none":
            use_fp8(model, spec.train.fp8)
        self.attention = choose(Site.of(spec, precision, device), spec.train.attention)
        model.kernel = self.attention.kernel
        if precision != "fp32" and precision not in config:
            compute_in(TYPES[precision], model, device)
        if spec.train.compile:
            compile_model(model, spec.train.recompute)
        introduce_experts(model, mesh, self.layout.zero_stage)
        self._compiled, self._recompute = spec.train.compile, spec.train.recompute
        self._positions: tuple[int, float] | None = None
        optimizer = build(spec.optimizer, model, self.gate)
        self._engine: Any = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=config,
            dist_init_required=False,
            mpu=unit,
        )[0]
        prepare(optimizer, self._engine, spec.model)

    @property
    def model(self) -> Decoder:
        module: Decoder = self._engine.module
        return module

    def enter(self, phase: Phase) -> None:
        """Be ready for the sequence length, the rotary base and the recomputation of a phase of the run."""
        positions = (phase.sequence_length, phase.rope_theta)
        if positions != self._positions:
            if self._compiled and self._positions:
                torch.compiler.reset()  # else a second shape is compiled otherwise than in a run that resumes with it
            self.model.set_positions(*positions)
            self._positions = positions
        if phase.recompute != self._recompute:
            self.model.run_layer = runner(phase.recompute)
            if self._compiled:
                compile_layers(self.model, phase.recompute)
            self._recompute = phase.recompute

    def step(self, batches: Sequence[Batch], lr: float, tokens: float, loss_scale: float = 1.0) -> tuple[float, float]:
        """One optimizer step over this rank's micro-batches, on each rank as many.

        `tokens` is how many tokens of the whole global batch carry a loss; it makes every token weigh the same,
        however they fall to ranks and micro-batches. `loss_scale` multiplies the losses of an fp16 run on their way to
        the gradients. Gives this rank's summed loss and the global gradient norm, neither of them scaled.
        """
        self._set_lr(lr)
        self._set_loss_scale(loss_scale)
        self.gate.next_step()
        for count in passed_by(self.model):
            count.zero_()
        # DeepSpeed averages over ranks; what we want is the sum over tokens / tokens.
        scale = self._own_loss_scale * self.layout.sharers / tokens
        self._loss = torch.zeros((), device=self.device)
        self._engine.train()
        self._passes(list(batches), scale)
        self._forget_dropped_gradients()
        return self.loss, self.grad_norm

    def _passes(self, batches: Sequence[Batch], scale: float) -> None:
        """All micro-batches of a step, forward and backward, and the update."""
        for number, batch in enumerate(batches):
            with nullcontext() if number else self.first_forward.timing():
                objective, plain = self._forward(batch)
            self._loss += plain
            self._backward(objective * scale, last=number == len(batches) - 1)
            self._update()

    @property
    def loss(self) -> float:
        """This rank's sum over the last step's tokens; for the gate, over those of the step at hand."""
        return self._counted(self._loss)

    @property
    def grad_norm(self) -> float:
        """Of the last step's gradients, all together, before clipping; for the gate, of the step at hand."""
        return float(self._engine.optimizer._global_grad_norm if self._norm is None else self._norm)

    def routing(self) -> dict[str, float]:
        """For the record: of the last step's choices of experts, the share that found no room."""
        moe = self.model.spec.moe
        if moe is None or moe.capacity_factor is None:
            return {}
        counts = [count.tolist() for count in passed_by(self.model)]  # a stage of a pipeline may have no such layer
        dropped, of = agree([sum(each) for each in zip([0, 0], *counts, strict=True)], self.device)
        return {"dropped": dropped / of}

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> tuple[float, int]:
        """This rank's summed loss, and the number of tokens that carry one."""
        self._engine.eval()
        batches = list(batches)
        count = sum(batch.valid_tokens for batch in batches)
        return self._counted(self._validation_loss(batches)), count if self.mesh.leads else 0

    def _validation_loss(self, batches: Sequence[Batch]) -> Tensor:
        total = torch.zeros((), device=self.device)
        for batch in batches:
            total += self._forward(batch)[1]
        return total

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the weights are their moving average."""
        self.gate.before_change()
        fragments.swap_average(self._engine)
        try:
            yield
        finally:
            fragments.swap_average(self._engine)

    def fragments(self) -> Iterator[LiveFragment]:
        """This rank's part of weights and optimizer state; the `owned` ones of all ranks are the whole, once."""
        for fragment in fragments.live_fragments(self._engine, self.mesh):
            yield fragments.own_share(fragment) if self.layout.zero_stage == 0 else fragment

    def shapes(self) -> dict[str, list[int]]:
        """The whole shape of every parameter."""
        return dict(full_shapes(self.model))

    @property
    def optimizer_steps(self) -> int:
        return fragments.optimizer_step_count(self._engine)

    def resumed(self, optimizer_steps: int) -> None:
        """After every rank has filled its `fragments`: make the state consistent."""
        if self.layout.zero_stage == 0:
            fragments.put_together(self._engine, self.mesh)
        fragments.set_optimizer_step_count(self._engine, optimizer_steps)
        fragments.publish_weights(self._engine)

    def close(self) -> None:
        """After the last step: what lies on the node's disk is removed."""
        remove_files(self._config, torch.distributed.get_rank())

    def _counted(self, total: Tensor) -> float:
        """The ranks of a tensor have the same loss: one counts it. The others still tell of one that is no number."""
        return float(total) * (self.mesh.tensor.index == 0)

    def _forward(self, batch: Batch, handed: Tensor | None = None) -> Any:
        """The summed losses (objective, plain); of a stage of a pipeline, what the model says."""
        own = self.mesh.sequence.share(batch.tokens.shape[1])
        mine = slice(own.start, own.stop)
        tokens, targets = (torch.from_numpy(array[:, mine]).to(self.device) for array in (batch.tokens, batch.targets))
        documents = torch.from_numpy(batch.documents) if self._document_mask else None
        return self._engine(tokens, targets, documents, handed)

    def _backward(self, objective: Tensor, *, last: bool) -> None:
        """How many micro-batches make a step changes on the way, so we tell DeepSpeed which is the `last`."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(objective, scale_wrt_gas=False)

    def _update(self) -> None:
        """The update, after a step's last micro-batch; after the others DeepSpeed counts."""
        boundary = self._engine.is_gradient_accumulation_boundary()
        if self.mesh.replica.size > 1 and boundary:
            average_over_replicas(self._engine, self.mesh.replica)
        if self._clips and boundary:
            self._norm = self._clip()
        with mark("optimizer"):
            self._engine.step()

    def _set_lr(self, lr: float) -> None:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr

    def _set_loss_scale(self, loss_scale: float) -> None:
        """With ZeRO, DeepSpeed multiplies losses by it, and divides gradients and their norm."""
        if not self.scales_losses:
            return
        if self.layout.zero_stage:
            self._engine.optimizer.override_loss_scale(loss_scale)
        else:
            self._own_loss_scale = loss_scale

    def _forget_dropped_gradients(self) -> None:
        """After a step that DeepSpeed dropped because gradients were no numbers.

        With an optimizer in the node's memory it keeps their sums, and would add those of the next step to them.
        """
        zero = self._engine.optimizer
        if self.layout.zero_stage in (1, 2) and zero.overflow:
            for group in getattr(zero, "averaged_gradients", ()):
                zero.averaged_gradients[group] = None

    def _clip(self) -> Tensor:
        """Clip the averaged gradients and give their norm before clipping."""
        return clip_gradients(self.model.parameters(), self._max_norm, self.mesh, self._own_loss_scale)


def _build(
    spec: RunSpec,
    layout: ParallelLayout,
    config: dict[str, Any],
    device: torch.device,
    mesh: Mesh,
    unit: ModelParallelUnit | None,
) -> Decoder:
    """The model with its first weights; under ZeRO 3 no rank ever holds it whole."""
    with _cut_up(config, unit) if layout.zero_stage == 3 else nullcontext():
        model = Decoder(
            spec.model,
            sequence_length=spec.train.sequence_length,
            loss_chunk=spec.train.loss_chunk,
            recompute=layout.recompute,
            recompute_every=layout.recompute_every,
            mesh=mesh,
            layers=layout.layers(mesh.pipeline.index, spec.model.num_layers),
        )
    initialise(model, spec.seed)
    return model.to(device)


def _cut_up(config: dict[str, Any], unit: ModelParallelUnit | None) -> AbstractContextManager[object]:
    """Where parameters are shared out as soon as they are made."""
    group = unit.get_data_parallel_group() if unit else None
    sharing: AbstractContextManager[object] = deepspeed.zero.Init(
        data_parallel_group=group, config_dict_or_path=config, mpu=unit
    )
    return sharing
