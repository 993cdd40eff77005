"""The axes on which ranks stand, as process groups, and what DeepSpeed asks of whoever divides a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch.distributed as dist
from torch.distributed import ProcessGroup

from aiftrain.run.layout import ParallelLayout, Place


@dataclass(frozen=True)
class Axis:
    """This rank is number `index` of the `size` ranks of `group`; without a group it is alone."""

    index: int = 0
    size: int = 1
    group: ProcessGroup | None = None

    def share(self, count: int) -> range:
        """What falls to this rank of `count` things that the axis shares out in equal parts."""
        each = count // self.size
        return range(self.index * each, (self.index + 1) * each)


@dataclass(frozen=True)
class Mesh:
    """One rank's axes.

    `data` has the ranks that share out the batch, by sequences or inside them. Of these, `shard` has those that share
    out the states, which DeepSpeed takes for all there are, and `replica` those that hold the same part of them.
    `model` has the ranks that together hold one model: those of a tensor and of a pipeline. Of `data` again, `expert`
    has those that share out the experts, and `same_experts` those that hold the same ones.
    """

    tensor: Axis = Axis()
    sequence: Axis = Axis()
    data: Axis = Axis()
    shard: Axis = Axis()
    replica: Axis = Axis()
    pipeline: Axis = Axis()
    model: Axis = Axis()
    expert: Axis = Axis()
    same_experts: Axis = Axis()

    @property
    def is_plain(self) -> bool:
        """Whether all ranks are data-parallel and share out everything, as DeepSpeed takes it by itself."""
        return self.model.size == self.replica.size == 1

    @property
    def leads(self) -> bool:
        """Whether this rank counts what all ranks that work on the same sequences have alike."""
        return self.tensor.index == self.sequence.index == self.pipeline.index == 0

    @classmethod
    def of(cls, layout: ParallelLayout, rank: int) -> Mesh:
        """Make the groups; every rank of the job has to call this."""
        names = {
            "tensor": ("tensor",),
            "sequence": ("sequence",),
            "data": ("sequence", "data"),
            "pipeline": ("pipeline",),
            "model": ("tensor", "pipeline"),
        }
        axes = {name: list(_groups(layout, of)) for name, of in names.items()}
        axes["shard"], axes["replica"] = _split(axes["data"], layout.shard_group or layout.sharers)
        axes["expert"], axes["same_experts"] = _split(axes["data"], layout.expert_parallel)
        mesh = cls(**{name: _axis(groups, rank) for name, groups in axes.items()})
        if mesh.same_experts.group is None and mesh.expert.size > 1:
            return replace(mesh, same_experts=Axis(group=group_of_one()))
        return mesh


ALONE = Mesh()


def group_of_one() -> ProcessGroup:
    """This rank's own group, for DeepSpeed, which has no word for being alone. All ranks have to call it."""
    group: ProcessGroup = dist.new_subgroups(1)[0]
    return group


def _split(groups: list[list[int]], size: int) -> tuple[list[list[int]], list[list[int]]]:
    """Each group in runs of `size` neighbours, and those that stand at the same place in their runs."""
    runs = [group[i : i + size] for group in groups for i in range(0, len(group), size)]
    return runs, [group[i::size] for group in groups for i in range(size)]


def _axis(groups: list[list[int]], rank: int) -> Axis:
    """The one of the groups that has this rank; all of them have to be made by all ranks."""
    mine = Axis()
    for ranks in groups:
        group = _new_group(ranks)
        if rank in ranks and len(ranks) > 1:
            mine = Axis(ranks.index(rank), len(ranks), group)
    return mine


def _groups(layout: ParallelLayout, axes: tuple[str, ...]) -> Iterator[list[int]]:
    """Ranks that differ in no other coordinate than these."""
    groups: dict[Place, list[int]] = {}
    for rank in range(layout.world_size):
        place = layout.place(rank)
        groups.setdefault(place._replace(**dict.fromkeys(axes, 0)), []).append(rank)
    return iter(groups.values())


def _new_group(ranks: list[int]) -> ProcessGroup | None:
    """Nobody talks alone, and all ranks have a group already."""
    if len(ranks) == 1:
        return None
    if len(ranks) == dist.get_world_size():
        return dist.group.WORLD
    group: ProcessGroup = dist.new_group(ranks)
    return group


class ModelParallelUnit:
    """The mesh in the words of Megatron's `mpu`, by which DeepSpeed asks who shares out what."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._self = group_of_one()

    def get_data_parallel_group(self) -> ProcessGroup:
        return self._mesh.shard.group or self._self

    def get_data_parallel_rank(self) -> int:
        return self._mesh.shard.index

    def get_data_parallel_world_size(self) -> int:
        return self._mesh.shard.size

    def get_model_parallel_group(self) -> ProcessGroup:
        return self._mesh.model.group or self._self

    def get_model_parallel_rank(self) -> int:
        return self._mesh.tensor.index  # it counts what the ranks of a tensor hold alike on the first of them

    def get_model_parallel_world_size(self) -> int:
        return self._mesh.model.size

    def get_tensor_model_parallel_group(self) -> ProcessGroup:
        return self._mesh.tensor.group or self._self

    def get_tensor_model_parallel_rank(self) -> int:
        return self._mesh.tensor.index

    def get_tensor_model_parallel_world_size(self) -> int:
        return self._mesh.tensor.size

    def get_pipeline_model_parallel_group(self) -> ProcessGroup:
        return self._mesh.pipeline.group or self._self

    def get_pipeline_model_parallel_world_size(self) -> int:
        return self._mesh.pipeline.size
