"""The launcher deepspeed: DeepSpeed's own runner, with the faults of its ways round it kept from the run.

What launchers/deepspeed.sh guards against, as of DeepSpeed 0.19: variables that are not passed on, or badly quoted;
names of folders and arguments that a remote shell reads again; the first address of `hostname -I` as the meeting
point, and one port for everyone; a host file that is not there, or names another machine, taken for "this machine";
a node that does not answer, or lacks Python or the run folder, for which the others wait; a signal, or the death of the
runner, that leaves ranks behind; a launcher that a signal killed, taken for a success.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from aiftrain.errors import UserError
from aiftrain.launch.hosts import check_hosts, host_exports, read_hosts
from aiftrain.launch.step import native_python
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec


def deepspeed_exports(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> dict[str, str]:
    """What launchers/deepspeed.sh reads. The runner itself is no container's."""
    runner = [native_python(spec), "-m", "deepspeed.launcher.runner"]
    return host_exports(spec, layout, run_folder) | {"AIFTRAIN_DEEPSPEED": shlex.join(runner)}


def check_deepspeed(spec: RunSpec, layout: ParallelLayout, environ: Mapping[str, str] = os.environ) -> None:
    """UserError where the nodes are not said, or pdsh and ssh are needed and missing."""
    hostfile = spec.launcher.hostfile
    if layout.nodes > 1 and not hostfile:
        raise UserError(
            f"nodes={layout.nodes}: say which, with launcher.hostfile=<a file with one name a line>. DeepSpeed reaches "
            "them over ssh; inside a job launcher=mpi, and from a login node launcher=slurm, need neither"
        )
    check_hosts(spec, layout, environ)
    if hostfile is None or read_hosts(Path(hostfile)) in ([socket.gethostname()], ["localhost"]):
        return
    missing = [command for command in ("pdsh", "ssh") if shutil.which(command) is None]
    if missing:
        raise UserError(
            f"DeepSpeed starts ranks on other nodes with pdsh over ssh, and there is no {' and no '.join(missing)} "
            "here: apt-get install pdsh openssh-client, or launcher=mpi"
        )
