"""What `bench` is to do: the cut run, a step of each strategy, what cannot be and why, and the job of a site."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.errors import ConfigError
from aiftrain.launch.script import render
from aiftrain.plan.bench import bench_plan, bench_spec
from aiftrain.plan.groups import Groups
from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import make_layout


def test_without_a_recipe_it_is_the_smoke_recipe_and_every_strategy() -> None:
    spec, cases = bench_spec(["factory=local", "launcher.ranks_per_node=2"], "runs/bench/now")
    assert (spec.recipe, spec.purpose, spec.run_folder) == ("smoke", "bench", "runs/bench/now")
    found = {case.strategy: case for case in cases.cases}
    assert {"ddp", "zero1", "zero2", "zero3", "tp"} <= found.keys() <= set(Groups().choices("parallelism"))
    assert {case.execution.layout.world_size for case in cases.cases} == {2}
    stages = [found[name].deepspeed["zero_optimization"]["stage"] for name in ("ddp", "zero1", "zero2", "zero3")]
    assert stages == [0, 1, 2, 3]
    assert found["tp"].execution.layout.tensor_parallel == 2
    why = {each.what: each.why for each in cases.missing}
    assert "2 ranks are no multiple" in why["a step of 3d"]
    assert bench_plan(spec).execution.layout.world_size == 2


def test_the_model_and_the_batch_are_cut() -> None:
    spec, _ = bench_spec(["recipe=smoke", "factory=local", "bench.layers=2", "launcher.ranks_per_node=4"], "x")
    assert spec.model.num_layers == 2
    assert spec.train.global_batch == 4 * spec.train.micro_batch
    layout = make_layout(spec)
    assert not isinstance(layout, str) and getattr(layout, "accumulation", 0) == 1


def test_a_model_that_does_not_fit_leaves_its_steps_out_and_says_why() -> None:
    spec, cases = bench_spec(["recipe=eu-llm-70b", "factory=local", "nodes=1"], "x")
    assert not cases.cases
    why = {each.what: each.why for each in cases.missing}
    assert "needs" in why["a step of ddp"]
    assert bench_plan(spec).execution.layout.world_size == 1


def test_only_the_strategies_that_were_asked_for() -> None:
    _, cases = bench_spec(["factory=local", "bench.strategies=[zero1,zero3]"], "x")
    assert [case.strategy for case in cases.cases] == ["zero1", "zero3"]
    with pytest.raises(ConfigError, match=r"there is no 'zero9'\n.*did you mean zero"):
        bench_spec(["factory=local", "bench.strategies=[zero9]"], "x")


def test_a_strategy_of_ones_own_has_to_have_its_values(tmp_path: Path) -> None:
    (tmp_path / "parallelism").mkdir()
    text = "# One's own.\nname: mine\nzero_stage: 1\nbucket_millions: ???\n"
    (tmp_path / "parallelism" / "mine.yaml").write_text(text, encoding="utf-8")
    words = ["factory=local", f"hydra.searchpath=[file://{tmp_path}]", "bench.strategies=[mine]"]
    _, cases = bench_spec(words, "x")
    assert [each.why for each in cases.missing] == ["parallelism.bucket_millions: has no value"]
    _, cases = bench_spec([*words, "parallelism=mine", "parallelism.bucket_millions=3"], "x")
    assert [case.spec.parallelism.bucket_millions for case in cases.cases] == [3], "what was typed is kept"


def test_parallelism_auto_is_no_strategy() -> None:
    spec, cases = bench_spec(["factory=local", "parallelism=auto"], "x")
    assert "auto" not in [case.strategy for case in cases.cases]
    assert spec.parallelism.zero_stage is not None


def test_a_job_needs_an_account_but_no_data(tmp_path: Path) -> None:
    words = ["recipe=eu-llm-7b", "factory=lumi", "nodes=2"]
    with pytest.raises(ConfigError, match=r"1 problem.*\n.*account"):
        bench_spec(words, "x")
    spec, cases = bench_spec([*words, "account=project_1"], "x")
    assert {case.execution.layout.world_size for case in cases.cases} == {16}
    assert (spec.time, spec.launcher.chain) == ("12", "none")
    script = render(spec, bench_plan(spec).execution.layout, RunFolder(tmp_path))
    assert "export AIFTRAIN_MODULE=aiftrain.train.bench" in script


def test_an_announced_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="announced"):
        bench_spec(["factory=gaia"], "x")
