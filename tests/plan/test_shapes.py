"""Shapes by name: the names that tables use, and parameter counts as published."""

from __future__ import annotations

import pytest

from aiftrain.plan.groups import read_yaml
from aiftrain.plan.shapes import find
from aiftrain.shipped import conf_dir

ENTRIES = read_yaml(conf_dir() / "shapes.yaml")

# billions of parameters, as their makers or the safetensors of their repositories count them; (total, active)
PUBLISHED = {
    "llama-2-7b": (6.738, 6.738),
    "llama-2-13b": (13.016, 13.016),
    "llama-2-70b": (68.977, 68.977),
    "llama-1-30b": (32.5, 32.5),
    "llama-1-65b": (65.2, 65.2),
    "llama-3-8b": (8.030, 8.030),
    "llama-3-70b": (70.554, 70.554),
    "llama-3-405b": (405.85, 405.85),
    "llama-4-maverick": (401, 17),
    "llama-4-scout": (108, 17),
    "mixtral-8x7b": (46.703, 12.9),
    "mixtral-8x22b": (140.6, 39.1),
    "qwen3-30b-a3b": (30.532, 3.35),
    "qwen3-235b-a22b": (235.094, 22.2),
    "qwen1.5-moe-a2.7b": (14.3, 2.7),
    "gpt-oss-120b": (116.8, 5.7),  # 5.1 active without the table of tokens
    "deepseek-v3": (671.03, 37.6),
    "kimi-k2": (1026, 32.9),
    "grok-1": (316, 84.6),
    "nemotron-4-15b": (15.6, 15.6),
    "nemotron-4-340b": (341, 341),
    "gpt-3-175b": (175, 175),
    "bloom-176b": (176.247, 176.247),
    "smollm-1.7b": (1.711, 1.711),
    "mpt-30b": (29.975, 29.975),
    "baichuan2-13b": (13.9, 13.9),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_is_a_shape_with_a_source(name: str) -> None:
    shape = find(ENTRIES[name]["aliases"][0])
    assert shape is not None
    assert shape.name == name
    assert shape.source


def test_no_two_entries_share_an_alias() -> None:
    aliases = [alias for entry in ENTRIES.values() for alias in entry["aliases"]]
    assert len(aliases) == len(set(aliases))


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name: str) -> None:
    shape = find(ENTRIES[name]["aliases"][0])
    assert shape is not None
    counts = (shape.parameters / 1e9, shape.active_parameters / 1e9)
    assert counts == pytest.approx(PUBLISHED[name], rel=0.02)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("LLAMA3.1_405B", "llama-3-405b"),
        ("Llama 3.1 8b", "llama-3-8b"),
        ("Maxtext Llama3 70b", "llama-3-70b"),
        ("Llama3 8b Finetuning SFT", "llama-3-8b"),
        ("LLAMA2-7B", "llama-2-7b"),
        ("Lucie/Llama2-6.7B", "llama-2-7b"),
        ("LLaMA-2-70B", "llama-2-70b"),
        ("LLAMA4 maverick 400b", "llama-4-maverick"),
        ("Qwen3_30B_a3B", "qwen3-30b-a3b"),
        ("Qwen3-235B-A22B (MoE)", "qwen3-235b-a22b"),
        ("Mixtral-8x22B (MoE)", "mixtral-8x22b"),
        ("DeepSeekV3 (w/o MTP)", "deepseek-v3"),
        ("Deepseek V3", "deepseek-v3"),
        ("Nemotron4 15b", "nemotron-4-15b"),
        ("Nemotron 340b", "nemotron-4-340b"),
        ("Paxml GPT175B", "gpt-3-175b"),
        ("GPT3-5B", "nemo-gpt-5b"),
        ("GPT 2.7B (Modalities)", "gpt-3-2.7b"),
        ("megatron-1T", "megatron-1t"),
        ("Grok1 314b", "grok-1"),
        ("GPT OSS 120B", "gpt-oss-120b"),
        ("MPT-13b", "mpt-13b"),
    ],
)
def test_names_of_published_tables(written: str, meant: str) -> None:
    shape = find(written)
    assert shape is not None
    assert shape.name == meant


@pytest.mark.parametrize("name", ["Nemotron-H 56b", "Nemotron_3_Nano", "", "my own model"])
def test_what_is_not_known_is_none(name: str) -> None:
    assert find(name) is None
