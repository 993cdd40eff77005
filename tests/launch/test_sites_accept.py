"""Every site's jobs before a real Slurm of its shape and size: it takes what we submit, we refuse what it would.

What the sites are is written in tests/rigs/sites, without a look at conf/. Where both disagree one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from aiftrain.errors import ConfigError
from aiftrain.launch.script import render
from aiftrain.plan.groups import Groups
from aiftrain.plan.limits import seconds_of
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec
from tests.rigs.described import FOLDER, Jobs, Keys, Queue, read_cluster
from tests.rigs.slurm import SlurmRig, missing_packages

GROUPS = Groups()
CLUSTERS = {name: read_cluster(name) for name in sorted(file.stem for file in FOLDER.glob("*.yaml"))}
WITH_ACCOUNTS = [name for name, cluster in CLUSTERS.items() if cluster.shape.words and cluster.shape.words.sacctmgr]
NONE: Keys = {}
STYLES: tuple[Keys, ...] = ({"style": "task-per-node"}, {"ranks_per_node": 1})
MISSING, MISSING_WITH_DATABASE = missing_packages(), missing_packages(accounting=True)
needs_slurm = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
needs_database = pytest.mark.skipif(MISSING_WITH_DATABASE is not None, reason=str(MISSING_WITH_DATABASE))


@cache
def composed(site: str, account: str) -> RunSpec:
    return resolve(["recipe=smoke", f"factory={site}", f"account={account}", "train.micro_batch=1"])


def job(jobs: Jobs, nodes: int, time: str | None = None, keys: Keys = NONE) -> RunSpec:
    """The smoke recipe there, with a batch that so many nodes share, and other keys of the launcher or account."""
    spec = composed(jobs.factory, jobs.account)
    train = spec.train.model_copy(update={"global_batch": nodes * spec.hardware.devices_per_node})
    account = keys.get("account", jobs.account)
    launcher = spec.launcher.model_copy(update={key: value for key, value in keys.items() if key != "account"})
    update = {"train": train, "nodes": nodes, "time": time, "account": account, "launcher": launcher}
    return spec.model_copy(update=update)


def script(spec: RunSpec, folder: Path) -> Path:
    """job.sh as a launch writes it. Raises ConfigError as a launch does."""
    run = RunFolder(folder / "run")
    run.write(run.job_sh, render(spec, make_plan(spec, to_launch=True).execution.layout, run))
    return run.job_sh


def test_every_slurm_site_in_operation_is_described() -> None:
    documents = {name: GROUPS.read("factory", name) for name in GROUPS.choices("factory")}
    takes_jobs = {
        name
        for name, factory in documents.items()
        if factory["scheduler"] == "slurm" and factory["status"] == "operational"
    }
    described = {jobs.factory for cluster in CLUSTERS.values() for jobs in cluster.jobs}
    assert described == takes_jobs - {"generic-slurm"}, "that one is filled in by its users"


@needs_slurm
@pytest.mark.parametrize("name", [name for name in CLUSTERS if name not in WITH_ACCOUNTS])
def test_a_site_and_we_take_and_refuse_the_same_jobs(name: str, tmp_path: Path) -> None:
    assert list(disagreements(name, tmp_path)) == []


@needs_database
@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_ACCOUNTS)
def test_a_site_with_qualities_of_service_and_we_take_and_refuse_the_same_jobs(name: str, tmp_path: Path) -> None:
    assert list(disagreements(name, tmp_path)) == []


def disagreements(name: str, folder: Path) -> Iterator[str]:
    cluster = CLUSTERS[name]
    with SlurmRig(cluster.shape, accounting=name in WITH_ACCOUNTS) as rig:
        for command in cluster.scontrol:
            assert rig.call("scontrol", *command).returncode == 0, command
        for jobs in cluster.jobs:
            for queue in jobs.queues:
                yield from _sizes(rig, jobs, queue, folder)
                yield from _beyond(rig, jobs, queue, folder)
            yield from _styles(rig, jobs, folder)
            yield from _never(rig, jobs, folder)


def _sizes(rig: SlurmRig, jobs: Jobs, queue: Queue, folder: Path) -> Iterator[str]:
    """The fewest nodes, one more, and the most are taken, for the longest time there is."""
    for nodes in sorted({queue.least, min(queue.least + 1, queue.most or 2), queue.most or queue.least}):
        if words := rig.accepts(script(job(jobs, nodes, queue.time, queue.choice), folder)):
            yield f"{jobs.factory} {queue.choice}, {nodes} nodes: the site says {words}"
    if words := rig.accepts(script(job(jobs, queue.least, keys=queue.choice), folder)):
        yield f"{jobs.factory} {queue.choice}, with the time we write: the site says {words}"


def _beyond(rig: SlurmRig, jobs: Jobs, queue: Queue, folder: Path) -> Iterator[str]:
    """A node more or less than are given, and a minute more, are refused by both."""
    most = queue.most or queue.least
    good = script(job(jobs, most, queue.time, queue.choice), folder)
    for nodes in (most + 1 if queue.most else None, queue.least - 1 or None):
        if nodes:
            too_many = job(jobs, nodes, queue.time, queue.choice)
            yield from _both_refuse(rig, good, f"--nodes={nodes}", too_many, folder / "other")
    if queue.time:
        minutes = str((seconds_of(queue.time) or 0) // 60 + 1)
        too_long = job(jobs, most, minutes, queue.choice)
        yield from _both_refuse(rig, good, f"--time={minutes}", too_long, folder / "other")


def _styles(rig: SlurmRig, jobs: Jobs, folder: Path) -> Iterator[str]:
    for style in STYLES:
        if words := rig.accepts(script(job(jobs, 1, keys=style), folder)):
            yield f"{jobs.factory} with {style}: the site says {words}"


def _never(rig: SlurmRig, jobs: Jobs, folder: Path) -> Iterator[str]:
    """No account, and names of partitions and qualities of service that there are not."""
    for key, value in jobs.refused:
        good = script(job(jobs, 1), folder)
        lines = [line for line in good.read_text().splitlines() if not line.startswith(f"#SBATCH --{key}=")]
        good.write_text("\n".join(lines) + "\n")
        option = f"--{key}={value}" if value else "--job-name=without"
        yield from _both_refuse(rig, good, option, job(jobs, 1, keys={key: value}), folder / "other")


def _both_refuse(rig: SlurmRig, good: Path, option: str, bad: RunSpec, folder: Path) -> Iterator[str]:
    """`good` with the option before Slurm, and the same job before us."""
    where = f"{bad.factory.name}, partition {bad.launcher.partition}, qos {bad.launcher.qos}, with {option}"
    if rig.accepts(good, option) is None:
        yield f"{where}: the site takes it"
    try:
        script(bad, folder)
    except ConfigError:
        return
    yield f"{where}: we take it"
