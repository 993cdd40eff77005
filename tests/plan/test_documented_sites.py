"""The sites that people use first are as their documentation says, and no profile holds what it must not."""

from __future__ import annotations

import re
from functools import reduce
from operator import or_

import pytest

from aiftrain.errors import ConfigError
from aiftrain.plan.groups import Groups
from aiftrain.plan.limits import chosen_reservation, job_limits, time_limit
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.machine import Factory
from aiftrain.run.spec import RunSpec

GROUPS = Groups()
SITES = GROUPS.choices("factory")


def factory(name: str) -> Factory:
    return Factory.model_validate(GROUPS.read("factory", name))


def planned(name: str, *overrides: str) -> RunSpec:
    """A run of the 1B recipe at a site, on one node unless the overrides say otherwise."""
    spec = resolve(["recipe=eu-llm-1b", f"factory={name}", "nodes=1", *overrides])
    make_plan(spec)
    return spec


@pytest.mark.parametrize("host", ["login01", "login1", "node001", "cn0001", "localhost", "gpu01", "laptop"])
def test_a_common_host_name_is_taken_for_no_site(host: str) -> None:
    claims = [name for name in SITES if any(re.search(pattern, host) for pattern in factory(name).host_patterns)]
    assert claims == []


@pytest.mark.parametrize("name", SITES)
def test_no_account_and_no_facility_overhead_is_shipped(name: str) -> None:
    site = factory(name)
    assert site.pue is None, "nobody published a verified figure"
    assert site.country is None or re.fullmatch("[A-Z]{2}", site.country)
    text = GROUPS.file("factory", name).read_text(encoding="utf-8")
    assert not re.search(r"(naiss\d{4}-|project_46\d{7}|\bp200\d{3}\b|--account=\w)", text)


def test_jupiter() -> None:
    spec = planned("jupiter")
    site, node = spec.factory, spec.hardware
    assert (node.devices_per_node, node.usable_cores_per_node, node.arch) == (4, 288, "aarch64")
    assert node.device_cores == ("0-71", "72-143", "144-215", "216-287")
    assert node.device_nics == ("mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3")
    assert (site.partition, time_limit(spec), site.gpu_request) == ("booster", "12:00:00", ("--gres=gpu:4",))
    assert (site.account_required, site.internet_on_compute) == (True, False)
    assert site.rendezvous.suffix != "i", "that is JUWELS and JURECA"
    assert site.billing is not None
    assert (site.billing.unit, site.billing.per_node_hour) == ("core-hour", 288)
    assert all(area.path.startswith("/e/") for area in site.storage_areas.values()), "/p is JUWELS"
    assert (site.storage_areas["scratch"].purge_days, site.storage_areas["fscratch"].purge_days) == (90, 30)


def test_jedi_is_not_jupiter() -> None:
    site = factory("jedi")
    assert (site.partition, site.rendezvous.rule, site.rendezvous.suffix) == ("all", "hostname", None)


def test_meluxina_wants_a_qos_and_gives_a_quarter_of_its_nodes_by_default() -> None:
    spec = planned("meluxina")
    assert spec.factory.partitions["gpu"].qos == "default"
    assert (spec.factory.hint, spec.hardware.name) == ("nomultithread", "a100-40")
    assert (job_limits(spec).max_nodes, time_limit(spec)) == (50, "2-00:00:00")
    large = planned("meluxina", "launcher.qos=large")
    assert (job_limits(large).max_nodes, time_limit(large)) == (140, "24:00:00")
    with pytest.raises(ConfigError, match=r"launcher\.qos=large"):
        planned("meluxina", "nodes=64")


def test_hunter_is_a_pbs_machine_whose_runs_are_planned_on_many_nodes() -> None:
    spec = planned("hunter", "nodes=64")
    assert (spec.factory.scheduler, spec.hardware.name) == ("pbs", "mi300a")
    assert (time_limit(spec), spec.factory.internet_on_compute) == ("24:00:00", False)
    assert make_plan(spec).execution.layout.world_size == 256
    with pytest.raises(ConfigError, match="gives a job at most 188"):
        planned("hunter", "nodes=256")


def test_a_job_on_discoverer_plus_has_four_hours_and_the_qos_of_its_project() -> None:
    spec = planned("discoverer-plus", "account=mine")
    assert time_limit(spec) == "04:00:00"
    assert spec.factory.partitions["common"].qos == "mine"
    assert planned("discoverer-plus").factory.partitions["common"].qos is None
    assert spec.factory.gpu_request == ("--gres=gpu:8",)
    assert (spec.factory.hint, spec.factory.cpus_per_task) == ("nomultithread", 13), "26 threads"
    assert spec.factory.memory == f"{8 * 257_000}M", "more a GPU, and the second budget ends first"
    with pytest.raises(ConfigError, match="at most 1"):
        planned("discoverer-plus", "nodes=2")


