"""Comparison: each site as composing makes it, on nodes that it gives, and a reason where it cannot be."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from aiftrain.errors import ConfigError, UserError
from aiftrain.plan.compare import Entry, at, compare
from aiftrain.plan.counts import counts, placed
from aiftrain.plan.groups import Groups
from aiftrain.plan.limits import site_problems
from aiftrain.plan.spec import resolve

SEVEN = ["recipe=eu-llm-7b"]


@cache
def everywhere(deadline: float | None = None) -> dict[str, Entry]:
    return {entry.name: entry for entry in compare(SEVEN, ["all"], deadline)}


@pytest.mark.parametrize(
    "name", ["leonardo", "hunter", "discoverer-plus", "discoverer", "generic-slurm", "jeanzay-v100"]
)
def test_a_site_is_what_composing_the_run_there_makes_of_it(name: str) -> None:
    there = at(resolve([*SEVEN, "factory=lumi", "account=project_462000001"]), name, Groups())
    composed = resolve([*SEVEN, f"factory={name}", "account=project_462000001"])
    assert there == composed


def test_every_shipped_site_has_a_price_or_a_reason() -> None:
    entries = everywhere()
    shipped = [name for name in Groups().choices("factory") if name not in ("local", "generic-slurm")]
    assert list(entries) == shipped
    for entry in entries.values():
        assert (entry.priced is not None) != bool(entry.why)
    assert {"lumi", "leonardo", "jupiter", "marenostrum5"} <= {name for name, one in entries.items() if one.priced}
    assert entries["lumi-ai"].announced and "nobody documents" in entries["lumi-ai"].why


def test_sites_have_the_nodes_asked_for_or_the_next_number_that_works() -> None:
    for entry in everywhere().values():
        assert entry.option is not None
        spec, nodes = entry.option.spec, entry.option.nodes
        assert not site_problems(spec)
        possible = counts(spec.model_copy(update={"launcher": spec.launcher.model_copy(update={"qos": None})}))
        assert nodes == 128 or nodes == max(other for other in possible if other < 128)
    leonardo = everywhere()["leonardo"].option
    assert leonardo is not None and leonardo.spec.launcher.qos == "boost_qos_bprod"


def test_too_few_nodes_grow_until_the_run_fits() -> None:
    (entry,) = compare(["recipe=eu-llm-70b", "nodes=1"], ["karolina"], None)
    assert entry.option is not None and entry.option.nodes == 16 and entry.option.candidate.fits


def test_a_deadline_gets_each_site_its_own_number_of_nodes() -> None:
    entries = everywhere(30.0)
    lumi, deucalion, unknown = (entries[name].option for name in ("lumi", "deucalion", "lumi-ai"))
    assert lumi is not None and lumi.days <= 30
    fewer = max(nodes for nodes in counts(lumi.spec) if nodes < lumi.nodes)
    (there,) = compare([*SEVEN, f"nodes={fewer}"], ["lumi"], None)
    assert there.priced is not None and there.priced.days > 30
    assert deucalion is not None and deucalion.nodes == 4 and "misses the deadline" in entries["deucalion"].why
    assert unknown is not None and unknown.nodes == 128, "nothing is known of the deadline, so as asked"


def test_hardware_without_bf16_is_refused_bf16() -> None:
    (entry,) = compare([*SEVEN, "train.precision=bf16"], ["jeanzay-v100"], None)
    assert entry.option is None and "v100-32 has no bf16" in entry.why


def test_a_batch_that_no_number_of_nodes_shares_is_said() -> None:
    (entry,) = compare([*SEVEN, "train.global_batch=7"], ["lumi"], None)
    assert entry.option is None and "shares out 7 sequences" in entry.why


@pytest.mark.parametrize(
    ("overrides", "names", "message"),
    [
        (SEVEN, ["lumi", "leonrado"], "did you mean leonardo"),
        ([*SEVEN, "factory=lumi"], ["lumi"], "factory: holds at one site"),
        ([*SEVEN, "hardware.device_memory_gib=80"], ["all"], "hardware.device_memory_gib: holds at one site"),
        ([*SEVEN, "launcher.partition=gpu"], ["all"], "launcher.partition: holds at one site"),
        ([*SEVEN, "train.steps=-1"], ["lumi"], "train.steps"),
        (SEVEN, [], "--compare takes factories"),
    ],
)
def test_wrong_input_is_said(overrides: list[str], names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(overrides, names, None)


def test_a_site_of_ones_own_takes_part_and_its_mistakes_are_named(tmp_path: Path) -> None:
    file = tmp_path / "factory" / "mine.yaml"
    file.parent.mkdir()
    text = (
        "defaults:\n  - override /hardware@_global_.hardware: h200\n  - override /launcher@_global_.launcher: slurm\n"
    )
    file.write_text(text + "name: mine\ntitle: Ours\nscheduler: slurm\nnodes_total: 4\nnode: {devices_per_node: 8}\n")
    own = [*SEVEN, f"hydra.searchpath=[{tmp_path}]"]
    (entry,) = compare(own, ["mine"], None)
    assert entry.option is not None and entry.option.nodes == 4
    assert placed(entry.option.spec, 6) is None
    file.write_text(text + "name: mine\ntitle: Ours\nnodes_total: many\n")
    with pytest.raises(ConfigError, match=r"factory\.nodes_total"):
        compare(own, ["lumi", "mine"], None)
