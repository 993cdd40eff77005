"""The sizes of parameter tensors, without torch, against those of the decoder: each, in order, and by group."""

from __future__ import annotations

import pytest
import torch

from aiftrain.plan.parameters import tensor_sizes
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import OptimizerSpec
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


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qk_norm": True, "tie_embeddings": True},
        {"norm": "layer", "norm_bias": True, "embedding_norm": True, "positions": "alibi"},
        {"positions": "learned", "max_positions": 16, "mlp": "gelu", "mlp_bias": True, "qkv_bias": True},
        {"mlp": "xielu", "output_bias": True},
        {"moe": EXPERTS},
        {"moe": EXPERTS | {"shared_intermediate_size": 12}, "mlp": "relu2", "mlp_bias": True},
        {"latent": LATENT},
        {"latent": LATENT | {"query_rank": 7}},
    ],
    ids=lambda changes: ",".join(changes) or "llama",
)
def test_groups_are_the_decoders(changes: dict[str, object]) -> None:
    model = ModelSpec.model_validate(SHAPE | changes)
    with torch.device("meta"):
        decoder = Decoder(model, sequence_length=8)
    settings = OptimizerSpec(name="adamw", lr=1e-3)
    groups = build(settings, decoder, Gate()).param_groups
    sizes = tuple(tuple(parameter.numel() for parameter in group["params"]) for group in groups)
    assert tensor_sizes(model, settings.groups) == sizes
    assert sum(map(sum, sizes)) == model.parameters
