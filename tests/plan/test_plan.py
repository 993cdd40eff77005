"""Plans: what they add up to, and that what a refusal advises really works."""

from __future__ import annotations

import re
import shlex

import pytest

from aiftrain.errors import ConfigError
from aiftrain.plan.advice import smallest_fit
from aiftrain.plan.memory import memory_per_rank, states_of
from aiftrain.plan.plan import LaunchPlan, make_plan
from aiftrain.plan.spec import resolve

LUMI = ["recipe=eu-llm-7b", "factory=lumi"]
LAPTOP = ["factory=local", "hardware.node_memory_gib=16"]


def test_a_plan_adds_up() -> None:
    spec = resolve([*LUMI, "nodes=64", "time=12:00:00"])
    estimate = make_plan(spec).estimate
    assert estimate.tokens == estimate.steps * 3072 * 4096 >= 4e12 > (estimate.steps - 1) * 3072 * 4096
    assert estimate.flops == estimate.flops_per_token * estimate.tokens
    assert estimate.flops_6nd == pytest.approx(6 * spec.model.parameters * estimate.tokens)
    assert estimate.states_by_stage[spec.parallelism.stage] == estimate.states.total
    assert estimate.checkpoint_bytes == 12 * spec.model.parameters
    assert (estimate.billed_per_hour, estimate.billed_at_most, estimate.billing_unit) == (256, 3072, "GPU-hour")


def test_a_plan_reads_back_from_its_json() -> None:
    plan = make_plan(resolve(LUMI))
    assert LaunchPlan.model_validate_json(plan.model_dump_json()) == plan


def test_checkpoints_kept_are_no_more_than_are_ever_written() -> None:
    smoke = make_plan(resolve(["recipe=smoke", "train.steps=100", "storage.save_every=50"])).estimate
    assert smoke.checkpoints_kept_bytes == 2 * smoke.checkpoint_bytes
    words = ["recipe=smoke", "train.steps=1000", "storage.save_every=50", "storage.keep_every=250"]
    longer = make_plan(resolve(words)).estimate
    assert longer.checkpoints_kept_bytes == (2 + 4 + 1) * longer.checkpoint_bytes
    shipped = [*words, "storage.archives=[/archive]", "storage.keep_unshipped=5"]
    assert make_plan(resolve(shipped)).estimate.checkpoints_kept_bytes == (2 + 4 + 5 + 1) * longer.checkpoint_bytes


def test_warnings_say_what_a_person_must_decide() -> None:
    warnings = "\n".join(make_plan(resolve([*LUMI, "factory.status=announced"])).warnings)
    assert "announced" in warnings
    assert "account=" in warnings
    assert "1e23" in warnings
    assert "warm-up of 500 steps" in "".join(
        make_plan(resolve(["recipe=smoke", "optimizer.warmup_steps=500"])).estimate.warnings
    )
    tight = make_plan(resolve([*LUMI, "parallelism=zero1", "hardware.device_memory_gib=55"])).warnings
    assert any("run out of memory" in warning for warning in tight)


def test_what_nobody_documents_is_said_to_be_unknown() -> None:
    unknowns = make_plan(resolve([*LUMI, "hardware=mi300a"])).estimate.unknowns
    assert "hardware.matmul_bf16_tflops" in unknowns
    elsewhere = make_plan(resolve(["recipe=smoke", "factory=lumi", "hardware=cpu"])).estimate
    assert elsewhere.memory_per_rank is None
    assert "hardware.node_memory_gib" in elsewhere.unknowns


def test_a_run_that_goes_on_keeps_its_precision() -> None:
    spec = resolve(["recipe=smoke", "hardware.bf16=true"])
    assert make_plan(spec).execution.precision == "bf16"
    assert make_plan(spec, precision="fp32").execution.precision == "fp32"


def test_the_stage_that_a_refusal_advises_fits() -> None:
    with pytest.raises(ConfigError) as error:
        make_plan(resolve([*LUMI, "parallelism=ddp"]))
    advised = re.search(r"parallelism=zero\d", str(error.value))
    assert advised
    make_plan(resolve([*LUMI, advised[0]]))


def test_the_nodes_that_a_refusal_advises_are_the_fewest_that_fit() -> None:
    overrides = [*LUMI, "parallelism=zero3", "nodes=1", "hardware.device_memory_gib=5"]
    with pytest.raises(ConfigError) as error:
        make_plan(resolve(overrides))
    advised = re.search(r"nodes=(\d+)", str(error.value))
    assert advised
    nodes = int(advised[1])
    make_plan(resolve([*overrides, f"nodes={nodes}"]))
    for fewer in range(1, nodes):
        with pytest.raises(ConfigError):
            make_plan(resolve([*overrides, f"nodes={fewer}"]))
    assert smallest_fit(resolve(overrides), nodes - 1) is None


def test_on_a_laptop_the_large_recipe_says_what_it_needs_what_is_here_and_what_would_work() -> None:
    spec = resolve(["recipe=eu-llm-7b", *LAPTOP])
    with pytest.raises(ConfigError) as error:
        make_plan(spec, to_launch=True)
    message = str(error.value)
    assert len(error.value.problems) == 1
    need, have = states_of(spec, "fp32", nodes=1).total, memory_per_rank(spec)
    assert have
    for phrase in ("eu-llm-7b cannot run here", f"{need / 2**30:.1f} GiB", f"{have / 2**30:.1f} GiB", "128 nodes"):
        assert phrase in message
    commands = [shlex.split(line.strip()) for line in message.splitlines() if "python -m aiftrain" in line]
    assert any("account=<yours>" in words and "factory=lumi" in words for words in commands)
    for words in commands:
        overrides = [word for word in words[3:] if "=" in word]
        make_plan(resolve([word.replace("<yours>", "mine").replace("<folder>", "/corpus") for word in overrides]))


def test_a_recipe_for_many_nodes_that_one_holds_is_offered_on_one() -> None:
    with pytest.raises(ConfigError, match="python -m aiftrain recipe=eu-llm-1b nodes=1\n"):
        make_plan(resolve(["recipe=eu-llm-1b", "factory=local", "hardware.node_memory_gib=512"]))
