"""What the launchers mpi and deepspeed share: the nodes of a host file, and what job.sh tells its body."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from aiftrain.errors import UserError
from aiftrain.launch.containers import image_environment, image_prefix
from aiftrain.launch.environment import run_environment
from aiftrain.launch.step import program
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec
from aiftrain.run.tasks import cores_per_rank

_SLOTS = "slots="  # Open MPI and DeepSpeed write behind a name how many ranks it takes; the plan says that here
_PASSED_ON = ("PYTHONPATH", "GLOO_SOCKET_IFNAME", "MKL_NUM_THREADS", "MASTER_ADDR", "MASTER_PORT")  # to other nodes
_ALLOCATIONS = ("SLURM_JOB_ID", "PBS_JOBID")


def host_exports(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> dict[str, str]:
    """What launchers/mpi.sh and launchers/deepspeed.sh read besides the run and its folder."""
    ours = {
        "AIFTRAIN_PROGRAM": shlex.join(program(spec, run_folder)),
        "AIFTRAIN_RANKS": str(layout.world_size),
        "AIFTRAIN_RANKS_PER_NODE": str(layout.ranks_per_node),
    }
    if spec.launcher.hostfile:
        ours["AIFTRAIN_HOSTFILE"] = str(Path(spec.launcher.hostfile).resolve())
    if layout.nodes == 1 and not spec.launcher.hostfile:
        ours["GLOO_SOCKET_IFNAME"] = "lo"
    if cores := cores_per_rank(spec, layout):
        ours["OMP_NUM_THREADS"] = str(cores)
    prefix = image_prefix(spec)
    in_image = [f"{prefix}{name}" for name in image_environment(spec)] if prefix else []
    return ours | {"AIFTRAIN_PASS": " ".join(sorted({*run_environment(spec), *_PASSED_ON, *in_image}))}


def check_hosts(spec: RunSpec, layout: ParallelLayout, environ: Mapping[str, str] = os.environ) -> None:
    """UserError where the ranks would not all start, or not where they should: on a login node, on too few nodes."""
    if spec.launcher.hostfile:
        _check_hostfile(Path(spec.launcher.hostfile), layout.nodes)
    elif not any(name in environ for name in _ALLOCATIONS):
        if spec.factory.scheduler != "none":
            raise UserError(
                f"launcher={spec.launcher.name} starts ranks here and now, and this is no job of {spec.factory.name}: "
                f"start it inside an allocation, name nodes with launcher.hostfile=..., or say "
                f"launcher={spec.factory.scheduler}"
            )
        if layout.nodes > 1:
            raise UserError(f"nodes={layout.nodes}: say which, with launcher.hostfile=<a file with one name a line>")


def read_hosts(hostfile: Path) -> list[str]:
    """The nodes that a host file names, in its order. UserError where it cannot be read."""
    try:
        lines = hostfile.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"launcher.hostfile={hostfile} cannot be read: {error}") from error
    return [words[0] for line in lines if (words := line.split()) and not line.startswith("#")]


def _check_hostfile(hostfile: Path, nodes: int) -> None:
    hosts = read_hosts(hostfile)
    twice = sorted({host for host in hosts if hosts.count(host) > 1})
    if twice:
        raise UserError(f"{hostfile} names {', '.join(twice)} more than once; one line a node, and `{_SLOTS}` is ours")
    if len(hosts) != nodes:
        raise UserError(f"nodes={nodes}, but {hostfile} names {len(hosts)}: {', '.join(hosts) or 'none'}")
