"""The sizes of parameter tensors, without torch, against those of the decoder: each, in order, and by group."""

from __future__ import annotations

import pytest
import torch

from aiftrain.plan.parameters import Shares, expert_sizes, tensor_sizes
from aiftrain.run.model import ModelSpec
from aiftrain.run.optimizer import OptimizerSpec
from aiftrain.train.mesh import Axis, Mesh
from aiftrain.train.model import Decoder
from aiftrain.train.optimizers.build import build
from aiftrain.train.optimizers.gate import Gate

SHAPE = {
    "name": "tiny",
    "vocab_size": 101,
    "hidden_size": 24,
    "intermediate_size": 34,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
}
EXPERTS = {"num_experts": 4, "experts_per_token": 2, "expert_intermediate_size": 10, "dense_layers": 1}
LATENT = {"kv_rank": 8, "nope_dim": 6, "rope_dim": 4, "value_dim": 5}


CHANGES: list[dict[str, object]] = [
    {},
    {"qk_norm": True, "tie_embeddings": True},
    {"norm": "layer", "norm_bias": True, "embedding_norm": True, "positions": "alibi"},
    {"positions": "learned", "max_positions": 16, "mlp": "gelu", "mlp_bias": True, "qkv_bias": True},
    {"mlp": "xielu", "output_bias": True},
    {"moe": EXPERTS},
    {"moe": EXPERTS | {"shared_intermediate_size": 12}, "mlp": "relu2", "mlp_bias": True},
    {"latent": LATENT},
    {"latent": LATENT | {"query_rank": 7}},
]


def titles(changes: dict[str, object]) -> str:
    return ",".join(changes) or "llama"


@pytest.mark.parametrize("changes", CHANGES, ids=titles)
def test_groups_are_the_decoders(changes: dict[str, object]) -> None:
    model = ModelSpec.model_validate(SHAPE | changes)
    with torch.device("meta"):
        decoder = Decoder(model, sequence_length=8)
    settings = OptimizerSpec(name="adamw", lr=1e-3)
    groups = build(settings, decoder, Gate()).param_groups
    sizes = tuple(tuple(parameter.numel() for parameter in group["params"]) for group in groups)
    assert tensor_sizes(model, settings.groups) == sizes
    assert sum(map(sum, sizes)) == model.parameters


@pytest.mark.parametrize("changes", CHANGES, ids=titles)
def test_parts_are_those_of_a_rank(changes: dict[str, object]) -> None:
    """The second of two ranks that share out each matrix, and of two that share out the experts."""
    model = ModelSpec.model_validate(SHAPE | {"vocab_size": 102} | changes)
    with torch.device("meta"):
        decoder = Decoder(model, sequence_length=8, mesh=Mesh(tensor=Axis(1, 2), expert=Axis(1, 2)))
    settings, shares = OptimizerSpec(name="adamw", lr=1e-3), Shares(tensor=2, expert=2)
    found: dict[bool, list[tuple[int, ...]]] = {False: [], True: []}
    for group in build(settings, decoder, Gate()).param_groups:
        found["moe" in group].append(tuple(parameter.numel() for parameter in group["params"]))
    assert list(tensor_sizes(model, settings.groups, shares=shares)) == found[False]
    assert [sizes for sizes in expert_sizes(model, settings.groups, shares=shares) if sizes] == found[True]
