"""The state of training as fragments of named parameters, whatever DeepSpeed has made of them.

Every ZeRO stage keeps weights and optimizer state in its own way: whole (0), as slices of flat groups
(1, 2), or as slices of each parameter (3). Here all of them become the same thing: this rank's contiguous
piece of a flattened parameter, with views of the tensors that hold it. Saving reads the views, resuming
writes them, and a checkpoint does not know which stage wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from aiftrain.run.optimizer import AVERAGE
from aiftrain.train.mesh import ALONE, Axis, Mesh
from aiftrain.train.parts import is_expert, is_part, part_of
from aiftrain.train.swapping import as_tensors, in_memory, settle

_AT_ONCE = 2**24  # elements that are copied at one time


@dataclass(frozen=True)
class LiveFragment:
    """`views[state]` is the 1-D tensor that holds elements [start, start + len) of parameter `name`, flattened.

    What several ranks hold alike one of them has `owned`, and saves it. Without ZeRO (stage 0) the ranks of `holders`
    hold it alike, and share out the saving.
    """

    name: str
    start: int
    views: dict[str, Tensor]
    owned: bool = True
    holders: Axis = ALONE.data

    def __len__(self) -> int:
        return self.views["weight"].numel()


@dataclass(frozen=True)
class Slot:
    """Elements [start, start+count) of what this rank holds of a parameter, flattened, lie at [offset, offset+count) of
    `master`, a flat fp32 tensor."""

    name: str
    start: int
    count: int
    master: Tensor
    offset: int


@dataclass(frozen=True)
class Holding:
    """A tensor that the optimizer updates on this rank, of its group number `group`; other ranks of `sharers` have the
    rest of what lies in it at `slots`."""

    master: Tensor
    group: int
    slots: list[Slot]
    sharers: ProcessGroup | None


def holdings(engine: Any) -> Iterator[Holding]:
    """All that the optimizer updates here, in an order that all ranks have."""
    slots: dict[Tensor, list[Slot]] = {}
    for slot in _slots(engine, dict(engine.module.named_parameters())):
        slots.setdefault(slot.master, []).append(slot)
    for number, (master, group) in enumerate(_masters(engine)):
        yield Holding(master, group, slots.get(master, []), _sharers(engine, number))


def live_fragments(engine: Any, mesh: Mesh) -> Iterator[LiveFragment]:
    """What this rank's optimizer holds of each parameter. Together the ranks' fragments cover every parameter."""
    parameters = dict(engine.module.named_parameters())
    tensors = {master: as_tensors(engine, master, _tensors(engine, master)) for master, _ in _masters(engine)}
    for slot in _slots(engine, parameters):
        parameter = parameters[slot.name]
        holders = mesh.same_experts if is_expert(parameter) else mesh.data
        owned = mesh.replica.index == 0 and (mesh.tensor.index == 0 or is_part(parameter))
        for begin, run in part_of(parameter).cut(slot.start, slot.count):
            place = slot.offset + begin - slot.start
            views = {key: tensor.view(-1).narrow(0, place, len(run)) for key, tensor in tensors[slot.master].items()}
            yield LiveFragment(slot.name, run.start, views, owned, holders)


def own_share(fragment: LiveFragment) -> LiveFragment:
    """This rank's share of a fragment that all its holders hold alike (ZeRO stage 0)."""
    begin, end = _share(len(fragment), fragment.holders)
    views = {key: view[begin:end] for key, view in fragment.views.items()}
    return replace(fragment, start=fragment.start + begin, views=views)


@torch.no_grad()
def put_together(engine: Any, mesh: Mesh) -> None:
    """ZeRO stage 0, after every rank has filled its `own_share`: all ranks hold the whole.

    Each share is summed with the others' zeros, byte by byte: a sum of floats would make 0.0 of -0.0.
    """
    for fragment in live_fragments(engine, mesh):
        begin, end = _share(len(fragment), fragment.holders)
        for view in fragment.views.values() if fragment.holders.size > 1 else ():
            view[:begin].zero_()
            view[end:].zero_()
            torch.distributed.all_reduce(view.view(torch.uint8), group=fragment.holders.group)


def optimizer_step_count(engine: Any) -> int:
    """How many steps the optimizer has taken, by its own count (for the bias correction of Adam)."""
    return max((int(state["step"]) for state in _optimizer(engine).state.values()), default=0)


def set_optimizer_step_count(engine: Any, count: int) -> None:
    for state in _optimizer(engine).state.values():
        state["step"].fill_(count)


