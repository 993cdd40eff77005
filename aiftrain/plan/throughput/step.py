"""The time of one optimizer step: a stage's micro-batches, the pipeline's bubble, gradients, the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

from aiftrain.plan.layer_traffic import exchanged_size
from aiftrain.plan.stage_layers import stage_layers
from aiftrain.plan.throughput.collectives import Links, overlapped
from aiftrain.plan.throughput.constants import Constants, Stack
from aiftrain.plan.throughput.layer import Device, element_bytes, head_time, layer_time
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.machine import Hardware
from aiftrain.run.model import ModelSpec

_LAUNCH_OVERLAP = 4  # p of a layer's launches and its computation: the longer of the two, nearly
_NEXT_FORWARD = 0.3  # of a micro-batch, while which weights may still arrive for the next step
_OPTIMIZER_BYTES = 30  # a parameter: master, two moments and gradient read, three of them and the weight written


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one optimizer step, by what they are spent on. `tokens` is the global batch's."""

    compute: float
    tensor: float  # what tensor, context and expert parallelism add
    pipeline: float  # waiting for the first and last micro-batches, and handing activations on
    data: float  # what gradients and weights on the network add
    optimizer: float
    overhead: float  # launches, stragglers
    tokens: float
    devices: int

    @property
    def total(self) -> float:
        return self.compute + self.tensor + self.pipeline + self.data + self.optimizer + self.overhead

    @property
    def tokens_per_s_per_device(self) -> float:
        return self.tokens / self.total / self.devices


def mean_time(spans: Sequence[tuple[StepTime, int]]) -> StepTime:
    """The mean step of a run whose steps differ; spans: a step, and how many there are of it."""
    if len(spans) == 1:
        return spans[0][0]
    steps = sum(count for _, count in spans)
    names = [field.name for field in fields(StepTime) if field.name != "devices"]
    means = {name: sum(getattr(time, name) * count for time, count in spans) / steps for name in names}
    return StepTime(devices=spans[0][0].devices, **means)


Kind = tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is counted once of a model: its weights, and the kind of each layer (with experts? with a window?)."""

    model: ModelSpec
    kinds: tuple[Kind, ...]
    non_expert_parameters: int
    expert_parameters: int

    @classmethod
    def of(cls, model: ModelSpec) -> Shape:
        kinds = tuple((model.has_experts(layer), model.has_window(layer)) for layer in range(model.num_layers))
        return cls(model, kinds, model.non_expert_parameters, model.expert_parameters)


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that the time of a step depends on."""

    shape: Shape
    layout: ParallelLayout
    hardware: Hardware
    sequence_length: int
    precision: str
    constants: Constants
    stack: Stack
    travelling: int | None = None  # bytes of a weight and of a gradient; None: as its software has it
    gathers: float = 2.0  # of each weight in a micro-batch of stage 3
    secondary_group: int = 1  # ranks that hold one more copy: all gathers of a step but the first are inside them

    @property
    def model(self) -> ModelSpec:
        return self.shape.model

    @property
    def second_passes(self) -> float:
        """Whole layers that go forward twice, of all. Forward and backward launch three times, and these once more."""
        layout = self.layout
        return layout.recomputed_share(range(self.model.num_layers)) if layout.recompute == "full" else 0.0

    @property
    def element(self) -> int:
        """Bytes of an activation or a travelling weight."""
        return element_bytes(self.precision)


def step_time(setting: Setting) -> StepTime:
    """Raises UnknownFigure."""
    layout, constants = setting.layout, setting.constants
    device = Device.of(setting.hardware, setting.precision, constants, setting.stack)
    links = Links.of(setting.hardware, layout.nodes, constants, setting.stack)
    micro = _micro_batch(setting, device, links)
    count, stages = layout.accumulation, layout.pipeline_parallel
    bubble = (stages - 1) / layout.virtual_stages * micro.total
    handing = 2 * count * _handing_on(setting, links)
    data = _data(setting, links, micro)
    optimizer = _optimizer(setting, device)
    busy = micro.total * count + bubble + handing + data + optimizer
    nodes = max(1, layout.nodes)
    straggling = busy * constants.straggle * max(0, nodes.bit_length() - 1)
    return StepTime(
        compute=micro.compute * count,
        tensor=micro.tensor * count,
        pipeline=bubble + handing,
        data=data,
        optimizer=optimizer,
        overhead=micro.overhead * count + straggling + constants.step_seconds,
        tokens=float(layout.global_batch * setting.sequence_length),
        devices=layout.world_size,
    )


