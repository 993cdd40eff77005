"""The shipped sites as they compose: their limits, their nodes, and that every recipe plans on them or is too large."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import combinations

import pytest

from aiftrain.errors import ConfigError, Problem
from aiftrain.plan.groups import Groups
from aiftrain.plan.limits import job_limits, seconds_of
from aiftrain.plan.memory import choose_precision, memory_per_rank, states_of
from aiftrain.plan.plan import LaunchPlan, make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.machine import Partition, Qos
from aiftrain.run.spec import RunSpec

GROUPS = Groups()
FACTORIES = GROUPS.choices("factory")
ACCELERATORS = [name for name in GROUPS.choices("hardware") if name != "cpu"]
RECIPES = GROUPS.choices("recipe")
REASONS = ("model states take", "cannot run here", "between failures")  # a run may be too large for a site


@cache
def at(factory: str) -> RunSpec:
    return resolve(["recipe=smoke", f"factory={factory}", "nodes=1"])


@cache
def of(recipe: str) -> RunSpec:
    return resolve([f"recipe={recipe}", "factory=local"])


@pytest.mark.parametrize("factory", FACTORIES)
def test_limits_of_a_site_are_times_and_numbers_that_make_sense(factory: str) -> None:
    site = at(factory).factory
    assert site.partition is None or site.partition in site.partitions
    queues: list[Partition | Qos] = [*site.partitions.values(), *site.qos.values()]
    for queue in queues:
        assert queue.max_time is None or seconds_of(queue.max_time)
        assert (queue.min_nodes or 1) <= (queue.max_nodes or site.nodes_total or 10**6)
    for partition in site.partitions.values():
        default, longest = (seconds_of(time or "") for time in (partition.default_time, partition.max_time))
        assert partition.default_time is None or default
        assert default is None or longest is None or default <= longest


def test_no_two_sites_answer_to_one_name() -> None:
    sites = [at(name).factory for name in FACTORIES]
    for one, other in combinations(sites, 2):
        assert not set(one.cluster_names) & set(other.cluster_names)
        assert not set(one.host_patterns) & set(other.host_patterns)
    for site in sites:
        assert all(re.compile(pattern) for pattern in (*site.host_patterns, site.account_pattern or ""))


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_nodes_of_a_site_are_described_once_a_device(factory: str) -> None:
    node = at(factory).hardware
    for each in (node.device_numa, node.device_cores, node.device_nics):
        assert len(each) in (0, node.devices_per_node)
    assert node.numa_domains is None or all(domain < node.numa_domains for domain in node.device_numa)
    _assert_apart([_cores(text) for text in node.device_cores], node.usable_cores_per_node)


@pytest.mark.parametrize("factory", FACTORIES)
def test_ranks_are_bound_to_cores_of_their_own(factory: str) -> None:
    site, node = at(factory).factory, at(factory).hardware
    if site.cpus_per_task and node.usable_cores_per_node:
        assert site.cpus_per_task * node.devices_per_node <= node.usable_cores_per_node
    if (site.cpu_bind or "").startswith("mask_cpu:"):
        masks = [int(mask, 16) for mask in str(site.cpu_bind).removeprefix("mask_cpu:").split(",")]
        assert len(masks) == node.devices_per_node
        _assert_apart([{bit for bit in range(512) if mask >> bit & 1} for mask in masks], node.usable_cores_per_node)


@pytest.mark.parametrize(
    "factory", [name for name in FACTORIES if GROUPS.read("factory", name)["status"] == "announced"]
)
def test_an_announced_machine_is_planned_on_with_a_warning_and_takes_no_jobs(factory: str) -> None:
    spec = resolve(["recipe=eu-llm-1b", f"factory={factory}", "nodes=2", "account=a", "data.root=/corpus"])
    told = make_plan(spec).estimate
    assert any(f"{factory} is announced" in warning for warning in told.warnings)
    assert any(f"nodes of {factory} taken as {spec.hardware.name}" in assumption for assumption in told.assumptions)
    with pytest.raises(ConfigError, match="announced and takes no jobs yet"):
        make_plan(spec, to_launch=True)


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_recipe_plans_on_every_site_or_is_too_large_for_it(factory: str) -> None:
    for recipe in RECIPES:
        found = _plan_where_it_fits(recipe, factory)
        if isinstance(found, LaunchPlan):
            hardware = at(factory).hardware
            assert found.execution.precision == ("fp32" if hardware.is_cpu and not hardware.bf16 else hardware.half)
        else:
            assert any(reason in str(each) for each in found for reason in REASONS), str(found)


def test_most_recipes_plan_on_most_sites() -> None:
    """That a refusal is legal may not hide that all are refused."""
    for factory in ("lumi", "leonardo", "marenostrum5", "jupiter", "karolina", "it4lia", "lumi-ai"):
        for recipe in ("smoke", "eu-llm-1b", "eu-llm-7b"):
            assert isinstance(_plan_where_it_fits(recipe, factory), LaunchPlan), f"{recipe} on {factory}"


@pytest.mark.parametrize("hardware", ACCELERATORS)
def test_a_recipe_plans_on_every_accelerator(hardware: str) -> None:
    spec = resolve(["recipe=eu-llm-1b", "factory=lumi", f"hardware={hardware}", "train.micro_batch=1"])
    assert make_plan(spec).execution.precision == ("fp16" if hardware.startswith("v100") else "bf16")


def test_v100_takes_fp16_says_why_and_refuses_bf16() -> None:
    v100 = ["recipe=eu-llm-1b", "factory=jeanzay-v100"]
    plan = make_plan(resolve(v100))
    assert plan.execution.precision == "fp16"
    why = "losses scaled, because v100-32 has no fast bf16"
    assert any(why in assumption for assumption in plan.estimate.assumptions)
    with pytest.raises(ConfigError, match=r"train\.precision: bf16, but v100-32 has no bf16\n +train\.precision=fp16"):
        make_plan(resolve([*v100, "train.precision=bf16"]))


def test_a_quality_of_service_changes_the_limits() -> None:
    leonardo = ["recipe=eu-llm-1b", "factory=leonardo", "nodes=128"]
    with pytest.raises(ConfigError, match=r"at most 64\n +nodes=64 or launcher\.qos=boost_qos_bprod"):
        make_plan(resolve(leonardo))
    assert make_plan(resolve([*leonardo, "launcher.qos=boost_qos_bprod"])).estimate.time_limit == "1-00:00:00"
    with pytest.raises(ConfigError, match="qos boost_qos_bprod on leonardo is for 65 and more"):
        make_plan(resolve([*leonardo, "launcher.qos=boost_qos_bprod", "nodes=8"]))
    assert job_limits(resolve([*leonardo, "launcher.qos=boost_qos_dbg"])).max_time == "00:30:00"
    assert job_limits(resolve(["recipe=eu-llm-1b", "factory=marenostrum5"])).max_nodes == 100


def _plan_where_it_fits(recipe: str, factory: str) -> LaunchPlan | tuple[Problem, ...]:
    """The plan on the fewest nodes that hold the recipe there and share out its batch, or why there is none."""
    sizes = list(_sizes(recipe, factory))
    refusals: tuple[Problem, ...] = ()
    for spec in [spec for spec in sizes if _holds(spec)] or sizes[-1:]:
        try:
            return make_plan(spec)
        except ConfigError as error:
            refusals = error.problems
    return refusals


def _holds(spec: RunSpec) -> bool:
    have = memory_per_rank(spec)
    return have is None or states_of(spec, choose_precision(spec)).total <= have


def _sizes(recipe: str, factory: str) -> Iterator[RunSpec]:
    """The recipe at a site on 1, 2, 4, ... nodes, as many as one job gets."""
    site, run = at(factory), of(recipe)
    train = run.train.model_copy(update={"micro_batch": 1})
    there = {"factory": site.factory, "hardware": site.hardware, "launcher": site.launcher, "train": train}
    most = job_limits(site).max_nodes or 1024
    for nodes in (2**power for power in range(11)):
        if nodes <= most and (nodes == 1 or site.launcher.name == "slurm"):
            yield run.model_copy(update=there | {"nodes": nodes})


def _cores(text: str) -> set[int]:
    """The cores of a list as taskset writes it: 0-3,8."""
    parts = (part.partition("-") for part in text.split(","))
    return {core for first, _, last in parts for core in range(int(first), int(last or first) + 1)}


def _assert_apart(groups: list[set[int]], cores: int | None) -> None:
    """Groups of cores are apart, or the same where two devices share a domain; all of them fit into the node."""
    assert all(one == other or not one & other for one, other in combinations(groups, 2))
    assert cores is None or len(set().union(*groups)) <= cores
