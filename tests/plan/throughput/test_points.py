"""From the cells of a row to a machine, a model and a layout; or why there is none."""

from __future__ import annotations

from typing import Any

import pytest

from aiftrain.plan.throughput.constants import shipped
from aiftrain.plan.throughput.points import Point, hardware_of, point_of
from aiftrain.plan.throughput.step import Setting
from aiftrain.plan.throughput.table import CannotSay
from tests.plan.throughput.rows import row


def point(**cells: Any) -> Point:
    return point_of(row(**cells), shipped())


def setting(**cells: Any) -> Setting:
    return point(**cells).setting


def test_a_row_becomes_a_layout() -> None:
    layout = setting(vpp=4).layout
    assert (layout.world_size, layout.data_parallel, layout.tensor_parallel, layout.pipeline_parallel) == (64, 16, 2, 2)
    assert (layout.nodes, layout.accumulation, layout.virtual_stages) == (8, 8, 4)
    assert layout.global_batch == 512


def test_a_stated_shape_is_taken_as_it_is() -> None:
    model = setting(kv_heads=8, ffn=9000).model
    assert (model.num_layers, model.hidden_size, model.num_kv_heads, model.intermediate_size) == (32, 2560, 8, 9000)


def test_a_known_model_needs_no_shape() -> None:
    model = setting(model="Llama 3.1 8b", layers=None, hidden=None, heads=None, vocab=None).model
    assert (model.num_layers, model.hidden_size, model.vocab_size) == (32, 4096, 128256)


def test_an_unknown_dense_model_is_guessed_from_its_parameters() -> None:
    guessed = point(model="Some 13B", params_b=13, layers=None, hidden=None)
    assert 11e9 < guessed.setting.model.parameters < 15e9
    assert "40 layers of width 5120" in guessed.assumed


def test_what_is_not_stated_is_assumed_and_said() -> None:
    assumed = point(seq=None, global_batch=None, micro_batch=None).assumed
    assert assumed == (
        "sequences of 4,096 tokens",
        "micro-batches of 1",
        "a global batch of 1,024 sequences",
    )


@pytest.mark.parametrize(
    ("software", "stage"),
    [("Megatron-LM", 1), ("PyTorch FSDP", 3), ("NeMo 25.04", 1), ("MaxText", 3), ("DeepSpeed", 0), ("", 0)],
)
def test_software_decides_on_the_stage_that_a_row_leaves_open(software: str, stage: int) -> None:
    assert setting(software=software).layout.zero_stage == stage


@pytest.mark.parametrize(("word", "stage"), [("0", 0), ("none", 0), ("2", 2), ("3-hybrid", 3)])
def test_a_stated_stage_counts(word: str, stage: int) -> None:
    assert setting(zero=word, software="PyTorch FSDP").layout.zero_stage == stage


def test_hybrid_sharding_stays_in_the_node() -> None:
    assert setting(zero="3-hybrid").layout.shard_group == 8
    assert setting(zero="3-hybrid", gpus=16, tp=1, pp=2).layout.shard_group is None


@pytest.mark.parametrize(
    ("word", "mode"),
    [("", "none"), ("none", "none"), ("selective", "selective"), ("full", "full"), ("every_layer", "full")],
)
def test_words_for_recomputation(word: str, mode: str) -> None:
    one = point(recompute=word)
    assert one.setting.layout.recompute == mode
    assert one.states_recompute == bool(word)


def test_sequence_parallelism_is_no_context_parallelism() -> None:
    assert setting(cp_sp="SP=TP").layout.sequence_parallel
    assert setting(cp_sp="SP=TP").layout.context_parallel == 1
    assert not setting(cp_sp="SP off", software="NeMo").layout.sequence_parallel
    assert setting(cp_sp="2").layout.context_parallel == 2


def test_notes_may_tell_other_kernels() -> None:
    one = setting(software="Aleph Alpha 3D-parallel trainer", notes="kernel: torch; RMS norm")
    assert one.stack.attention == "unfused"


def test_without_bf16_the_precision_is_fp16() -> None:
    assert setting(hardware="V100-32GB", precision=None).precision == "fp16"
    assert setting(precision=None).precision == "bf16"


def test_fp32_in_a_table_is_what_libraries_make_of_it() -> None:
    assert setting(precision="fp32").precision == "tf32"
    assert setting(precision="fp32", hardware="MI250").precision == "fp32"


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({"gpus": None}, "the number of GPUs is not stated"),
        ({"gpus": 0}, "gpus is 0"),
        ({"gpus": 62}, "62 GPUs are no multiple of tp 2 x pp 2 x cp 1"),
        ({"gpus": 2}, "no multiple"),
        ({"tp": "two"}, "tp is 'two': a number is expected"),
        ({"tp": -2}, "tp is '-2'"),
        ({"tp": 1.5}, "tp is 1.5: a whole number"),
        ({"tp": 64, "pp": 1}, "tp 64 does not divide the 32 heads"),
        ({"pp": 64, "tp": 1}, "pp 64 is more than the 32 layers"),
        ({"global_batch": 8}, "a global batch of 8 gives not every one of 16 replicas a micro-batch of 4"),
        ({"zero": "offload"}, "zero is 'offload': a stage from 0 to 3"),
        ({"hardware": "TPU v5p"}, "no hardware profile is known for 'TPU v5p'"),
        ({"hardware": None}, "the hardware is not stated"),
        ({"hardware": "V100-32GB"}, "v100-32 has no bf16"),
        ({"model": "Llama 3 8B LoRA"}, "adapters"),
        ({"model": "Some-8x7B", "layers": None}, "the shape of 'Some-8x7B' is not stated and not known"),
        ({"model": None, "layers": None}, "the model is not stated"),
        ({"kv_heads": 5}, "the shape cannot be: num_heads 32 is not a multiple of num_kv_heads 5"),
        ({"model": "Mixtral 8x7B", "layers": None, "ep": 512}, "ep 512 is more than the 8 experts"),
        ({"layers": "1e9"}, "layers is 1e9"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(cells: dict[str, Any], why: str) -> None:
    with pytest.raises(CannotSay, match=why):
        point(**cells)


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("A100-64GB custom (Leonardo Booster, 4/node)", "a100-64"),
        ("H100-64GB SXM (MareNostrum 5 ACC, 4/node)", "h100-64"),
        ("A100-80GB SXM (Jean Zay, 8/node)", "a100-80"),
        ("GH200 96GB (JUPITER, 4/node)", "gh200"),
        ("MI250 (per GCD, 8 GCD/node)", "mi250x"),
        ("GB200 (NVL72)", "gb200-nvl72"),
        ("h100-80gb sxm", "h100"),
    ],
)
def test_machines_are_known_by_what_tables_call_them(name: str, profile: str) -> None:
    assert hardware_of(name).name == profile