@dataclass(frozen=True, slots=True)
class _MicroBatch:
    """Seconds of one micro-batch on the slowest stage, forward and backward; `parameters` of that stage's rank."""

    compute: float
    backward: float  # of `compute`
    tensor: float
    overhead: float
    parameters: float

    @property
    def total(self) -> float:
        return self.compute + self.tensor + self.overhead

    @property
    def hides_gradients(self) -> float:
        """While gradients and weights may travel: the last backward pass and the beginning of the next step."""
        return min(1.0, self.backward / self.compute + _NEXT_FORWARD) * self.total


def _micro_batch(setting: Setting, device: Device, links: Links) -> _MicroBatch:
    """On the slowest stage; the others wait for it. The last one has the output projection besides its layers."""
    shape, layout = setting.shape, setting.layout
    kinds = {
        (experts, window): _layer(setting, device, links, experts=experts, window=window)
        for experts, window in dict.fromkeys(shape.kinds)
    }
    parameters = _parameters(shape, layout)
    *others, last = (
        [(kinds[kind], count) for kind, count in stage.items()] for stage in stage_layers(shape.kinds, layout)
    )
    head = head_time(setting.model, layout, setting.sequence_length, device)
    stages = [_stage(layers, 0.0, parameters) for layers in others] + [_stage(last, head, parameters)]
    return max(stages, key=attrgetter("total"))


def _stage(layers: Iterable[tuple[_MicroBatch, float]], head: float, parameters: float) -> _MicroBatch:
    """So many layers of each kind, one after another."""
    compute, backward, tensor, overhead = head, 0.0, 0.0, 0.0
    for one, count in layers:
        compute += count * one.compute
        backward += count * one.backward
        tensor += count * one.tensor
        overhead += count * one.overhead
    return _MicroBatch(compute, backward, tensor, overhead, parameters)


def _layer(setting: Setting, device: Device, links: Links, *, experts: bool, window: bool) -> _MicroBatch:
    """One layer: what it computes, what its launches add, and what its collectives add to both."""
    constants = setting.constants
    one = layer_time(
        setting.model,
        setting.layout,
        setting.sequence_length,
        device,
        constants,
        setting.stack,
        experts=experts,
        window=window,
    )
    compute = one.forward + one.backward
    launching = constants.layer_seconds * setting.stack.launches * (1 + setting.second_passes / 3)
    launched = overlapped(compute, launching, _LAUNCH_OVERLAP)
    talking = overlapped(launched, _layer_traffic(setting, links), constants.tensor_overlap)
    if experts:
        talking = overlapped(talking, _expert_traffic(setting, links), constants.expert_overlap)
    return _MicroBatch(compute, one.backward, talking - launched, launched - compute, 0.0)


def _parameters(shape: Shape, layout: ParallelLayout) -> float:
    """Weights that one rank of a pipeline stage works with."""
    split = layout.tensor_parallel * layout.pipeline_parallel
    return shape.non_expert_parameters / split + shape.expert_parameters / (
        layout.pipeline_parallel * layout.expert_parallel
    )


def _layer_traffic(setting: Setting, links: Links) -> float:
    """Seconds of one layer's tensor- and context-parallel collectives, forward and backward."""
    model, layout = setting.model, setting.layout
    tensor, context = layout.tensor_parallel, layout.context_parallel
    tokens = layout.micro_batch * setting.sequence_length / context
    hidden = setting.element * tokens * model.hidden_size
    # Four all-reduces a layer, each a reduce-scatter and an all-gather.
    rounds = (4 + setting.stack.talk.sums_again * setting.second_passes) * 2
    time = rounds * links.gather(hidden, tensor)
    if context > 1 and setting.stack.talk.exchanges_heads:
        heads = setting.element * tokens * exchanged_size(model, tensor, context)
        time += (2 + setting.second_passes) * links.exchange(heads, context, stride=tensor)
    elif context > 1:
        keys = setting.element * tokens * 2 * model.kv_size / tensor
        time += 3 * links.gather(keys * context, context, tensor)  # keys and values round the ring, gradients back
    return time


