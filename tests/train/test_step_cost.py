"""What a training step does beside its matrix products, counted and not timed, so that no noise can hide a new copy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aiftrain.run.model import ModelSpec
from aiftrain.train.loss import chunked_cross_entropy, loss_and_gradient
from aiftrain.train.model import Decoder, initialise

SHAPE = {
    "name": "tiny",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 4,
}
TOKENS = (2, 128)
USEFUL = ("mm", "addmm", "addmm_", "bmm")  # and attention: what a step is for
NOTHING = ("empty", "detach", "_unsafe_view")  # writes no element


class Traffic(TorchDispatchMode):
    """Elements that each operator writes, views left out; in the backward pass as well."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.written: Counter[str] = Counter()

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        results = operator(*arguments, **(options or {}))
        name = operator.overloadpacket.__name__
        if not (operator.is_view or name in USEFUL or "attention" in name or name.startswith(NOTHING)):
            outputs = results if isinstance(results, (tuple, list)) else (results,)
            self.written[name] += sum(output.numel() for output in outputs if isinstance(output, Tensor))
        return results


def batch() -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.randint(0, 512, TOKENS, generator=torch.Generator().manual_seed(0))
    documents = (torch.arange(TOKENS[1]) >= 50).int().expand(TOKENS)
    return tokens, tokens.roll(-1, 1), documents


def built(**changes: object) -> Decoder:
    model = Decoder(ModelSpec.model_validate(SHAPE | changes), sequence_length=TOKENS[1], loss_chunk=128)
    initialise(model, seed=0)
    return model


def written(**changes: object) -> int:
    """By forward and backward of one more layer."""
    totals: list[int] = []
    for layers in (2, 3):
        model = built(num_layers=layers, **changes)
        with Traffic() as traffic:
            objective, _ = model(*batch())
            objective.backward()
        totals.append(traffic.written.total())
    return totals[1] - totals[0]


@pytest.mark.parametrize(("changes", "most"), [({}, 66.8), ({"num_kv_heads": 2}, 65.3)], ids=["one to one", "grouped"])
def test_a_layer_copies_no_more_than_it_did(changes: dict[str, object], most: float) -> None:
    """In units of one hidden state. Eagerly: norms and rotary turns are several operators each."""
    assert written(**changes) / (2 * 128 * 64) <= most


def test_a_chunk_of_the_loss_passes_over_its_logits_three_times() -> None:
    """Softmax, the factor in place, and a one taken off in place, which counts here as if it were a whole pass."""
    hidden, weight = torch.randn(256, 8, requires_grad=True), torch.randn(4096, 8, requires_grad=True)
    with Traffic() as traffic:
        objective, _ = chunked_cross_entropy(hidden, weight, torch.zeros(256, dtype=torch.long), chunk=128)
        objective.backward()
    assert traffic.written.total() <= 3.04 * 256 * 4096


def test_layers_are_compiled_as_one_graph_and_only_once() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model = built()
    for layer in model.layers.values():
        layer.compile(backend=count, fullgraph=True)
    for _ in range(2):
        model(*batch())[0].backward()
    assert len(graphs) == 1


def test_so_is_the_loss() -> None:
    compiled = torch.compile(loss_and_gradient, backend="eager", fullgraph=True)
    logits, targets = torch.randn(16, 32), torch.arange(16)
    sums, gradient = compiled(logits, targets, 0.0)
    wanted_sums, wanted = loss_and_gradient(logits, targets, 0.0)
    torch.testing.assert_close(sums, wanted_sums)
    torch.testing.assert_close(gradient, wanted)
