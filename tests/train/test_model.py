"""The decoder against Hugging Face's, the parameter formula, document masks, and reproducible first weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aiftrain.run.model import ModelSpec
from aiftrain.train.model import Decoder, initialise, kind_of


def spec(**changes: object) -> ModelSpec:
    base: dict[str, object] = {
        "name": "tiny",
        "vocab_size": 101,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
    }
    return ModelSpec.model_validate(base | changes)


def built(shape: ModelSpec, length: int = 24) -> Decoder:
    model = Decoder(shape, sequence_length=length, loss_chunk=7)
    initialise(model, seed=3)
    return model


@settings(max_examples=30, deadline=None)
@given(
    vocab=st.integers(1, 300),
    heads=st.sampled_from([(4, 1), (4, 2), (4, 4), (6, 3)]),
    head_dim=st.sampled_from([2, 8, 10]),
    inner=st.integers(1, 64),
    layers=st.integers(1, 3),
    qk_norm=st.booleans(),
    tied=st.booleans(),
)
def test_parameter_formula_is_exact(
    vocab: int, heads: tuple[int, int], head_dim: int, inner: int, layers: int, qk_norm: bool, tied: bool
) -> None:
    shape = spec(
        vocab_size=vocab,
        hidden_size=20,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=head_dim,
        intermediate_size=inner,
        num_layers=layers,
        qk_norm=qk_norm,
        tie_embeddings=tied,
    )
    model = Decoder(shape, sequence_length=8)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters


def test_positions_of_a_stage_are_those_of_a_model_with_its_base() -> None:
    short, long = built(spec(), length=8), built(spec(rope_theta=1e6), length=40)
    tokens = torch.arange(40)[None] % 101
    short.set_positions(40, theta=1e6)
    assert torch.equal(short(tokens), long(tokens))
    short.set_positions(40, theta=2e6)
    assert not torch.equal(short(tokens), long(tokens))


def test_first_weights_depend_on_the_seed_alone() -> None:
    first, again, other = Decoder(spec(), sequence_length=8), Decoder(spec(), sequence_length=8), built(spec())
    torch.manual_seed(1)
    initialise(first, seed=5)
    torch.manual_seed(2)
    initialise(again, seed=5)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
    assert not torch.equal(first.embed.weight, other.embed.weight)
    down = [first.get_parameter(f"layers.{i}.mlp.down.weight") for i in (0, 1)]
    assert not torch.equal(*down)


def test_a_document_does_not_see_the_one_before_it() -> None:
    model = built(spec())
    tokens = torch.randint(0, 101, (1, 20), generator=torch.Generator().manual_seed(0))
    documents = torch.tensor([[0] * 8 + [1] * 12])
    changed = tokens.clone()
    changed[0, :8] = (changed[0, :8] + 1) % 101
    masked = [model(t, None, documents)[0, 8:] for t in (tokens, changed)]
    plain = [model(t)[0, 8:] for t in (tokens, changed)]
    assert torch.equal(*masked)
    assert not torch.allclose(*plain)


def test_a_masked_document_is_what_it_is_alone() -> None:
    model = built(spec())
    tokens = torch.randint(0, 101, (1, 20), generator=torch.Generator().manual_seed(0))
    together = model(tokens, None, torch.tensor([[0] * 8 + [1] * 12]))[0, 8:]
    torch.testing.assert_close(together, model(tokens[:, 8:])[0], rtol=1e-4, atol=1e-5)


def test_attention_is_causal() -> None:
    model = built(spec())
    tokens = torch.randint(0, 101, (2, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 10:] = 0
    torch.testing.assert_close(model(tokens)[:, :10], model(changed)[:, :10])


def test_embeddings_are_tables_and_norms_are_vectors() -> None:
    model = built(spec(qk_norm=True))
    kinds = {name: kind_of(name, parameter) for name, parameter in model.named_parameters()}
    assert {name for name, kind in kinds.items() if kind == "table"} == {"embed.weight", "head.weight"}
    assert all((kinds[name] == "vector") == (parameter.dim() == 1) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("tied", [False, True])
def test_loss_is_the_cross_entropy_of_the_logits(tied: bool) -> None:
    model = built(spec(tie_embeddings=tied))
    tokens = torch.randint(0, 101, (2, 24), generator=torch.Generator().manual_seed(0))
    targets = tokens.roll(-1, 1)
    targets[:, 5] = -100
    plain = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction="sum")
    objective, reported = model(tokens, targets)
    torch.testing.assert_close(objective, plain)
    torch.testing.assert_close(reported, plain.detach())
