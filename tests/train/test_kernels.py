"""Kernels of attention: what each is given, and that it is plain attention; which one is taken, and why not another."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aiftrain.errors import UserError
from aiftrain.run.model import ModelSpec
from aiftrain.train import kernels
from aiftrain.train.attention import attend
from aiftrain.train.kernels import Choice, Site, choose
from aiftrain.train.masks import DENSE, Kernel, document_mask, make_masks
from aiftrain.train.mesh import ALONE
from aiftrain.train.model import Decoder, Layer, initialise
from aiftrain.train.varlen import Documents, find_documents, torch_kernel
from tests.train.references import spec

LATENT = {"query_rank": 24, "kv_rank": 16, "nope_dim": 8, "rope_dim": 4, "value_dim": 6}
SHAPES: dict[str, dict[str, object]] = {
    "groups": {},
    "all heads": {"num_kv_heads": 4},
    "window": {"sliding_window": 7},
    "alibi": {"positions": "alibi", "num_kv_heads": 4},
    "alibi, window, groups": {"positions": "alibi", "sliding_window": 5},
    "wide heads": {"head_dim": 64},
    "values narrower than keys": {"latent": LATENT, "num_kv_heads": 4},
}
FLEX = Kernel("flex")


def one_by_one(query: Tensor, key: Tensor, value: Tensor, documents: Documents) -> Tensor:
    """What kernels for documents do, as their interface has it: each by itself, [tokens, heads, size] each."""
    bounds = documents.bounds.tolist()
    mixed = torch.empty(*query.shape[:2], value.shape[-1], dtype=query.dtype)
    left, right = documents.reach
    assert right == 0
    for start, end in pairwise(bounds):
        assert end - start <= documents.longest
        if start == end:
            continue
        q, k, v = (tensor[start:end].transpose(0, 1)[None] for tensor in (query, key, value))
        reach = torch.ones(end - start, end - start, dtype=torch.bool).tril()
        reach = reach if left < 0 else reach.triu(-left)
        mixed[start:end] = F.scaled_dot_product_attention(q, k, v, attn_mask=reach, enable_gqa=True)[0].transpose(0, 1)
    return mixed


FLAT = Kernel("varlen", one_by_one)


def documents_of(rows: int, length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    starts = torch.rand(rows, length, generator=generator) < torch.rand(1, generator=generator) / 3
    return starts.int().cumsum(1).int()


def inputs(shape: ModelSpec, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    wide = shape.latent.value_dim if shape.latent else shape.head_size
    sizes = (
        (shape.num_heads, shape.head_size),
        (shape.num_kv_heads, shape.head_size),
        (shape.num_kv_heads, wide),
    )
    query, key, value = (torch.randn(rows, heads, length, size, generator=generator) for heads, size in sizes)
    return query, key, value


@pytest.mark.parametrize("name", SHAPES)
def test_flex_is_plain_attention(name: str) -> None:
    check(spec(**SHAPES[name]), FLEX, documents_of(2, 160, seed=3))


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["groups", "all heads", "window", "wide heads"]),
    rows=st.integers(1, 3),
    length=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_documents_end_to_end_are_plain_attention(name: str, rows: int, length: int, seed: int) -> None:
    check(spec(**SHAPES[name]), FLAT, documents_of(rows, length, seed))


def check(shape: ModelSpec, kernel: Kernel, documents: Tensor | None) -> None:
    """Both kinds of layer, in fp32."""
    rows, length = (2, 24) if documents is None else documents.shape
    query, key, value = inputs(shape, rows, length)
    x = torch.empty(rows, length, shape.hidden_size)
    ours, plain = make_masks(shape, x, documents, kernel=kernel), make_masks(shape, x, documents)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(attend(query, key, value, mine), attend(query, key, value, theirs))


@pytest.mark.parametrize("kernel", [FLEX, FLAT], ids=["flex", "documents"])
def test_without_documents_rows_are_whole(kernel: Kernel) -> None:
    check(spec(sliding_window=7), kernel, None)


@pytest.mark.parametrize("kernel", [DENSE, FLAT], ids=["dense", "documents"])
def test_a_model_with_documents_end_to_end_learns_the_same(kernel: Kernel) -> None:
    """Loss and gradients through the whole decoder, with normed queries and keys."""
    tokens, documents = torch.arange(48).view(2, 24) * 7 % 101, documents_of(2, 24, seed=5)
    results = []
    for choice in (DENSE, kernel):
        model = Decoder(spec(qk_norm=True, sliding_window=7, global_every=2), sequence_length=24)
        initialise(model, seed=3)
        model.kernel = choice
        model(tokens, tokens.roll(-1, 1), documents)[0].backward()
        results.append([parameter.grad for parameter in model.parameters()])
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-6)


@given(rows=st.integers(1, 4), length=st.integers(1, 300), seed=st.integers(0, 1000))
def test_bounds_are_where_documents_begin(rows: int, length: int, seed: int) -> None:
    documents = documents_of(rows, length, seed)
    bounds, longest = find_documents(documents)
    sizes = bounds.diff()
    assert bounds[0] == 0 and bounds[-1] == rows * length and (sizes >= 0).all()
    assert sizes.max() <= longest <= length
    numbers = documents + torch.arange(rows)[:, None] * (length + 1)  # different in every row
    assert sizes[sizes > 0].tolist() == numbers.flatten().unique_consecutive(return_counts=True)[1].tolist()


def test_a_compiled_layer_sees_few_shapes_of_bounds() -> None:
    """Each new one is a compilation."""
    found = [find_documents(documents_of(2, 300, seed)) for seed in range(40)]
    assert len({(len(bounds), longest) for bounds, longest in found}) <= 6


def test_documents_on_the_cpu_serve_any_kernel() -> None:
    """The mask of every pair is made on the device of x, whatever that is."""
    masks = make_masks(spec(), torch.empty(1, 8, 32, device="meta"), torch.zeros(1, 8, dtype=torch.int32))
    assert isinstance(masks.whole, Tensor) and masks.whole.device.type == "meta"


def site(device: str = "cpu", *, compiled: bool = False, bf16: bool = True, **changes: object) -> Site:
    return Site(spec(**changes), torch.device(device), torch.bfloat16 if bf16 else torch.float32, compiled)


def test_a_cpu_has_a_kernel_of_its_own() -> None:
    assert choose(site(compiled=True)) == Choice(DENSE, {})


def test_each_kernel_that_is_passed_over_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is here: only the last of them works."""
    monkeypatch.setattr(kernels, "_fault", lambda kernel, site: None)
    choice = choose(site("cuda", bf16=False))
    assert choice.kernel == DENSE
    assert choice.passed_over == {
        "flash-attn": "has no fp32",
        "varlen": "has no fp32",
        "flex": "needs train.compile=true",
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"positions": "alibi"}, "knows no ALiBi"),
        ({"latent": LATENT, "num_kv_heads": 4}, "wants values as wide as keys"),
        ({"head_dim": 264}, "wants heads of 8 to 256 dimensions, in steps of 8"),
        ({"head_dim": 12}, "wants heads of 8 to 256 dimensions, in steps of 8"),
    ],
)
def test_flash_attention_is_not_for_every_model(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=f"train.attention=varlen: {reason}"):
        choose(site("cuda", **changes), "varlen")


