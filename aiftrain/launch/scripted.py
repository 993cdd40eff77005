"""Ranks that job.sh starts here and now, in the place of torchrun: mpiexec's, or those of DeepSpeed's runner."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from aiftrain.errors import UserError
from aiftrain.launch.deepspeed_runner import check_deepspeed
from aiftrain.launch.mpi import check_mpi
from aiftrain.launch.ranks import LocalRanks
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec

_CHECKS = {"mpi": check_mpi, "deepspeed": check_deepspeed}


def check_start(spec: RunSpec, layout: ParallelLayout) -> None:
    """UserError where the launcher lacks something on this machine."""
    if spec.launcher.name == "local" and layout.nodes != 1:
        raise UserError(f"launcher=local starts ranks on this machine only, and nodes={layout.nodes}")
    check = _CHECKS.get(spec.launcher.name)
    if check is not None:
        check(spec, layout)


class ScriptedRanks(LocalRanks):
    """The ranks of job.sh. Those on other nodes are seen through their notes alone, and stopped through the script."""

    def stop(self) -> None:
        """Ask the script, which knows how its launcher asks the ranks to save and leave."""
        if self._launcher is not None and self._launcher.poll() is None:
            self._launcher.terminate()

    def kill(self) -> None:
        """End the ranks of this node, the script, and what it started; ranks elsewhere die with their launcher."""
        if self._launcher is not None:
            for pid in reversed(descendants(self._launcher.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        super().kill()

    def _command(self) -> list[str]:
        return ["bash", str(Path(self._run_folder) / "job.sh")]


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, those that they started, and so on; parents first."""
    children: list[int] = []
    with suppress(OSError):  # it has ended meanwhile
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            children += map(int, file.read_text(encoding="ascii").split())
    return [each for child in children for each in (child, *descendants(child))]
