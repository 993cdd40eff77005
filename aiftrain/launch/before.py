"""What is looked at on the login node before a job is submitted: all that would else fail after hours in the queue."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from aiftrain.data.corpus import PreparedCorpus, token_files
from aiftrain.errors import ConfigError, MachineError, Problem, UserError
from aiftrain.launch.containers import image_file, used_container
from aiftrain.launch.header import seconds_to_save
from aiftrain.launch.jobs import job_numbers, look_up
from aiftrain.launch.lost import find_lost
from aiftrain.launch.partition import PartitionState, partition_state
from aiftrain.launch.room import may_write, room_problems
from aiftrain.launch.step import native_python
from aiftrain.plan.limits import seconds_of, time_limit
from aiftrain.plan.plan import LaunchPlan
from aiftrain.plan.prediction import STARTUP_SECONDS
from aiftrain.run.env_lock import changed_files, read_lock
from aiftrain.run.folder import RunFolder
from aiftrain.run.machine import Container
from aiftrain.run.residency import mount_problems
from aiftrain.run.room import existing
from aiftrain.run.spec import RunSpec

_FETCH = {  # where there is a network
    "singularity": "singularity pull image.sif {}",
    "apptainer": "apptainer pull image.sif {}",
    "enroot": "enroot import -o image.sqsh docker://{}",
}


def check_before_queue(
    spec: RunSpec, plan: LaunchPlan, folder: RunFolder, corpus: PreparedCorpus | None = None
) -> PartitionState | None:
    """Raises ConfigError with everything on this machine that stands against the job; UserError where it has one,
    MachineError where Slurm does not work. The state of the job's partition, where Slurm tells it.
    """
    _refuse_a_second_job(spec, folder)
    problems = [
        *_folder_problems(folder),
        *mount_problems(spec, folder.path),
        *_data_problems(corpus),
        *_software_problems(spec, folder),
        *_time_problems(spec, plan),
        *room_problems(spec, plan.execution.layout, folder),
    ]
    try:
        partition = partition_state(spec)
    except MachineError:
        if problems:
            raise ConfigError(problems) from None
        raise
    problems += [partition.problem] if partition and partition.problem else []
    if problems:
        raise ConfigError(problems)
    return partition


def _refuse_a_second_job(spec: RunSpec, folder: RunFolder) -> None:
    """Two jobs of one run would find its lock taken and waste their nodes."""
    if spec.launcher.name == "slurm":
        find_lost(folder)
    for job in look_up(spec.launcher.name, job_numbers(folder)[-1:]):
        if job.active and job.state != "completing":
            cancel = f"python -m aiftrain cancel {folder.path}"
            raise UserError(f"job {job.number} of this run is {job.state}: wait for it, or end it: {cancel}")


def _folder_problems(folder: RunFolder) -> Iterator[Problem]:
    there = existing(folder.path)
    if not may_write(there):
        yield Problem("run_dir", f"{there} cannot be written", "run_dir=<a folder that you may write>")


def _data_problems(corpus: PreparedCorpus | None) -> Iterator[Problem]:
    """Token files that the ranks, which run as this user, could not read."""
    for file in token_files(corpus) if corpus else ():
        yield from _unreadable("data", file, "python -m aiftrain data prepare, or ask its owner for leave")


def _software_problems(spec: RunSpec, folder: RunFolder) -> Iterator[Problem]:
    """An image, packed environment or overlay that is not here, a Python that cannot run on the nodes."""
    used = used_container(spec)
    if used is not None:
        yield from _image_problems(spec, used[0])
    elif spec.launcher.env_archive is None:
        yield from _python_problems(spec)
    if spec.launcher.env_archive:
        yield from _unreadable("launcher.env_archive", Path(spec.launcher.env_archive), "python -m aiftrain env pack")
    lock = read_lock(folder)
    for change in changed_files(lock) if lock else ():
        yield Problem(folder.env_lock.name, change, f"python -m aiftrain env lock {folder.path} accepts it")


def _image_problems(spec: RunSpec, container: Container) -> Iterator[Problem]:
    where, file = "factory.container.image", image_file(container)
    if file is not None:
        yield from _unreadable(where, file, "name an image that is")
    elif spec.factory.internet_on_compute is False:
        fits = f"fetch it here, and name the file: {_FETCH[container.runtime].format(container.image)}"
        yield Problem(where, f"{container.image} is in a registry, which the nodes here cannot reach", fits)
    for flag in container.flags:
        if flag.startswith("--overlay="):
            overlay = Path(flag.removeprefix("--overlay=").partition(":")[0])
            yield from _unreadable("factory.container.flags", overlay, "name an overlay that is")


def _unreadable(where: str, file: Path, fits: str) -> Iterator[Problem]:
    if not file.exists():
        yield Problem(where, f"there is no {file} here", fits)
    elif not os.access(file, os.R_OK):
        yield Problem(where, f"you may not read {file}", fits)


def _python_problems(spec: RunSpec) -> Iterator[Problem]:
    """A bare name may be that of a Python which the site's modules bring, on the nodes alone."""
    python, arch = native_python(spec), spec.hardware.arch
    if spec.launcher.python is None and arch not in ("any", platform.machine()):
        found = f"{python} is for {platform.machine()}, and the nodes are {arch}"
        fits = "launcher.python=<of a virtual environment made on a node>, or factory.container.image=<image>"
        yield Problem("launcher.python", found, fits)
    from_modules = spec.factory.modules and "/" not in python
    if spec.launcher.python and not from_modules and shutil.which(python) is None and not Path(python).exists():
        yield Problem("launcher.python", f"there is no {python} here", "launcher.python=<path of a Python 3.11>")


def _time_problems(spec: RunSpec, plan: LaunchPlan) -> Iterator[Problem]:
    """Too short a job to start up and come to its first checkpoint, even at the fastest speed that is predicted."""
    limit, rate = time_limit(spec), plan.prediction.rate
    if limit is None or rate is None:
        return
    steps = min(spec.storage.save_every, spec.timeline.total_steps)
    useful = (seconds_of(limit) or 0) - STARTUP_SECONDS - seconds_to_save(limit)
    if useful < steps * rate.low:
        found = f"a job of {limit} ends before its first checkpoint: {steps} steps of {rate.low:,.1f} s at the fastest"
        possible = int(useful // rate.low)
        fits = f"storage.save_every={possible}" if possible > 0 else "a longer time, or more nodes"
        yield Problem("storage.save_every", found, fits)
