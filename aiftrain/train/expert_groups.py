"""What DeepSpeed has to know of experts that ranks share out.

It averages their gradients over the ranks that hold the same ones alone, but divides by all that share out the batch:
what an expert learns from other ranks' tokens came to it by all-to-all. Their states are shared out among the same
ranks. It does so by itself for parameters marked as `hold_experts` does, in groups of parameters of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from deepspeed.moe.layer import MoE
from deepspeed.utils import groups
from torch import nn

from aiftrain.train.mesh import Mesh
from aiftrain.train.parts import expert_group_name, is_expert

Group = dict[str, Any]  # of parameters, as torch's optimizers know them


def introduce_experts(model: nn.Module, mesh: Mesh, zero_stage: int) -> None:
    """Before DeepSpeed gets the model: give it the process groups. Call it on all ranks."""
    if mesh.expert.size == 1:
        return
    name = expert_group_name(mesh)
    groups._EXPERT_PARALLEL_GROUP[name] = mesh.expert.group
    groups._EXPERT_DATA_PARALLEL_GROUP[name] = mesh.same_experts.group
    groups.expert_tensor_parallel_world_size = mesh.tensor.size
    if zero_stage < 3:  # stage 3 goes by the marks alone
        model.add_module("sign_of_experts", _Sign(mesh.expert.size))


def with_expert_groups(of_all: Iterable[Group]) -> Iterator[Group]:
    """Each group of parameters, and from each one of its own for experts that ranks share out."""
    for group in of_all:
        for expert in (False, True):
            parameters = [parameter for parameter in group["params"] if is_expert(parameter) == expert]
            own = {"moe": True, "name": parameters[0].group_name} if expert and parameters else {}
            if parameters:
                yield group | own | {"params": parameters}


class _Sign(MoE):  # type: ignore[misc]  # deepspeed has no types
    """DeepSpeed looks for its own layer to learn that there are experts to treat so. This one has no weights."""

    def __init__(self, ranks: int) -> None:
        nn.Module.__init__(self)
        self.num_experts = ranks

    def set_deepspeed_parallelism(self, use_data_before_expert_parallel_: bool = False) -> None:
        """The groups exist already."""
