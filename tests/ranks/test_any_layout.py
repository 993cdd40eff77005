"""Shapes of models and layouts drawn at random among the legal ones: the losses and gradients of a single rank.

A few examples, the same in every run. More, and others: EXAMPLES, and `derandomize=False` with --hypothesis-seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, reject, settings
from hypothesis import strategies as st

from aiftrain.errors import ConfigError
from aiftrain.run.folder import RunFolder
from tests.ranks.comparing import states
from tests.ranks.conftest import Nursery, losses

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

EXAMPLES = 3
STEPS = ("train.steps=2", "storage.save_every=1", "storage.keep_every=1", "optimizer.warmup_steps=1")
NewRun = Callable[..., RunFolder]
Words = list[str]


@st.composite
def shapes(draw: st.DrawFn) -> Words:
    """Heads, layers and widths that two or four ranks can share out, or cannot: whoever draws asks the planner."""
    heads, head = draw(st.sampled_from([4, 8])), draw(st.sampled_from([4, 6, 12]))
    words = [
        f"model.hidden_size={heads * head}",
        f"model.num_heads={heads}",
        f"model.num_kv_heads={draw(st.sampled_from([1, 2, 4]))}",
        f"model.num_layers={draw(st.integers(2, 5))}",
        f"model.intermediate_size={draw(st.sampled_from([32, 44, 60]))}",
        f"model.mlp={draw(st.sampled_from(['swiglu', 'gelu', 'relu2']))}",
    ]
    flags = ("qk_norm", "tie_embeddings", "mlp_bias", "qkv_bias", "output_bias")
    words += [f"model.{flag}={str(draw(st.booleans())).lower()}" for flag in flags]
    if draw(st.booleans()):
        shared = draw(st.sampled_from([0, 16]))
        inside = f"expert_intermediate_size: 16, shared_intermediate_size: {shared}, every: {draw(st.integers(1, 2))}"
        words.append(f"model.moe={{num_experts: 4, experts_per_token: {draw(st.integers(1, 3))}, {inside}}}")
    return words


@st.composite
def layouts(draw: st.DrawFn) -> Words:
    """Four ranks on any axes. The losses that keep a router fit depend on the micro-batch, so that is the same."""
    degree = st.sampled_from([1, 1, 2, 2, 4])
    words = ["parallelism=zero1", f"parallelism.zero_stage={draw(st.integers(0, 3))}"]
    words += [f"parallelism.{axis}={draw(degree)}" for axis in ("tensor", "pipeline", "sequence", "expert")]
    words += [f"train.recompute={draw(st.sampled_from(['none', 'selective', 'full']))}"]
    if draw(st.booleans()):
        words.append(f"parallelism.{draw(st.sampled_from(['shard_group', 'secondary_group']))}=2")
    return words


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(shape=shapes(), layout=layouts())
def test_losses_and_gradients_are_those_of_one_rank(
    nursery: Nursery, new_run: NewRun, shape: Words, layout: Words
) -> None:
    try:
        shared = new_run(*STEPS, *shape, *layout, ranks=4)
    except ConfigError:  # the planner says why it is none
        reject()
    note(" ".join([*shape, *layout]))
    single = new_run(*STEPS, *shape, "parallelism=ddp", ranks=1)
    for folder, ranks in ((single, 1), (shared, 4)):
        started = nursery.start(folder, ranks)
        assert started.wait() == [0] * ranks, started.log()
    for key in ("loss", "grad_norm"):
        ours, theirs = losses(shared, key), losses(single, key)
        assert ours.keys() == theirs.keys() == {1, 2}
        assert max(abs(ours[step] / theirs[step] - 1) for step in ours) < 1e-5
    assert farthest_gradient(shared, single) < 1e-5


def farthest_gradient(one: RunFolder, other: RunFolder) -> float:
    """The largest difference of a parameter's first gradients (after one step exp_avg is (1 - beta1) of them).

    Relative to their norm; of gradients that are nothing but rounding, as those of biases of keys, to the largest.
    """
    ours, theirs = states(one, 1), states(other, 1)
    norms = {name: float(np.linalg.norm(theirs[name])) for name in theirs if name.startswith("exp_avg/")}
    floor = 1e-3 * max(norms.values())
    return max(float(np.linalg.norm(ours[name] - theirs[name])) / max(norm, floor) for name, norm in norms.items())
