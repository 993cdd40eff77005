"""The one srun step of a job: what srun is told, what stands between it and Python, and how the ranks meet."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from aiftrain.errors import UserError
from aiftrain.launch.archive import STAGED_PYTHON, is_staged
from aiftrain.launch.containers import python_in_image, pyxis, singularity, used_container
from aiftrain.launch.header import chain_of
from aiftrain.run.bad_nodes import default_file, read_bad_nodes
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec
from aiftrain.run.tasks import binds_cores, cores_per_rank, cores_per_task, starts_nodes

# torchrun reads its options from PET_*; the number of a node is known to the node's own task alone.
_ON_EACH_NODE = (
    'export PET_NODE_RANK="$SLURM_NODEID" PET_MASTER_ADDR="$MASTER_ADDR" PET_MASTER_PORT="$MASTER_PORT"; exec "$@"'
)


def slurm_exports(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> dict[str, str]:
    """What launchers/slurm.sh reads besides the run and its folder. UserError: a folder that no container can bind."""
    rendezvous = spec.factory.rendezvous
    archive = Path(spec.launcher.env_archive or "").resolve()
    return {
        **({"AIFTRAIN_ARCHIVE": str(archive)} if is_staged(spec) else {}),
        "AIFTRAIN_STEP": " ".join(_step(spec, layout, run_folder)),
        "AIFTRAIN_PROGRAM": " ".join(_one_python(spec, run_folder)),
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


def bad_nodes_file(spec: RunSpec) -> Path:
    """The team's file of nodes that jobs keep away from."""
    return Path(spec.launcher.bad_nodes or default_file(spec.factory.name)).absolute()


def nodes_to_leave_out(spec: RunSpec) -> list[str]:
    """The nodes that are bad at this moment. MachineError where the team's file cannot be read."""
    return read_bad_nodes(bad_nodes_file(spec), datetime.now(UTC))


def program(spec: RunSpec, run_folder: Path) -> list[str]:
    """The ranks' Python with what stands before it, for launchers that know nothing of containers."""
    is_staged(spec)  # or a UserError
    used = used_container(spec)
    if used is None:
        return [native_python(spec)]
    if used[0].runtime == "enroot":
        raise UserError(f"launcher={spec.launcher.name} starts no enroot containers; Slurm does, through Pyxis")
    return [*singularity(spec, used[0], run_folder), *python_in_image(spec)]


def _one_python(spec: RunSpec, run_folder: Path) -> Iterator[str]:
    """One process of the ranks' Python on the job's first node, in shell quotes."""
    used = used_container(spec)
    if used and used[0].runtime == "enroot":
        yield from map(shlex.quote, ("srun", "--nodes=1", "--ntasks=1", *pyxis(spec, used[0], run_folder)))
    yield from _python(spec, run_folder)


def _python(spec: RunSpec, run_folder: Path) -> Iterator[str]:
    """The ranks' Python behind srun, in shell quotes."""
    used = used_container(spec)
    if is_staged(spec):
        yield STAGED_PYTHON
    elif used and used[0].runtime == "enroot":  # through the Pyxis plugin, as options of srun
        yield from map(shlex.quote, python_in_image(spec))
    else:
        yield from map(shlex.quote, program(spec, run_folder))


def _step(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> Iterator[str]:
    """The words in shell quotes."""
    yield from map(shlex.quote, _srun(spec, layout))
    used = used_container(spec)
    if used and used[0].runtime == "enroot":
        yield from map(shlex.quote, pyxis(spec, used[0], run_folder))
    if starts_nodes(spec):
        yield from map(shlex.quote, ("bash", "-c", _ON_EACH_NODE, "bash"))
    yield from _python(spec, run_folder)
    if starts_nodes(spec):
        yield f"-m torch.distributed.run --nnodes={layout.nodes} --nproc-per-node={layout.ranks_per_node}"


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
