"""Ranks that share out the work of small models, against the whole of each, which every rank computes as well.

A program for four ranks. It leaves parts-RANK.json in the run folder: {"axes: variant": {"difference": the largest of
the losses and any gradient from the whole model's, relative to its largest element, "bytes": handed to all-to-alls}}.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec
from aiftrain.run.rank import read_rank
from aiftrain.train.mesh import Axis, Mesh
from aiftrain.train.model import Decoder
from aiftrain.train.parts import is_expert, part_of
from aiftrain.train.process import RankProcess
from aiftrain.train.traffic import Traffic
from tests.train.references import LENGTH, shaken, spec

MOE: dict[str, float] = {
    "num_experts": 4,
    "experts_per_token": 2,
    "expert_intermediate_size": 16,
    "shared_intermediate_size": 8,
}
MOE |= {"balance_loss": 0.5, "router_z_loss": 0.1}
LATENT = {"query_rank": 24, "kv_rank": 16, "nope_dim": 8, "rope_dim": 4, "value_dim": 6}
CHANGES: dict[str, dict[str, object]] = {
    "grouped queries": {"qk_norm": True, "qkv_bias": True},
    "alibi": {"positions": "alibi", "num_heads": 8, "tie_embeddings": True},
    "learned positions": {"positions": "learned", "max_positions": 32, "norm": "layer", "norm_bias": True},
    "windows, no positions, xielu": {"sliding_window": 9, "global_every": 2, "nope_every": 3, "mlp": "xielu"},
    "latent": {"latent": LATENT, "num_kv_heads": 4},
    "experts": {"moe": MOE | {"dense_layers": 1}, "mlp_bias": True},
    "full experts": {"moe": MOE | {"capacity_factor": 0.9}, "mlp": "gelu"},
}
VARIANTS = {name: spec(vocab_size=102, **changes) for name, changes in CHANGES.items()}
LAYOUTS: dict[str, dict[str, int]] = {
    "sequence 4": {"context_parallel": 4},
    "sequence 2 x tensor 2": {"context_parallel": 2, "tensor_parallel": 2},
    "expert 4": {"context_parallel": 4, "expert_parallel": 4},
    "expert 2": {"context_parallel": 4, "expert_parallel": 2},
    "expert 2 x tensor 2": {"context_parallel": 2, "tensor_parallel": 2, "expert_parallel": 2},
}


def main(arguments: list[str]) -> int:
    folder, rank = RunFolder(arguments[0]), read_rank(os.environ)
    RankProcess(folder, int(os.environ["AIFTRAIN_ATTEMPT"]), rank).begin()
    dist.init_process_group("gloo")
    seen = {}
    for axes, sizes in LAYOUTS.items():
        mesh = Mesh.of(_layout(**sizes), rank.rank)
        for name, shape in variants(axes).items():
            with Traffic() as traffic:
                difference = _difference(shape, mesh)
            seen[f"{axes}: {name}"] = {"difference": difference, "bytes": traffic.bytes["all-to-all"]}
    folder.write_json(folder.path / f"parts-{rank.rank}.json", seen)
    dist.destroy_process_group()
    return 0


def variants(axes: str) -> dict[str, ModelSpec]:
    """What is tried on these axes."""
    return {name: shape for name, shape in VARIANTS.items() if shape.moe or "expert" not in axes}


def _layout(**sizes: Any) -> ParallelLayout:
    common = {"nodes": 1, "ranks_per_node": 4, "world_size": 4, "zero_stage": 0, "micro_batch": 2, "accumulation": 1}
    return ParallelLayout(data_parallel=1, **common, **sizes)


def _difference(shape: ModelSpec, mesh: Mesh) -> float:
    generator = torch.Generator().manual_seed(2)
    tokens, targets = torch.randint(0, 102, (2, 2, LENGTH), generator=generator)
    documents = torch.randint(0, 2, (2, LENGTH), generator=generator).cumsum(-1)
    targets[0, LENGTH // 2 :] = -100  # so that ranks have unequally many
    whole = shaken(Decoder(shape, sequence_length=LENGTH))
    ours = Decoder(shape, sequence_length=LENGTH, mesh=mesh)
    wholes = dict(whole.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(part_of(parameter).of(wholes[name]).view_as(parameter))
    share = mesh.sequence.share(LENGTH)
    own = slice(share.start, share.stop)
    objective, loss = ours(tokens[:, own], targets[:, own], documents)
    expected, expected_loss = whole(tokens, targets, documents)
    objective.backward()
    expected.backward()
    found = {"objective": _sum(objective.detach(), mesh.data), "loss": _sum(loss, mesh.data)}
    theirs = {"objective": expected.detach(), "loss": expected_loss}
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None and wholes[name].grad is not None
        found[name] = _sum(parameter.grad, mesh.same_experts if is_expert(parameter) else mesh.data)
        theirs[name] = part_of(parameter).of(wholes[name].grad).view_as(parameter)
    return max(float((found[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in theirs)


def _sum(value: Tensor, axis: Axis) -> Tensor:
    dist.all_reduce(value, group=axis.group)
    return value