def test_a_kernel_that_fails_or_is_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(query: Tensor, key: Tensor, value: Tensor, documents: Documents) -> Tensor:
        return one_by_one(query, key, value, documents) * 1.2

    def failing(query: Tensor, key: Tensor, value: Tensor, documents: Documents) -> Tensor:
        raise NotImplementedError("no such kernel\nand a long story")

    here = site(bf16=False, sliding_window=1000)
    assert kernels._fault(Kernel("varlen", one_by_one), here) is None
    assert "differs from plain attention by 0.2" in str(kernels._fault(Kernel("varlen", wrong), here))
    assert kernels._fault(Kernel("varlen", failing), here) == "NotImplementedError: no such kernel"


def test_torchs_kernel_takes_what_it_is_given() -> None:
    """Its interface, with shapes alone: there is no device here that computes it."""
    shape = spec(hidden_size=64, head_dim=16)
    x = torch.empty(2, 24, 64, dtype=torch.bfloat16, device="meta")
    bounds, longest = find_documents(documents_of(2, 24, seed=0))
    mask = Documents(torch_kernel(), bounds.to("meta"), longest, 5, None)
    query, key, value = (tensor.to("meta", torch.bfloat16).requires_grad_() for tensor in inputs(shape, 2, 24))
    mixed = attend(query, key, value, mask)
    assert mixed.shape == query.shape and mixed.dtype == torch.bfloat16
    mixed.sum().backward()
    assert key.grad is not None and key.grad.shape == key.shape
    assert x.shape == (2, 24, 64)


@pytest.mark.parametrize("kernel", ["dense", "varlen"])
@pytest.mark.parametrize("changes", [{}, {"sliding_window": 7, "qk_norm": True}], ids=["llama", "window, norms"])
def test_a_layer_is_one_graph(kernel: str, changes: dict[str, object]) -> None:
    """So that it is compiled whole: shapes alone, since only a GPU computes the kernel."""
    shape = spec(hidden_size=64, **changes)
    with torch.device("meta"):
        layer = Layer(shape, 0, ALONE).bfloat16()
        x = torch.empty(2, 24, 64, dtype=torch.bfloat16)
        rotary = torch.empty(24, shape.head_size), torch.empty(24, shape.head_size)
    choice = Kernel("varlen", torch_kernel()) if kernel == "varlen" else DENSE
    masks = make_masks(shape, x, documents_of(2, 24, seed=0), kernel=choice)
    explained = torch._dynamo.explain(layer)(x, None, rotary, masks)
    assert explained.graph_break_count == 0, explained.break_reasons
    torch.compiler.reset()


def test_document_masks_are_of_documents() -> None:
    mask = document_mask(torch.tensor([[0, 0, 1]]), torch.float32)
    assert mask[0, 0].tolist() == [[0, -torch.inf, -torch.inf], [0, 0, -torch.inf], [-torch.inf, -torch.inf, 0]]