def test_the_qos_of_musica_is_called_like_its_partition() -> None:
    spec = planned("musica")
    assert spec.factory.partition is not None
    assert spec.factory.partitions[spec.factory.partition].qos == spec.factory.partition
    assert (spec.hardware.device_numa, spec.hardware.numa_domains) == ((2, 3, 4, 6), 8)
    development = planned("musica", "launcher.qos=dev_zen4_0768_h100x4")
    assert (job_limits(development).max_nodes, time_limit(development)) == (2, "00:10:00")


@pytest.mark.parametrize(
    ("name", "constraint", "account", "cores"),
    [
        ("jeanzay-h100", "h100", "abc@h100", 24),
        ("jeanzay-a100", "a100", "abc@a100", 8),
        ("jeanzay-v100", "v100-32g", "abc@v100", 10),
    ],
)
def test_constraint_account_and_cores_of_jean_zay_are_those_of_the_gpu(
    name: str, constraint: str, account: str, cores: int
) -> None:
    spec = planned(name)
    site, node = spec.factory, spec.hardware
    assert (site.constraint, site.hint, site.cpus_per_task) == (constraint, "nomultithread", cores)
    assert node.usable_cores_per_node == cores * node.devices_per_node
    assert re.search(site.account_pattern or "", account)
    assert not re.search(site.account_pattern or "", "abc@other")
    assert (time_limit(spec), site.internet_on_compute) == ("20:00:00", False)


def test_masks_are_one_a_device_and_hold_the_cores_nearest_to_it() -> None:
    bound = [name for name in SITES if (factory(name).cpu_bind or "").startswith("mask_cpu:")]
    assert {"lumi", "marenostrum5", "deucalion"} <= set(bound)
    for name in bound:
        node = planned(name).hardware
        masks = [int(mask, 16) for mask in (factory(name).cpu_bind or "").removeprefix("mask_cpu:").split(",")]
        assert len(masks) == len(node.device_cores) == node.devices_per_node, name
        for mask, cores in zip(masks, node.device_cores, strict=True):
            first, last = map(int, cores.split("-"))
            assert mask == sum(1 << core for core in range(first, last + 1)), (name, cores)
        assert len(set(masks)) == (2 if name == "deucalion" else len(masks)), "there two GPUs share a NUMA domain"
        assert sum(set(masks)) == reduce(or_, masks), "no two overlap in part"


def test_two_gpus_of_deucalion_share_a_numa_domain() -> None:
    assert planned("deucalion").hardware.device_numa == (2, 2, 6, 6)
    with pytest.raises(ConfigError, match="at most 4"):
        planned("deucalion", "nodes=8")


def test_a_quality_of_service_that_a_site_lacks_is_refused_unless_the_user_has_been_given_it() -> None:
    with pytest.raises(ConfigError, match="did you mean acc_ehpc") as refused:
        planned("marenostrum5", "launcher.qos=acc_ehcp")
    assert "'+factory.qos.acc_ehcp={}'" in str(refused.value)
    own = planned("marenostrum5", "launcher.qos=acc_own", "+factory.qos.acc_own.max_nodes=128", "nodes=128")
    assert job_limits(own).max_nodes == 128
    assert planned("discoverer-plus", "launcher.qos=another").factory.qos == {}, "named as projects are: any may be"


def test_a_job_that_may_run_in_a_reservation_alone_names_it() -> None:
    assert chosen_reservation(planned("meluxina", "launcher.qos=dev")) == "gpudev"
    assert chosen_reservation(planned("meluxina")) is None


@pytest.mark.parametrize(
    ("name", "partition", "limit", "account"),
    [
        ("arrhenius", "gpu", "3-00:00:00", "project-gpu"),
        ("helios", "plgrid-gpu-gh200", "2-00:00:00", "grant-gpu-gh200"),
    ],
)
def test_accounts_of_the_other_gh200_machines_end_as_the_sites_want(
    name: str, partition: str, limit: str, account: str
) -> None:
    spec = planned(name)
    assert (spec.factory.partition, time_limit(spec), spec.factory.cpus_per_task) == (partition, limit, 72)
    assert re.search(spec.factory.account_pattern or "", account)
    assert not re.search(spec.factory.account_pattern or "", "project")


def test_a_cluster_of_ones_own_is_described_on_the_command_line() -> None:
    spec = planned("generic-slurm", "hardware=a100-80", "hardware.devices_per_node=4", "launcher.partition=gpu")
    assert spec.factory.gpu_request == ("--gpus-per-node=4",)
    assert make_plan(spec).execution.layout.ranks_per_node == 4
    assert not spec.factory.account_required
