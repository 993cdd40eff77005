"""The #SBATCH lines of job.sh: what the profile and the run ask of Slurm. Only options that Slurm 22.05 knows."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from aiftrain.errors import UserError
from aiftrain.plan.limits import chosen_partition, chosen_qos, chosen_reservation, seconds_of, time_limit
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec
from aiftrain.run.tasks import binds_cores, cores_per_task, tasks_per_node

_SECONDS_TO_SAVE = 300  # between the warning and the end of the wall time, but no more than a quarter of a short job


def slurm_header(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> Iterator[str]:
    """One line an option. Raises UserError for an option that holds a line break."""
    for option in _options(spec, layout, run_folder):
        if "\n" in option or "\r" in option:
            raise UserError(f"an option of sbatch cannot hold a line break: {option!r}")
        yield f"#SBATCH {option}"


def seconds_to_save(time: str | None) -> int:
    """Seconds before the end of the wall time at which the ranks are told."""
    limit = seconds_of(time) if time else None
    return min(_SECONDS_TO_SAVE, limit // 4) if limit else _SECONDS_TO_SAVE


def chain_of(spec: RunSpec) -> str:
    """How a job that ends early goes on: what was asked for, or what the site is known to allow."""
    if spec.launcher.chain != "auto":
        return spec.launcher.chain
    return spec.factory.chain or ("none" if spec.launcher.name == "pbs" else "requeue")


def _options(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> Iterator[str]:
    factory = spec.factory
    yield _option("job-name", _job_name(spec, run_folder))
    yield "--dependency=singleton"  # of the jobs with this name one runs at a time: the next waits for its end
    yield "--output=slurm-%j.out"  # in the folder that sbatch is called from, which always exists
    yield "--open-mode=append"  # a requeued job goes on in the same file
    yield from _size(spec, layout)
    for name, value in (
        ("mem", factory.memory),
        ("constraint", factory.constraint),
        ("hint", factory.hint),
        ("partition", chosen_partition(spec)),
        ("qos", chosen_qos(spec)),
        ("reservation", chosen_reservation(spec)),
        ("account", spec.account),
        ("time", time_limit(spec)),
    ):
        if value:
            yield _option(name, value)
    if _takes_whole_nodes(spec, layout):
        yield "--exclusive"
    yield f"--signal=TERM@{seconds_to_save(time_limit(spec))}"  # to the ranks, not to the script
    yield "--requeue" if chain_of(spec) == "requeue" else "--no-requeue"
    yield from spec.launcher.extra


def _job_name(spec: RunSpec, run_folder: Path) -> str:
    """The same for all jobs of a run folder, and for no other's."""
    place = hashlib.sha256(os.fsencode(run_folder)).hexdigest()[:8]
    return re.sub(r"[^\w.+-]", "_", f"aiftrain-{spec.recipe}-{place}")


def _size(spec: RunSpec, layout: ParallelLayout) -> Iterator[str]:
    yield f"--nodes={layout.nodes}"
    yield f"--ntasks-per-node={tasks_per_node(spec, layout)}"
    if cores := cores_per_task(spec, layout):
        yield f"--cpus-per-task={cores}"
    yield from spec.factory.gpu_request


def _takes_whole_nodes(spec: RunSpec, layout: ParallelLayout) -> bool:
    """Masks name cores of the whole node. A partition that gives nodes whole need not be told."""
    limits = spec.factory.partitions.get(chosen_partition(spec) or "")
    return binds_cores(spec, layout) and not (limits and limits.exclusive)


def _option(name: str, value: str) -> str:
    return f"--{name}={shlex.quote(value)}"
