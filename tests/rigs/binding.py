"""A live Slurm whose nodes show the cores and GPUs of their shape, whatever this machine has, and bind tasks to them.

Slurm then checks every --cpu-bind as on the real node. The kernel would refuse cores that are not there: affinity.c.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from tests.rigs.daemons import Daemons
from tests.rigs.shape import Shape
from tests.rigs.slurm import SlurmRig, missing_packages

_SOURCE = Path(__file__).with_name("affinity.c")


def missing_for_binding() -> str | None:
    """The command that installs what is missing here; None where nothing is."""
    return missing_packages() or (
        None if shutil.which("cc") else "apt-get install --no-install-recommends gcc libc6-dev"
    )


class BindingRig(SlurmRig):
    """Runs jobs, and binds their tasks."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, live=True)
        node = {
            "HWLOC_SYNTHETIC": f"pack:1 core:{shape.cores} pu:{shape.threads_per_core}",
            "HWLOC_THISSYSTEM": "1",
            "LD_PRELOAD": str(self.state / "affinity.so"),
        }
        self._daemons = Daemons(self.state / "logs", self.environ | node)

    def _write_files(self) -> None:
        super()._write_files()
        conf = self.state / "slurm.conf"
        conf.write_text(conf.read_text().replace("TaskPlugin=task/none", "TaskPlugin=task/affinity"))
        self._make_devices()
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", self.state / "affinity.so", _SOURCE], check=True)

    def _make_devices(self) -> None:
        """Files like /dev/null for the GPUs: slurmd counts those that are there."""
        for number in range(self.shape.gpus):
            os.mknod(self.state / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        conf = self.state / "gres.conf"
        files = f"File={self.state}/gpu[0-{self.shape.gpus - 1}]"
        conf.write_text(conf.read_text().replace(f"Count={self.shape.gpus}", files))
