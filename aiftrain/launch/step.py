"""The one srun step of a job: what srun is told, what stands between it and Python, and how the ranks meet."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from aiftrain.errors import UserError
from aiftrain.launch.environment import package_root
from aiftrain.launch.header import chain_of
from aiftrain.run.bad_nodes import default_file, read_bad_nodes
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.machine import Container
from aiftrain.run.spec import RunSpec
from aiftrain.run.tasks import binds_cores, cores_per_rank, cores_per_task, starts_nodes

# torchrun reads its options from PET_*; the number of a node is known to the node's own task alone.
_ON_EACH_NODE = (
    'export PET_NODE_RANK="$SLURM_NODEID" PET_MASTER_ADDR="$MASTER_ADDR" PET_MASTER_PORT="$MASTER_PORT"; exec "$@"'
)


def slurm_exports(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> dict[str, str]:
    """What launchers/slurm.sh reads besides the run and its folder. UserError: a folder that no container can bind."""
    rendezvous = spec.factory.rendezvous
    return {
        "AIFTRAIN_STEP": shlex.join(_step(spec, layout, run_folder)),
        "AIFTRAIN_PROGRAM": shlex.join(_one_python(spec, run_folder)),
        "AIFTRAIN_CHAIN": chain_of(spec),
        "AIFTRAIN_BAD_NODES": str(bad_nodes_file(spec)),
        "AIFTRAIN_RENDEZVOUS": rendezvous.rule,
        "AIFTRAIN_SUFFIX": rendezvous.suffix or "",
        "AIFTRAIN_INTERFACE": rendezvous.interface or "",
        "OMP_NUM_THREADS": str(cores_per_rank(spec, layout) or 1),
    }


def native_python(spec: RunSpec) -> str:
    """The Python of ranks that run in no container."""
    return spec.launcher.python or sys.executable


def used_container(spec: RunSpec) -> tuple[Container, str] | None:
    """The container that ranks run in, and its image; None where no image is named."""
    container = spec.factory.container
    return (container, container.image) if container and container.image else None


def bad_nodes_file(spec: RunSpec) -> Path:
    """The team's file of nodes that jobs keep away from."""
    return Path(spec.launcher.bad_nodes or default_file(spec.factory.name)).absolute()


def nodes_to_leave_out(spec: RunSpec) -> list[str]:
    """The nodes that are bad at this moment. MachineError where the team's file cannot be read."""
    return read_bad_nodes(bad_nodes_file(spec), datetime.now(UTC))


def program(spec: RunSpec, run_folder: Path) -> list[str]:
    """The ranks' Python with what stands before it, for launchers that know nothing of containers."""
    container = used_container(spec)
    if container is None:
        return [native_python(spec)]
    if container[0].runtime == "enroot":
        raise UserError(f"launcher={spec.launcher.name} starts no enroot containers; Slurm does, through Pyxis")
    return [*_singularity(spec, *container, run_folder), spec.launcher.python or "python3"]


def _one_python(spec: RunSpec, run_folder: Path) -> list[str]:
    """One process of the ranks' Python on the job's first node."""
    container = used_container(spec)
    if container and container[0].runtime == "enroot":
        return ["srun", "--nodes=1", "--ntasks=1", *_pyxis(*container, run_folder), spec.launcher.python or "python3"]
    return program(spec, run_folder)


def _step(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> list[str]:
    words = list(_srun(spec, layout))
    container = used_container(spec)
    if container and container[0].runtime == "enroot":  # through the Pyxis plugin, as options of srun
        words += _pyxis(*container, run_folder)
    if starts_nodes(spec):
        words += ["bash", "-c", _ON_EACH_NODE, "bash"]
    if container and container[0].runtime != "enroot":
        words += _singularity(spec, *container, run_folder)
    words.append(spec.launcher.python or "python3" if container else native_python(spec))
    if starts_nodes(spec):
        words += ["-m", "torch.distributed.run", f"--nnodes={layout.nodes}"]
        words.append(f"--nproc-per-node={layout.ranks_per_node}")
    return words


def _srun(spec: RunSpec, layout: ParallelLayout) -> Iterator[str]:
    yield from ("srun", "--kill-on-bad-exit=1")
    binding = spec.factory.cpu_bind if binds_cores(spec, layout) else None
    cores = cores_per_task(spec, layout)
    if cores and not _names_cores(binding):  # since Slurm 22.05 srun takes the number from sbatch no more
        yield f"--cpus-per-task={cores}"
    if binding:
        yield f"--cpu-bind={binding}"
    yield from spec.factory.srun_flags


def _names_cores(binding: str | None) -> bool:
    """Masks and maps hold cores of the whole node, which the step then needs.

    Told how many cores a task has, srun gives the step no others: half the node where Slurm counts two threads a core.
    It would refuse masks that name the other half.
    """
    return binding is not None and binding.startswith(("mask_", "map_"))


def _pyxis(container: Container, image: str, run_folder: Path) -> Iterator[str]:
    mounts = ",".join(f"{folder}:{folder}" for folder in _folders_to_bind(container, run_folder))
    yield from (f"--container-image={image}", f"--container-mounts={mounts}", *container.flags)


def _singularity(spec: RunSpec, container: Container, image: str, run_folder: Path) -> Iterator[str]:
    """Images for AMD bring their own ROCm, and /dev is bound anyway: --rocm would mix the node's libraries in."""
    yield from (container.runtime, "exec")
    if spec.hardware.kind == "cuda" and "--nv" not in container.flags:
        yield "--nv"
    yield from container.flags
    yield from (f"--bind={folder}" for folder in _folders_to_bind(container, run_folder))
    yield image


def _folders_to_bind(container: Container, run_folder: Path) -> list[str]:
    folders = list(container.binds)
    for folder in (run_folder, Path.cwd(), package_root()):
        if any(character in str(folder) for character in ",:"):
            raise UserError(f"{folder} cannot be bound into a container: its name holds a comma or a colon")
        if not any(folder.is_relative_to(bound) for bound in folders):
            folders.append(str(folder))
    return folders