@torch.no_grad()
def publish_weights(engine: Any) -> None:
    """After the fp32 weights were written: bring the weights that the forward pass uses into line with them.

    The calls are those that each DeepSpeed optimizer makes at the end of its own step.
    """
    zero: Any = engine.optimizer
    stage = engine.zero_optimization_stage()
    if stage in (1, 2):
        zero.update_lp_params()
    elif stage == 3:
        zero._partition_all_parameters()
        for group, master in enumerate(zero.fp32_partitioned_groups_flat):
            settle(engine, master, _tensors(engine, master))
            with in_memory(engine, master, changes=False):
                zero._reassign_or_swap_out_partitioned_parameters(group)
        if zero.persistent_parameters:
            zero.persistent_parameters[0].all_gather(zero.persistent_parameters)
        zero.invalidate_secondary_tensor()


@torch.no_grad()
def swap_average(engine: Any) -> None:
    """Exchange the weights and their average: to work with the average, and again to go back."""
    for master, _ in _masters(engine):
        tensors = as_tensors(engine, master, _tensors(engine, master))
        weights, average = tensors["weight"], tensors[AVERAGE]
        for one, other in zip(weights.view(-1).split(_AT_ONCE), average.view(-1).split(_AT_ONCE), strict=True):
            held = one.clone()
            one.copy_(other)
            other.copy_(held)
    publish_weights(engine)


def _share(length: int, axis: Axis) -> tuple[int, int]:
    return length * axis.index // axis.size, length * (axis.index + 1) // axis.size


def _optimizer(engine: Any) -> Any:
    """Our own optimizer, which that of a ZeRO stage has inside."""
    return engine.optimizer if engine.zero_optimization_stage() == 0 else engine.optimizer.optimizer


def _tensors(engine: Any, master: Tensor) -> dict[str, Tensor]:
    """A tensor that the optimizer updates, and what it keeps of each element, by name."""
    kept = _optimizer(engine).state[master].items()
    return {"weight": master} | {name: tensor for name, tensor in kept if name != "step"}


def _masters(engine: Any) -> Iterator[tuple[Tensor, int]]:
    """The fp32 tensors that the optimizer updates on this rank, each with the number of its group."""
    zero: Any = engine.optimizer
    stage = engine.zero_optimization_stage()
    if stage == 0:
        yield from ((weights, number) for number, group in enumerate(zero.param_groups) for weights in group["params"])
    elif stage == 3:
        for number, master in enumerate(zero.fp32_partitioned_groups_flat):
            yield master, zero.sub_group_to_group_id[number]
    else:
        yield from ((master, number) for number, master in enumerate(_flat_masters(zero)))


def _sharers(engine: Any, number: int) -> ProcessGroup | None:
    """The ranks among which DeepSpeed has shared out what the master of that number has a part of."""
    stage = engine.zero_optimization_stage()
    if stage == 0:
        return None
    zero: Any = engine.optimizer
    group: ProcessGroup = (
        zero._get_sub_group_process_group(number) if stage == 3 else zero.real_dp_process_group[number]
    )
    return group


def _slots(engine: Any, parameters: dict[str, nn.Parameter]) -> Iterator[Slot]:
    slots_of_stage = {0: _whole_slots, 1: _flat_group_slots, 2: _flat_group_slots, 3: _partition_slots}
    return slots_of_stage[engine.zero_optimization_stage()](engine, parameters)


def _whole_slots(_: Any, parameters: dict[str, nn.Parameter]) -> Iterator[Slot]:
    for name, parameter in parameters.items():
        yield Slot(name, 0, parameter.numel(), parameter, 0)


def _flat_group_slots(engine: Any, parameters: dict[str, nn.Parameter]) -> Iterator[Slot]:
    """ZeRO 1 and 2: DeepSpeed links each parameter that reaches into this rank's slice of the flat group."""
    masters = _flat_masters(engine.optimizer)
    for name, parameter in parameters.items():
        link: Any = getattr(parameter, "_hp_mapping", None)
        if link is not None:
            here, there = link.lp_fragment_address, link.hp_fragment_address
            yield Slot(name, here.start, here.numel, masters[link.param_group_index], there.start)


def _flat_masters(zero: Any) -> list[Tensor]:
    """This rank's flat fp32 slice of each group; bf16 with fp32 accumulation has an optimizer class of its own."""
    masters: list[Tensor] = getattr(zero, "single_partition_of_fp32_groups", None) or zero.fp32_groups_flat_partition
    return masters


def _partition_slots(engine: Any, parameters: dict[str, nn.Parameter]) -> Iterator[Slot]:
    """ZeRO 3: each parameter is cut into equal parts, the last one padded."""
    zero: Any = engine.optimizer
    for name, parameter in parameters.items():
        whole: Any = parameter
        part = whole.ds_tensor.ds_numel
        start = part * zero._get_param_partition_rank(whole)
        count = min(part, whole.ds_numel - start)
        if count > 0:
            group, offset, _ = zero.grad_position[zero.get_param_id(whole)]
            yield Slot(name, start, count, zero.fp32_partitioned_groups_flat[group], offset)
