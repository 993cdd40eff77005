"""launcher=mpi inside a job of a live Slurm: ranks of two nodes find each other, and train as on this machine alone."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator

import pytest

from aiftrain.run.folder import RunFolder
from aiftrain.shipped import launchers_dir
from tests.rigs.mpi import INSTALL, INSTALL_INTEL, INTEL, MPIEXECS, OPENMPI, is_missing, library_path
from tests.rigs.slurm import SlurmRig, missing_packages
from tests.rigs.training import Trainings, live_shape, losses, trainings

MISSING = missing_packages()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ranks,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.skipif(is_missing(*MPIEXECS[:3]), reason=INSTALL),
    pytest.mark.skipif(is_missing(INTEL), reason=INSTALL_INTEL),
    pytest.mark.skipif(os.getuid() != 0, reason="nodes in namespaces of their own need root"),
]
# With Intel MPI for all of MPICH's kin: UCX, in Debian's MPICH, finds no network that the rig's nodes share.
WAYS = {"pmix": "srun --mpi=pmix", "pmi2": "srun --mpi=pmi2", "openmpi": OPENMPI, "intel": INTEL}
WHO = (
    "import os, socket; from aiftrain.run.rank import read_rank; from aiftrain.run.machine import Rendezvous;"
    "from aiftrain.train.mpi import meeting_point; rank = read_rank(os.environ);"
    "words = (socket.gethostname(), rank.rank, rank.local_rank, rank.local_size, *meeting_point(rank, Rendezvous()));"
    "os.write(1, ('ranks ' + ' '.join(map(str, words)) + chr(10)).encode())"
)


@pytest.fixture(scope="module")
def on_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    with SlurmRig(live_shape(2), live=True) as rig, pytest.MonkeyPatch.context() as patch:
        yield trainings(tmp_path_factory.mktemp("trainings"), rig, patch)


def job(on_rig: Trainings, *commands: str) -> list[str]:
    """The lines that a job on both nodes prints, of `commands` one after the other."""
    script, output = on_rig.folder / "job.sh", on_rig.folder / "job.out"
    script.write_text("\n".join(("#!/bin/bash", *commands)) + "\n")
    options = ["--nodes=2", "--ntasks-per-node=2", f"--output={output}", "--parsable"]
    number = on_rig.rig.call("sbatch", *options, str(script)).stdout.strip()
    on_rig.rig.wait_for_job(number, "COMPLETED", "FAILED", seconds=200)
    return output.read_text().splitlines()


def libraries(mpiexec: str, on_rig: Trainings) -> dict[str, str]:
    return library_path(INTEL if "pmi2" in mpiexec else mpiexec, on_rig.folder)


def command(on_rig: Trainings, name: str, mpiexec: str, **environment: str) -> str:
    """A start with launcher=mpi, as a person types it inside a job."""
    overrides = [*on_rig.overrides(name), "factory=local", "launcher=mpi", f"launcher.mpiexec='{mpiexec}'"]
    overrides += ["nodes=2", "launcher.ranks_per_node=1"]
    given = [f"{key}={value}" for key, value in (libraries(mpiexec, on_rig) | environment).items()]
    return shlex.join(["env", *given, sys.executable, "-m", "aiftrain", *overrides])


@pytest.mark.parametrize("mpiexec", WAYS.values(), ids=WAYS.keys())
def test_the_script_by_hand_puts_ranks_on_each_node_and_they_meet(mpiexec: str, on_rig: Trainings) -> None:
    """launchers/mpi.sh, told only how many ranks there are to be; a stand-in for the trainer says who it is."""
    given = libraries(mpiexec, on_rig) | {"AIFTRAIN_MPIEXEC": mpiexec, "AIFTRAIN_RANKS": "4"}
    given["AIFTRAIN_PROGRAM"] = shlex.join([sys.executable, "-c", WHO])
    variables = [f"{key}={value}" for key, value in given.items()]
    printed = job(on_rig, shlex.join(["env", *variables, "bash", str(launchers_dir() / "mpi.sh")]))
    ranks = sorted(line.split()[1:] for line in printed if line.startswith("ranks "))
    assert [rank[:4] for rank in ranks] == [[f"node{1 + i // 2}", str(i), str(i % 2), "2"] for i in range(4)], printed
    assert {rank[4] for rank in ranks} == {"node1"} and len({rank[5] for rank in ranks}) == 1


def test_ranks_of_two_nodes_train_as_this_machine_alone_does(on_rig: Trainings) -> None:
    here = losses(on_rig.here("here"))
    names = ("pmix", "intel")
    printed = job(on_rig, *(command(on_rig, name, WAYS[name]) for name in names))
    for name in names:
        assert losses(RunFolder(on_rig.folder / name)) == here, "\n".join(printed)


def test_an_srun_that_speaks_another_mpi_is_told_and_hangs_nothing(on_rig: Trainings) -> None:
    mismatched = command(on_rig, "mismatched", WAYS["pmix"], MPI4PY_MPIABI="mpich")
    printed = "\n".join(job(on_rig, mismatched, command(on_rig, "silent", "srun --mpi=none")))
    assert "slurm started 2 ranks, but mpi4py, with MPICH Version" in printed
    assert "sees a world of 1: mpi4py and srun speak of different MPIs" in printed
    assert "slurm started 2 ranks and nothing says where they meet" in printed


def test_ranks_of_a_cray_are_slurms(on_rig: Trainings) -> None:
    """srun of a Cray sets PALS_RANKID, and in Slurm 22.05 nothing else that PALS does."""
    say = "import os; from aiftrain.run.rank import read_rank; print(read_rank(os.environ))"
    printed = job(on_rig, f"srun --mpi=cray_shasta --ntasks=4 {shlex.quote(sys.executable)} -c {shlex.quote(say)}")
    assert sorted(line for line in printed if line.startswith("Rank(")) == [
        f"Rank(rank={rank}, world_size=4, local_rank={rank % 2}, local_size=2, launcher='slurm')" for rank in range(4)
    ], printed
