"""The formulas for activations against what torch holds on a CPU after a forward pass."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch

from aiftrain.plan.activations import LayerActivations
from aiftrain.plan.engine_traits import OURS, OURS_ON_CPU
from aiftrain.plan.memory_use import kept_between_passes
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import Recompute
from aiftrain.train.masks import Masks
from aiftrain.train.mesh import ALONE
from aiftrain.train.model import Decoder, Layer, initialise
from aiftrain.train.varlen import Documents, torch_kernel
from tests.train.held import held_after_forward, saved_by_shape

SEQUENCES, LOSS_CHUNK = 2, 64
EXPERTS = {"num_experts": 8, "experts_per_token": 2, "expert_intermediate_size": 88}
SHAPES: dict[str, dict[str, object]] = {
    "grouped": {},
    "all heads": {"num_kv_heads": 8},
    "normed": {"qk_norm": True},
    "all heads, normed, tied": {"num_kv_heads": 8, "qk_norm": True, "tie_embeddings": True},
    "alibi": {"positions": "alibi", "norm": "layer"},
    "gpt": {"norm": "layer", "norm_bias": True, "mlp": "gelu", "positions": "learned", "max_positions": 1024},
    "xielu": {"mlp": "xielu", "qk_norm": True},
    "experts": {"moe": EXPERTS},
    "experts and one for all": {"moe": EXPERTS | {"shared_intermediate_size": 88}},
}
MODES: tuple[Recompute, ...] = ("none", "selective", "full")
CASES = [
    *product(("grouped", "all heads", "normed", "all heads, normed, tied"), (128,), (False, True), MODES),
    *product(("alibi", "gpt", "xielu", "experts", "experts and one for all"), (128,), (False, True), MODES),
    *product(("grouped", "normed"), (512,), (False, True), MODES),
    *product(("grouped",), (1024,), (False, True), ("none", "selective")),
]


def shape(changes: dict[str, object]) -> ModelSpec:
    llama = {"hidden_size": 128, "intermediate_size": 352, "num_layers": 2, "num_heads": 8, "num_kv_heads": 2}
    return ModelSpec.model_validate({"name": "small", "vocab_size": 256} | llama | changes)


@pytest.mark.parametrize(("name", "length", "bf16", "mode"), CASES)
def test_within_five_per_cent_of_what_torch_holds(name: str, length: int, bf16: bool, mode: Recompute) -> None:
    spec = shape(SHAPES[name])
    model = Decoder(spec, sequence_length=length, loss_chunk=LOSS_CHUNK, recompute=mode)
    initialise(model, seed=0)
    held = held_after_forward(model, sequences=SEQUENCES, bf16=bf16)
    assert predicted(spec, length, mode, bf16=bf16) == pytest.approx(held, rel=0.05)


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("mode", ["selective", "full"])
def test_so_is_recomputation_by_interval(mode: Recompute, every: int) -> None:
    spec = shape({"num_layers": 4})
    model = Decoder(spec, sequence_length=128, loss_chunk=LOSS_CHUNK, recompute=mode, recompute_every=every)
    initialise(model, seed=0)
    held = held_after_forward(model, sequences=SEQUENCES, bf16=True)
    assert predicted(spec, 128, mode, every, bf16=True) == pytest.approx(held, rel=0.05)


@pytest.mark.parametrize("name", ["grouped", "all heads", "normed", "gpt"])
def test_a_layer_with_documents_end_to_end_as_on_gpus(name: str) -> None:
    """bf16 weights, and torch's kernel for documents: by shapes alone, since only a GPU computes it.

    Norms are not one kernel there, unlike on GPUs.
    """
    spec = shape(SHAPES[name] | {"hidden_size": 256, "head_dim": 32})
    with torch.device("meta"):
        layer = Layer(spec, 0, ALONE).bfloat16()
        x = torch.empty(SEQUENCES, 512, 256, dtype=torch.bfloat16, requires_grad=True)
        rotary = torch.empty(512, 32), torch.empty(512, 32)
    bounds = torch.tensor([0, 512, 1024], dtype=torch.int32, device="meta")
    whole = Documents(torch_kernel(), bounds, 512, None, None)
    held = saved_by_shape(layer, x, rotary, Masks(whole, whole))
    traits = replace(OURS, fused_norm=False)
    kept = LayerActivations(spec, one_rank("none"), traits, sequence_length=512, element=2, residual=2).kept("none")
    assert SEQUENCES * 512 * kept == pytest.approx(held, rel=0.05)


def predicted(spec: ModelSpec, length: int, mode: Recompute, every: int = 1, *, bf16: bool) -> float:
    traits = replace(OURS_ON_CPU, loss_chunk=LOSS_CHUNK)
    precision = "bf16" if bf16 else "fp32"
    layout = one_rank(mode).model_copy(update={"recompute_every": every})
    return kept_between_passes(spec, layout, sequence_length=length, precision=precision, traits=traits)


def one_rank(mode: Recompute) -> ParallelLayout:
    return ParallelLayout(
        nodes=1,
        ranks_per_node=1,
        world_size=1,
        data_parallel=1,
        zero_stage=0,
        micro_batch=SEQUENCES,
        accumulation=1,
        recompute=mode,
    )
