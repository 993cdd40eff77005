"""launcher=mpi inside a job of a live Slurm: ranks on two nodes train as this machine alone would."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator

import pytest

from aiftrain.run.folder import RunFolder
from tests.rigs.mpi import INSTALL, MPICH, MPIEXECS, OPENMPI, is_missing, library_path
from tests.rigs.slurm import SlurmRig, missing_packages
from tests.rigs.training import Trainings, live_shape, losses, trainings

MISSING = missing_packages()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ranks,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.skipif(is_missing(*MPIEXECS[:3]), reason=INSTALL),
    pytest.mark.skipif(os.getuid() != 0, reason="nodes in namespaces of their own need root"),
]
# UCX takes the rig's nodes, which are of one machine, for one, and would share memory across them.
WAYS = {
    "srun --mpi=pmix": {},
    "srun --mpi=pmi2": {"UCX_TLS": "tcp,self"},
    OPENMPI: {},
    MPICH: {"UCX_TLS": "tcp,self"},
}


@pytest.fixture(scope="module")
def on_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    with SlurmRig(live_shape(2), live=True) as rig, pytest.MonkeyPatch.context() as patch:
        yield trainings(tmp_path_factory.mktemp("trainings"), rig, patch)


def job(on_rig: Trainings, *commands: str) -> str:
    """What a job on both nodes prints that runs `commands`."""
    script, output = on_rig.folder / "job.sh", on_rig.folder / "job.out"
    script.write_text("\n".join(("#!/bin/bash", *commands)) + "\n")
    options = ["--nodes=2", "--ntasks-per-node=2", f"--output={output}", "--parsable"]
    number = on_rig.rig.call("sbatch", *options, str(script)).stdout.strip()
    on_rig.rig.wait_for_job(number, "COMPLETED", "FAILED", seconds=200)
    return output.read_text()


def command(on_rig: Trainings, name: str, mpiexec: str, environment: dict[str, str]) -> str:
    """A start with launcher=mpi inside an allocation, as a person types it there."""
    overrides = [*on_rig.overrides(name), "factory=local", "launcher=mpi", f"launcher.mpiexec='{mpiexec}'"]
    overrides += ["nodes=2", "launcher.ranks_per_node=2"]
    given = [f"{key}={value}" for key, value in (library_path(mpiexec, on_rig.folder) | environment).items()]
    return f"{shlex.join(['env', *given, sys.executable, '-m', 'aiftrain', *overrides])} || echo FAILED {name}"


def test_every_way_over_two_nodes_gives_the_losses_of_this_machine(on_rig: Trainings) -> None:
    here = losses(on_rig.here("here", "launcher.ranks_per_node=4"))
    names = [f"way {number}" for number in range(len(WAYS))]
    starts = [command(on_rig, name, *way) for name, way in zip(names, WAYS.items(), strict=True)]
    printed = job(on_rig, *starts)
    assert "FAILED" not in printed, printed
    for name in names:
        run = RunFolder(on_rig.folder / name)
        notes = [file.read_text() for file in run.attempt_logs(1).glob("*.start.json")]
        assert losses(run) == here
        assert [sum(node in note for note in notes) for node in ('"node1"', '"node2"')] == [2, 2]


def test_an_srun_that_speaks_another_mpi_is_told_and_hangs_nothing(on_rig: Trainings) -> None:
    mismatched = command(on_rig, "mismatched", "srun --mpi=pmix", {"MPI4PY_MPIABI": "mpich"})
    silent = command(on_rig, "silent", "srun --mpi=none", {})
    printed = job(on_rig, mismatched, silent)
    assert "slurm started 4 ranks, but mpi4py, with MPICH Version" in printed
    assert "sees a world of 1: mpi4py and srun speak of different MPIs" in printed
    assert "slurm started 4 ranks and nothing says where they meet" in printed


def test_cray_ranks_of_srun_are_told_apart(on_rig: Trainings) -> None:
    """srun of a Cray sets PALS_RANKID, and of Slurm 22.05 nothing else that PALS does."""
    say = "import os; from aiftrain.run.rank import read_rank; print(read_rank(os.environ))"
    printed = job(on_rig, f"srun --mpi=cray_shasta --ntasks=4 {shlex.quote(sys.executable)} -c {shlex.quote(say)}")
    ranks = sorted(line for line in printed.splitlines() if line.startswith("Rank("))
    assert ranks == [
        f"Rank(rank={rank}, world_size=4, local_rank={rank % 2}, local_size=2, launcher='slurm')" for rank in range(4)
    ], printed
