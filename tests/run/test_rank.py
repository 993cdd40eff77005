"""Who a rank is, as each launcher says it: alone, inside another one's job, incomplete, contradictory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.errors import UserError
from aiftrain.run.rank import Rank, read_rank

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
DEEPSPEED = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_SIZE": "4", "CROSS_RANK": "1", "CROSS_SIZE": "2"}
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "4"}
SLURM_STEP = {**SLURM, "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_TASKS_PER_NODE": "4(x2)"}
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "PMIX_RANK": "5",
}
MPICH = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
CRAY = {"PMI_RANK": "5", "PMI_SIZE": "8", "PMI_LOCAL_RANK": "1", "PMI_LOCAL_SIZE": "4"}
PALS = {**CRAY, "PALS_RANKID": "5", "PALS_LOCAL_RANKID": "1", "PALS_LOCAL_SIZE": "4", "PALS_NODEID": "1"}
PMI2 = {"PMI_RANK": "5", "PMI_SIZE": "8", "PMI_JOBID": "77.0"}  # of srun --mpi=pmi2
SHASTA = {"PALS_RANKID": "5", "PALS_NODEID": "1", "PALS_APID": "77.0"}  # of srun --mpi=cray_shasta
BATCH_STEP = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "SLURM_TASKS_PER_NODE": "4(x2)"}


@pytest.mark.parametrize(
    ("environ", "launcher"),
    [
        (TORCHRUN, "torchrun"),
        (DEEPSPEED, "deepspeed"),
        (SLURM, "slurm"),
        (SLURM_STEP, "slurm"),
        (OPENMPI, "openmpi"),
        (MPICH, "mpich"),
        (CRAY, "mpich"),
        (PALS, "pals"),
    ],
)
def test_each_launcher_is_understood(environ: dict[str, str], launcher: str) -> None:
    assert read_rank(environ) == Rank(5, 8, 1, 4, launcher)


def test_a_lone_process_is_a_world_of_its_own() -> None:
    assert read_rank({"HOME": "/home/me"}) == Rank(0, 1, 0, 1, "none")


def test_one_task_a_node() -> None:
    environ = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    assert read_rank(environ | {"SLURM_NODEID": "1"}) == Rank(1, 2, 0, 1, "slurm")


@pytest.mark.parametrize(("node", "size"), [("0", 4), ("1", 4), ("2", 3), ("3", 12)])
def test_nodes_with_different_numbers_of_tasks(node: str, size: int) -> None:
    environ = SLURM_STEP | {"SLURM_NTASKS": "23", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3,12", "SLURM_NODEID": node}
    assert read_rank(environ).local_size == size


@pytest.mark.parametrize("outer", [BATCH_STEP, BATCH_STEP | PMI2 | {"PMI_RANK": "0"}])
@pytest.mark.parametrize("inner", [OPENMPI, MPICH, CRAY, PALS, TORCHRUN])
def test_what_stands_nearest_to_the_process_wins(inner: dict[str, str], outer: dict[str, str]) -> None:
    """mpiexec in a Slurm job: the variables of the batch step, or of the step of mpiexec's daemons, are still there."""
    assert read_rank(outer | inner) == read_rank(inner)


def test_torchrun_under_mpiexec_wins() -> None:
    outer = {name: "1" if name.endswith("SIZE") else "0" for name in OPENMPI}
    assert read_rank(outer | TORCHRUN).launcher == "torchrun"


@pytest.mark.parametrize("plugin", [PMI2, SHASTA], ids=["pmi2", "cray_shasta"])
def test_srun_that_speaks_of_mpi_is_slurm(plugin: dict[str, str]) -> None:
    """PMI and PALS say nothing about the node there."""
    assert read_rank(SLURM_STEP | plugin) == Rank(5, 8, 1, 4, "slurm")


@pytest.mark.parametrize("environ", [TORCHRUN, DEEPSPEED, SLURM, OPENMPI, MPICH, CRAY, PALS])
def test_an_incomplete_set_is_one_message_that_names_what_is_missing(environ: dict[str, str]) -> None:
    needed = [name for name in environ if "CROSS" not in name and name not in ("PMIX_RANK", "PALS_NODEID")]
    shadowed = {"PALS_RANKID": "PMI_RANK"}
    for name in needed[1:]:
        if environ is PALS and name != "PMI_SIZE":
            continue  # PMI says the others too
        with pytest.raises(UserError, match=rf"{name}.* is '', not a number; .*unset {shadowed.get(needed[0], '')}"):
            read_rank({key: value for key, value in environ.items() if key != name})


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "²", "4(x"])
def test_what_is_no_number_is_refused(text: str) -> None:
    for environ, name in ((TORCHRUN, "WORLD_SIZE"), (SLURM, "SLURM_NTASKS_PER_NODE"), (MPICH, "PMI_SIZE")):
        with pytest.raises(UserError, match="not a number"):
            read_rank(environ | {name: text})


@pytest.mark.parametrize(
    "changes", [{"RANK": "8"}, {"LOCAL_RANK": "4"}, {"WORLD_SIZE": "2", "RANK": "1"}, {"WORLD_SIZE": "0"}]
)
def test_a_rank_outside_its_world_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"torchrun calls this rank .* cannot be"):
        read_rank(TORCHRUN | changes)


@given(nodes=st.integers(1, 50), per_node=st.integers(1, 8), data=st.data())
def test_every_rank_of_every_launcher_is_read_as_it_was_written(nodes: int, per_node: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, nodes * per_node - 1))
    world, local = nodes * per_node, rank % per_node
    for pattern, launcher in ((TORCHRUN, "torchrun"), (OPENMPI, "openmpi"), (MPICH, "mpich"), (SLURM, "slurm")):
        values = dict(zip(pattern, map(str, (rank, world, local, per_node)), strict=False))
        assert read_rank(values) == Rank(rank, world, local, per_node, launcher)


def test_launchers_that_kill_all_at_the_first_failure_are_told_of_none() -> None:
    launchers = ("openmpi", "mpich", "deepspeed", "slurm", "torchrun")
    assert [Rank(launcher=launcher).exit_status(75) for launcher in launchers] == [0, 0, 0, 75, 75]
    assert Rank(launcher="openmpi").exit_status(1) == 1
