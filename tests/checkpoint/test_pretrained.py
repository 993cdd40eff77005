"""Weights that transformers saved, read by our names: the same logits, any range, and every fault named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aiftrain.checkpoint.pretrained.reader import PretrainedReader, check_weights, pretrained_reader
from aiftrain.checkpoint.pretrained.shape import differences, shape
from aiftrain.errors import AiftrainError, DamagedError, UserError
from aiftrain.train.model import Decoder
from tests.checkpoint.published import KINDS, filled, logits_of, publish, spec_of
from tests.train.references import LENGTH


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_those_of_transformers(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    folder = publish(tmp_path / "model", kind, dtype, shard="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    check_weights(folder, model := spec_of(folder))
    with pretrained_reader(folder, model) as reader:
        decoder = filled(model, reader.read)
    tokens = torch.randint(model.vocab_size, (LENGTH,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = decoder(tokens[None])[0]
    theirs = logits_of(folder, tokens)
    assert theirs.abs().max() > 0.1, "the logits are too small to tell anything"
    assert (ours - theirs).abs().max() < 1e-5


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published") / "model", "qwen3 of experts", torch.bfloat16)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_range_is_that_of_the_whole(published: Path, data: st.DataObject) -> None:
    model = spec_of(published)
    shapes = {name: weight.numel() for name, weight in Decoder(model, sequence_length=LENGTH).named_parameters()}
    name = data.draw(st.sampled_from(sorted(shapes)))
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, shapes[name])] * 2)))
    with pretrained_reader(published, model) as reader:
        assert np.array_equal(reader.read(name, start, stop), reader.read(name, 0, shapes[name])[start:stop])


@pytest.mark.parametrize("name", ["layers.0.mlp.down.weight", "layers.0.mlp.gate_up.weight"])
def test_it_is_read_in_blocks_as_at_once(published: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model = spec_of(published)
    with pretrained_reader(published, model) as reader:
        whole = reader.read(name, 0, 48 * 32)
        monkeypatch.setattr("aiftrain.checkpoint.pretrained.reader._BLOCK", 5 * 48 + 1)
        assert np.array_equal(reader.read(name, 7, 1001), whole[7:1001])


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "architecture GemmaForCausalLM; known are Llama"),
        ({"attention_bias": True}, "attention_bias=true"),
        ({"rope_scaling": {"rope_type": "llama3"}, "rope_parameters": None}, "rotary positions of type llama3"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rotary positions of type yarn"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu"),
        ({"quantization_config": {}}, "quantization_config"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"num_hidden_layers": None}, "num_hidden_layers is no number"),
        ({"norm_topk_prob": False}, "norm_topk_prob=false"),
        ({"mlp_only_layers": [1]}, "mlp_only_layers"),
    ],
)
def test_what_no_model_of_ours_computes_is_refused(published: Path, changes: dict[str, Any], message: str) -> None:
    config = json.loads((published / "config.json").read_text())
    with pytest.raises(UserError, match=message):
        shape(config | changes)


def test_differences_name_key_and_both_values(published: Path) -> None:
    theirs = shape(json.loads((published / "config.json").read_text()))
    moe = theirs["moe"] | {"experts_per_token": 1, "balance_loss": 0.5}
    model = spec_of(published, num_layers=2, norm_eps=1e-3, z_loss=1e-4, vocab_size=128, moe=moe)
    found = set(differences(model, theirs))
    assert found == {("num_layers", 2, 3), ("norm_eps", 1e-3, 1e-5), ("moe.experts_per_token", 1, 2)}
    assert ("vocab_size", 100, 101) in differences(spec_of(published, vocab_size=100), theirs)


def test_faults_of_files_are_named(tmp_path: Path) -> None:
    folder = publish(tmp_path / "model", shard="20KB")
    model, last = spec_of(folder), sorted(folder.glob("*.safetensors"))[-1]
    content = last.read_bytes()
    last.write_bytes(content[:-1])
    with pytest.raises(DamagedError, match=last.name):
        check_weights(folder, model)
    last.unlink()
    with pytest.raises(DamagedError, match=f"{last.name} is missing"):
        check_weights(folder, model)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"neither model\.safetensors nor"):
        check_weights(folder, model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 1}, r"k_proj.weight is \[16, 32\], and config.json makes it \[8, 32\]"),
        ({"num_hidden_layers": 4}, "model.layers.3.*is in none of the files"),
        ({"num_hidden_layers": 2}, "model.layers.2.*no place for"),
    ],
)
def test_a_config_of_other_weights_is_found(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = publish(tmp_path / "model")
    change_config(folder, **changes)
    with pytest.raises(AiftrainError, match=message):
        check_weights(folder, spec_of(folder))


def test_numbers_that_cannot_be_read_are_refused(published: Path) -> None:
    model = spec_of(published)
    with pretrained_reader(published, model) as reader:
        file, stored = reader._tensors["model.norm.weight"]
        other = type(stored)("F8_E4M3", np.dtype(np.uint8), stored.shape, stored.offset)
        changed = PretrainedReader(dict(reader._tensors) | {"model.norm.weight": (file, other)}, model)
        assert list(changed.problems()) == ["model.norm.weight is stored as F8_E4M3; readable are F32, F16, BF16"]
