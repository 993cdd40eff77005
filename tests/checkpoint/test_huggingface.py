"""Shapes in Hugging Face's words: experts survive the way there, and what has no words there is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from aiftrain.checkpoint.huggingface import Weight, architecture, check_exportable, config, weights
from aiftrain.checkpoint.pretrained.shape import differences, shape
from aiftrain.errors import UserError
from aiftrain.plan.spec import resolve
from aiftrain.run.model import ModelSpec
from aiftrain.train.model import Decoder, initialise
from tests.checkpoint.published import KINDS, publish
from tests.conftest import small_spec

MOE = "{num_experts: 4, experts_per_token: 2, expert_intermediate_size: 16, every: 2}"
SMALL = ["model.vocab_size=300", "model.hidden_size=32", "model.intermediate_size=48", "train.sequence_length=16"]


def test_a_mixture_of_experts_computes_the_same_in_transformers(tmp_path: Path) -> None:
    spec = resolve(["recipe=smoke", "factory=local", "model.qk_norm=true", f"model.moe={MOE}", *SMALL])
    model = Decoder(spec.model, sequence_length=16)
    initialise(model, seed=1)
    flat = {name: parameter.detach().flatten() for name, parameter in model.named_parameters()}
    pieces = {w.key: _turned(flat[w.source][w.start : w.stop], w) for w in weights(spec.model)}
    assert sum(piece.numel() for piece in pieces.values()) == spec.model.parameters
    save_file(pieces, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config(spec, eos_id=0)))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(theirs).__name__ == architecture(spec.model)[0] == "Qwen3MoeForCausalLM"
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-5)


def test_positions_are_those_of_the_stage_that_the_weights_come_from() -> None:
    spec = resolve(["recipe=smoke", "+stages.long={from_step: 100, sequence_length: 512, rope_theta: 1e6}"])
    before, after = config(spec, eos_id=0, step=100), config(spec, eos_id=0, step=101)
    assert (before["rope_theta"], before["max_position_embeddings"]) == (10_000.0, 128)
    assert (after["rope_theta"], after["max_position_embeddings"]) == (1e6, 512)
    assert after["rope_parameters"] == {"rope_type": "default", "rope_theta": 1e6}


def _turned(values: torch.Tensor, weight: Weight) -> torch.Tensor:
    return (values.view(weight.shape[::-1]).T if weight.turned else values.view(weight.shape)).contiguous()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("bloom-560m", "no positions=alibi, no norm=layer"),
        ("apertus-8b", "no mlp=xielu"),
        ("mixtral-8x7b", "no moe without qk_norm"),
        ("smollm3-3b", "no nope_every=4"),
    ],
)
def test_a_shape_without_words_is_refused(recipe: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_exportable(resolve([f"recipe=replica/{recipe}", "factory=lumi"]).model)


def test_only_mistral_has_a_window_and_in_every_layer() -> None:
    model = resolve(["recipe=replica/minerva-1b", "factory=lumi"]).model
    check_exportable(model)
    assert architecture(model) == ("MistralForCausalLM", {"model_type": "mistral", "sliding_window": 2048})
    with pytest.raises(UserError, match="no global_every=4, no sliding_window with qk_norm"):
        check_exportable(model.model_copy(update={"global_every": 4, "qk_norm": True}))


@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_shape_is_exported_as_itself(tmp_path: Path, kind: str) -> None:
    theirs = shape(json.loads((publish(tmp_path / "model", kind) / "config.json").read_text()))
    spec = small_spec(model={"name": "test", **theirs})
    check_exportable(spec.model)
    assert list(differences(spec.model, shape(config(spec, eos_id=0)))) == []


@pytest.mark.parametrize("recipe", ["eu-llm-7b", "eu-llm-moe", "replica/eurollm-9b", "replica/tildeopen-30b"])
def test_our_own_models_can_be_exported(recipe: str) -> None:
    model = resolve([f"recipe={recipe}", "factory=lumi"]).model
    assert isinstance(model, ModelSpec)
    check_exportable(model)
