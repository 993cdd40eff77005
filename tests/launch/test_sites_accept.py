"""Every site's jobs before a real Slurm of its shape and size: it takes what we submit, we refuse what it would."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from aiftrain.errors import ConfigError
from aiftrain.launch.script import render
from aiftrain.plan.groups import Groups
from aiftrain.plan.limits import job_limits, seconds_of
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec
from tests.rigs.shape import site_shape
from tests.rigs.slurm import SlurmRig, missing_packages

GROUPS = Groups()
ACCOUNT = "rig"
LARGE = 1000  # nodes of one job, where nobody documents how many a job or the site has


def _takes_jobs(name: str) -> bool:
    factory = GROUPS.read("factory", name)
    return bool(factory["scheduler"] == "slurm" and factory["status"] == "operational")


SITES = [name for name in GROUPS.choices("factory") if _takes_jobs(name)]
MISSING = missing_packages()
MISSING_WITH_DATABASE = missing_packages(accounting=True)
needs_slurm = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
needs_database = pytest.mark.skipif(MISSING_WITH_DATABASE is not None, reason=str(MISSING_WITH_DATABASE))


@cache
def composed(site: str, *overrides: str) -> RunSpec:
    return resolve(["recipe=smoke", f"factory={site}", f"account={ACCOUNT}", "train.micro_batch=1", *overrides])


def job(site: str, *overrides: str, nodes: int = 1) -> RunSpec:
    """The smoke recipe at a site, with a batch that as many nodes can share."""
    spec = composed(site, *overrides)
    train = spec.train.model_copy(update={"global_batch": nodes * spec.hardware.devices_per_node})
    return spec.model_copy(update={"train": train, "nodes": nodes})


def script(spec: RunSpec, folder: Path) -> Path:
    """job.sh as a launch writes it. Raises ConfigError as a launch does."""
    run = RunFolder(folder / "run")
    run.write(run.job_sh, render(spec, make_plan(spec, to_launch=True).execution.layout, run))
    return run.job_sh


def queues(site: str) -> Iterator[tuple[str, ...]]:
    """The overrides that lead to each partition and quality of service of a site."""
    factory = job(site).factory
    yield ()
    yield from ((f"launcher.partition={name}",) for name in factory.partitions if name != factory.partition)
    yield from ((f"launcher.qos={name}",) for name in factory.qos)


@needs_slurm
@pytest.mark.parametrize("site", SITES)
def test_jobs_of_all_sizes_are_accepted_at_full_size(site: str, tmp_path: Path) -> None:
    spec = job(site)
    with SlurmRig(site_shape(spec.factory, spec.hardware)) as rig:
        for partition in spec.factory.partitions or [""]:
            words = [f"launcher.partition={partition}"] if partition else []
            limits = job_limits(job(site, *words))
            least, most = limits.min_nodes or 1, limits.max_nodes or LARGE
            for nodes in sorted({least, min(least + 1, most), most}):
                assert rig.accepts(script(job(site, *words, nodes=nodes), tmp_path)) is None, (partition, nodes)


@needs_slurm
@pytest.mark.parametrize("site", SITES)
def test_what_the_site_would_refuse_is_refused_before_it(site: str, tmp_path: Path) -> None:
    spec = job(site)
    limits = job_limits(spec)
    with SlurmRig(site_shape(spec.factory, spec.hardware)) as rig:
        good = script(spec, tmp_path)
        if limits.max_nodes:
            _both_refuse(rig, good, f"--nodes={limits.max_nodes + 1}", job(site, nodes=limits.max_nodes + 1))
        if limits.max_time:
            minutes = (seconds_of(limits.max_time) or 0) // 60 + 1
            _both_refuse(rig, good, f"--time={minutes}", job(site, f"time='{minutes}'"))
        if spec.factory.partitions:
            _both_refuse(rig, good, "--partition=nosuch", job(site, "launcher.partition=nosuch"))


def _both_refuse(rig: SlurmRig, good: Path, option: str, spec: RunSpec) -> None:
    assert rig.accepts(good, option) is not None, option
    with pytest.raises(ConfigError):
        make_plan(spec, to_launch=True)


@needs_slurm
def test_style_and_size_of_tasks_fit_a_node(tmp_path: Path) -> None:
    for site in ("lumi", "marenostrum5", "jeanzay-h100", "deucalion"):
        spec = job(site, "launcher.style=task-per-node")
        with SlurmRig(site_shape(spec.factory, spec.hardware)) as rig:
            assert rig.accepts(script(spec, tmp_path)) is None, site
            fewer = job(site, "launcher.ranks_per_node=1")
            assert rig.accepts(script(fewer, tmp_path)) is None, site


@needs_database
@pytest.mark.slow
@pytest.mark.parametrize("site", ["leonardo", "marenostrum5", "meluxina", "musica", "jeanzay-h100"])
def test_accounts_and_qualities_of_service_are_judged_alike(site: str, tmp_path: Path) -> None:
    spec = job(site)
    with SlurmRig(site_shape(spec.factory, spec.hardware, (ACCOUNT,)), accounting=True) as rig:
        good = script(spec, tmp_path)
        assert "Invalid account" in str(rig.accepts(good, "--account=nosuch"))
        for words in queues(site):
            limits = job_limits(job(site, *words))
            most = limits.max_nodes or LARGE
            assert rig.accepts(script(job(site, *words, nodes=most), tmp_path)) is None, words
            if limits.max_nodes:
                good = script(job(site, *words, nodes=most), tmp_path)
                _both_refuse(rig, good, f"--nodes={most + 1}", job(site, *words, nodes=most + 1))