def _expert_traffic(setting: Setting, links: Links) -> float:
    """Seconds of one layer's all-to-alls: to the experts and back, forward and backward."""
    model, layout = setting.model, setting.layout
    moe = model.moe
    assert moe is not None
    senders = layout.context_parallel * (1 if setting.stack.talk.sends_all else layout.tensor_parallel)
    tokens = layout.micro_batch * setting.sequence_length / senders
    size = setting.element * tokens * moe.experts_per_token * model.hidden_size
    rounds = 4 + 2 * setting.second_passes
    choices = moe.experts_per_token if setting.stack.sends_once else None
    return rounds * links.exchange(size, layout.expert_parallel, choices)


def _handing_on(setting: Setting, links: Links) -> float:
    """Seconds that a stage waits for one micro-batch's activations from its neighbour."""
    layout = setting.layout
    if layout.pipeline_parallel == 1:
        return 0.0
    tokens = layout.micro_batch * setting.sequence_length / layout.context_parallel
    size = setting.element * tokens * setting.model.hidden_size / layout.tensor_parallel
    stride = layout.tensor_parallel * layout.context_parallel * layout.data_parallel
    return layout.virtual_stages * links.send(size, stride) * 0.5


def _data(setting: Setting, links: Links, micro: _MicroBatch) -> float:
    """What the exchange of gradients and weights adds to the step."""
    layout, constants = setting.layout, setting.constants
    group = layout.data_parallel * layout.context_parallel
    if group == 1:
        return 0.0
    stride = layout.tensor_parallel
    weights = (setting.travelling or setting.element) * micro.parameters
    width = setting.travelling or max(setting.element, setting.stack.gradient_bytes)
    gradients = width * micro.parameters
    if layout.zero_stage == 3:
        total = _sharing_everything(setting, links, weights, gradients)
        computing = micro.total * layout.accumulation
        return overlapped(computing, total, constants.data_overlap) - computing
    # DeepSpeed's stage 2 has no place for whole gradients and shares them out after every micro-batch.
    rounds = layout.accumulation if layout.zero_stage == 2 else 1
    hiding = micro.hides_gradients * rounds
    sums = rounds * (2 if layout.zero_stage and setting.stack.talk.all_reduces else 1)
    total = sums * links.gather(gradients, group, stride) + links.gather(weights, group, stride)
    return overlapped(hiding, total, constants.data_overlap) - hiding


def _sharing_everything(setting: Setting, links: Links, weights: float, gradients: float) -> float:
    """Seconds of a step of stage 3: weights before their use, gradients, layer by layer; gradients over replicas."""
    layout, stride = setting.layout, setting.layout.tensor_parallel
    group = layout.data_parallel * layout.context_parallel
    sharing = min(layout.shard_group or group, group)
    layers = -(-setting.model.num_layers // layout.pipeline_parallel)  # each is gathered by itself
    rounds = setting.gathers * layout.accumulation
    far = 1.0 if setting.secondary_group > 1 else rounds
    time = far * links.gather(weights / layers, sharing, stride)
    time += (rounds - far) * links.gather(weights / layers, setting.secondary_group, stride)
    time += layout.accumulation * links.gather(gradients / layers, sharing, stride)
    across = 2 * links.gather(gradients / sharing, group // sharing, stride * sharing)
    return layers * time + across


def _optimizer(setting: Setting, device: Device) -> float:
    layout = setting.layout
    group = layout.data_parallel * layout.context_parallel
    own = _parameters(setting.shape, layout) / (group if layout.zero_stage else 1)
    return _OPTIMIZER_BYTES * own / device.memory
