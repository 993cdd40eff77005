"""Writes job.sh: the scheduler's header, quoted exports, and the body of a launcher from launchers/."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import aiftrain
from aiftrain.errors import UserError
from aiftrain.launch.environment import installed, package_root, run_environment
from aiftrain.plan.limits import chosen_partition, chosen_qos, seconds_of, time_limit
from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.machine import Container
from aiftrain.run.spec import RunSpec
from aiftrain.shipped import launchers_dir

_SECONDS_TO_SAVE = 300  # between the warning and the end of the wall time, but no more than a quarter of a short job


def render(spec: RunSpec, layout: ParallelLayout, folder: RunFolder) -> str:
    """The whole of job.sh for the run in `folder`, to be started from the present working directory.

    Header lines hold only options that Slurm 22.05 knows. Raises UserError for a value that no header or
    container option can hold, such as a partition with a line break in it.
    """
    body = (launchers_dir() / f"{spec.launcher.name}.sh").read_text(encoding="utf-8")
    exports = _exports(spec, layout, folder.path.resolve())
    parts = [
        "#!/bin/bash",
        *(_slurm_header(spec, layout) if spec.launcher.name == "slurm" else ()),
        f"# Written by aiftrain {aiftrain.__version__} for run {spec.digest}.",
        *(f"export {name}={shlex.quote(value)}" for name, value in exports.items()),
        body,
    ]
    return "\n".join(parts)


def _exports(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> dict[str, str]:
    ours = {"AIFTRAIN_RUN": str(run_folder), "AIFTRAIN_WORKDIR": str(Path.cwd())}
    if spec.launcher.name == "slurm":
        ours["AIFTRAIN_STEP"] = shlex.join([*_srun(spec, layout), *_container(spec, run_folder), _python(spec)])
        ours["OMP_NUM_THREADS"] = str(_cores_per_rank(spec, layout) or 1)
    else:
        ours |= {"AIFTRAIN_PYTHON": sys.executable, "AIFTRAIN_RANKS": str(layout.ranks_per_node)}
        ours["GLOO_SOCKET_IFNAME"] = "lo"
    if not installed():
        ours["PYTHONPATH"] = str(package_root())
    return run_environment(spec) | ours


def _slurm_header(spec: RunSpec, layout: ParallelLayout) -> Iterator[str]:
    for option in _sbatch_options(spec, layout):
        if "\n" in option or "\r" in option:
            raise UserError(f"an option of sbatch cannot hold a line break: {option!r}")
        yield f"#SBATCH {option}"


def _sbatch_options(spec: RunSpec, layout: ParallelLayout) -> Iterator[str]:
    factory, partition, time = spec.factory, chosen_partition(spec), time_limit(spec)
    limits = factory.partitions.get(partition or "")
    yield _option("job-name", re.sub(r"[^\w.+-]", "_", f"aiftrain-{spec.recipe}"))
    yield "--output=slurm-%j.out"  # in the folder that sbatch is called from, which always exists
    yield "--open-mode=append"  # a requeued job goes on in the same file
    yield f"--nodes={layout.nodes}"
    yield f"--ntasks-per-node={layout.ranks_per_node}"
    if cores := _cores_per_rank(spec, layout):
        yield f"--cpus-per-task={cores}"
    yield from factory.gpu_request
    for name, value in (
        ("mem", factory.memory),
        ("partition", partition),
        ("qos", chosen_qos(spec)),
        ("account", spec.account),
        ("time", time),
    ):
        if value:
            yield _option(name, value)
    if _binds_cores(spec, layout) and not (limits and limits.exclusive):
        yield "--exclusive"  # the masks name cores of the whole node
    yield f"--signal=TERM@{_warning(time)}"  # to the ranks, not to this script
    if factory.requeue_on_node_failure is not None:
        yield "--requeue" if factory.requeue_on_node_failure else "--no-requeue"
    yield from spec.launcher.extra


def _warning(time: str | None) -> int:
    """Seconds before the end of the wall time at which the ranks are told."""
    limit = seconds_of(time) if time else None
    return min(_SECONDS_TO_SAVE, limit // 4) if limit else _SECONDS_TO_SAVE


def _srun(spec: RunSpec, layout: ParallelLayout) -> Iterator[str]:
    yield from ("srun", "--kill-on-bad-exit=1")
    if cores := _cores_per_rank(spec, layout):
        yield f"--cpus-per-task={cores}"  # srun takes it from sbatch no more since Slurm 22.05
    if _binds_cores(spec, layout):
        yield f"--cpu-bind={spec.factory.cpu_bind}"
    yield from spec.factory.srun_flags


def _cores_per_rank(spec: RunSpec, layout: ParallelLayout) -> int | None:
    """The factory's figure is for one rank a device; fewer ranks get more cores each."""
    if spec.factory.cpus_per_task is None:
        return None
    return max(1, spec.factory.cpus_per_task * spec.hardware.devices_per_node // layout.ranks_per_node)


def _binds_cores(spec: RunSpec, layout: ParallelLayout) -> bool:
    return spec.factory.cpu_bind is not None and layout.ranks_per_node == spec.hardware.devices_per_node


def _python(spec: RunSpec) -> str:
    return sys.executable if spec.factory.container is None else "python3"


def _container(spec: RunSpec, run_folder: Path) -> Iterator[str]:
    """What stands between srun and Python: the container, with the folders of this run bound into it."""
    container = spec.factory.container
    if container is None:
        return
    if container.image is None:
        raise UserError(
            f"factory {spec.factory.name} uses {container.runtime}: name the image, factory.container.image=..."
        )
    folders = _folders_to_bind(container, [run_folder, Path.cwd(), package_root()])
    if container.runtime == "enroot":  # through the Pyxis plugin, as options of srun
        mounts = ",".join(f"{folder}:{folder}" for folder in folders)
        yield from (f"--container-image={container.image}", f"--container-mounts={mounts}", *container.flags)
        return
    yield from (container.runtime, "exec", *container.flags)
    yield from (f"--bind={folder}" for folder in folders)
    yield container.image


def _folders_to_bind(container: Container, needed: list[Path]) -> list[str]:
    folders = list(container.binds)
    for folder in needed:
        if any(character in str(folder) for character in ",:"):
            raise UserError(f"{folder} cannot be bound into a container: its name holds a comma or a colon")
        if not any(folder.is_relative_to(bound) for bound in folders):
            folders.append(str(folder))
    return folders


def _option(name: str, value: str) -> str:
    return f"--{name}={shlex.quote(value)}"
