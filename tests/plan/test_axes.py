"""Degrees of model parallelism that a search looks at: few, legal, and given by the words that it shows."""

from __future__ import annotations

import pytest

from aiftrain.plan.axes import with_axes
from aiftrain.plan.layouts import strategy_of, words_of
from aiftrain.plan.legality import layout_problems
from aiftrain.plan.plan import make_plan
from aiftrain.plan.search import best, judge
from aiftrain.plan.spec import resolve
from aiftrain.run.layout import make_layout
from aiftrain.run.spec import RunSpec

SEVEN = ["recipe=eu-llm-7b", "factory=lumi", "nodes=64"]
MOE = ["recipe=eu-llm-moe", "factory=marenostrum5", "nodes=64"]


@pytest.mark.parametrize("words", [SEVEN, MOE], ids=["dense", "experts"])
def test_every_choice_is_legal_and_stays_inside_a_domain(words: list[str]) -> None:
    spec = resolve(words)
    forms = [form.parallelism for form in with_axes(spec)]
    assert 10 < len(forms) < 60
    assert all(not layout_problems(form) for form in with_axes(spec))
    near = spec.hardware.fast_domain or spec.hardware.devices_per_node
    assert max(form.tensor for form in forms) <= near and max(form.sequence for form in forms) <= near
    assert all(form.stage < 2 for form in forms if form.pipeline > 1)
    assert any(form.expert > 1 for form in forms) == (spec.model.moe is not None)
    assert all(form.zero_stage == 3 for form in forms if form.shard_group)


def test_what_a_person_has_set_stays() -> None:
    assert list(with_axes(resolve([*SEVEN, "parallelism=tp", "parallelism.tensor=4"]))) == []


def test_cpus_have_no_fast_domain() -> None:
    assert list(with_axes(resolve(["recipe=smoke", "factory=local", "launcher.ranks_per_node=4"]))) == []


def test_the_words_of_a_form_give_its_layout() -> None:
    found = judge(resolve(SEVEN), "bf16", axes=True)
    for candidate in found[::7]:
        train = candidate.spec.train
        more = [f"train.micro_batch={train.micro_batch}", f"train.recompute={train.recompute}"]
        assert make_layout(resolve([*SEVEN, *words_of(candidate.spec.parallelism), *more])) == candidate.layout
        assert words_of(strategy_of(candidate.layout)) == words_of(candidate.spec.parallelism)


def test_a_batch_smaller_than_the_ranks_is_shared_out_by_other_axes() -> None:
    spec = resolve([*SEVEN, "train.global_batch=256", "parallelism=auto"])
    found = best(spec, "bf16")
    assert isinstance(found, RunSpec)
    assert found.parallelism.ranks_of_a_model == 2, "of 512 ranks, two for each sequence"
    assert make_plan(spec).execution.layout == make_layout(found)


def test_offload_and_secondary_groups_are_among_the_words() -> None:
    strategy = resolve([*SEVEN, "parallelism=offload3"]).parallelism
    assert words_of(strategy) == [
        "parallelism=zero3",
        "parallelism.offload_parameters=cpu",
        "parallelism.offload_optimizer=cpu",
    ]
