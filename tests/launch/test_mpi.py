"""launcher=mpi under the real mpiexec of Open MPI (wheel, and Debian's), MPICH and Intel, with a stand-in trainer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aiftrain.errors import UserError
from aiftrain.launch.mpi import check_mpi, mpiexec
from aiftrain.launch.script import render
from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import Rank
from aiftrain.shipped import launchers_dir
from aiftrain.train.mpi import library_of
from tests.conftest import small_execution, small_spec
from tests.launch import scripts
from tests.launch.scripts import interrupt, nobody_runs, saved, scripted_run, train, when_all_are_up
from tests.rigs.mpi import INSTALL, INSTALL_INTEL, INTEL, MPICH, MPIEXECS, NAMES, OPENMPI, is_missing, library_path

STEPS = {"does": "steps", "steps": 5, "seconds": 0.05}
LONG = {"does": "steps", "steps": 400, "seconds": 0.1}

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.skipif(is_missing(*MPIEXECS[:3]), reason=INSTALL),
]
of_intel = [pytest.mark.slow, pytest.mark.skipif(is_missing(INTEL), reason=INSTALL_INTEL)]
every_mpiexec = pytest.mark.parametrize(
    "command",
    [pytest.param(each, id=name, marks=of_intel * (each == INTEL)) for each, name in zip(MPIEXECS, NAMES, strict=True)],
)


def mpi(command: str) -> dict[str, str]:
    return {"name": "mpi", "mpiexec": command}


@every_mpiexec
def test_a_run_to_its_end(command: str, tmp_path: Path) -> None:
    folder = scripted_run(tmp_path, mpi(command), *[STEPS] * 4)
    code, screen = train(folder, ranks=4)
    assert (code, "step 5/20" in screen) == (0, True), screen
    assert nobody_runs(folder)


@every_mpiexec
def test_interrupted_ranks_save_and_leave_with_75(command: str, tmp_path: Path) -> None:
    """One needs longer than the second that Open MPI gives the ranks once another has ended."""
    folder = scripted_run(tmp_path, mpi(command), LONG, LONG | {"save": 2.5})
    interrupter = when_all_are_up(folder, interrupt)
    code, screen = train(folder)
    interrupter.join()
    assert (code, saved(folder)) == (75, {"saved-0", "saved-1"}), screen
    assert nobody_runs(folder)


@every_mpiexec
def test_a_killed_rank_ends_the_run_and_leaves_no_orphans(command: str, tmp_path: Path) -> None:
    folder = scripted_run(tmp_path, mpi(command), {"does": "steps", "steps": 80, "seconds": 0.1}, {"does": "vanish"})
    code, screen = train(folder)
    assert code == 1
    assert "vanished" in screen  # which rank was first cannot be told under MPICH, which kills the others at once
    assert nobody_runs(folder)


@every_mpiexec
def test_a_user_error_of_a_rank_is_exit_2(command: str, tmp_path: Path) -> None:
    folder = scripted_run(tmp_path, mpi(command), *[{"does": "fail", "code": 2, "message": "of another model"}] * 2)
    code, screen = train(folder)
    assert (code, "of another model" in screen) == (2, True)


def test_a_second_interrupt_kills_ranks_that_hang(tmp_path: Path) -> None:
    folder = scripted_run(tmp_path, mpi(OPENMPI), {"does": "wait"}, {"does": "wait"})
    first = when_all_are_up(folder, interrupt)
    logs = folder.attempt_logs(1)
    second = scripts.when((logs / "asked-1-1").is_file, interrupt)
    code, _ = train(folder)
    first.join()
    second.join()
    assert code == 75
    assert nobody_runs(folder)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@every_mpiexec
def test_by_hand_without_aiftrain(command: str, sign: signal.Signals, tmp_path: Path) -> None:
    """launchers/mpi.sh in the run folder, stopped as a scheduler or Ctrl-C would; then to its end."""
    folder = scripted_run(tmp_path, mpi(command), LONG | {"save": 0.5}, LONG | {"save": 0.5})
    python = str(scripts.stand_in_python(tmp_path)).replace(" ", "\\ ")
    given = os.environ | {"AIFTRAIN_MPIEXEC": command, "AIFTRAIN_PROGRAM": python, "AIFTRAIN_RANKS": "2"}
    script = subprocess.Popen(["bash", launchers_dir() / "mpi.sh"], cwd=folder.path, env=given, start_new_session=True)
    when_all_are_up(folder, lambda: os.killpg(script.pid, sign)).join()  # as a terminal does: to all in front
    assert script.wait(30) == 75
    assert saved(folder) == {"saved-0", "saved-1"}
    assert nobody_runs(folder)


def test_a_launcher_that_is_killed_leaves_nothing_running(tmp_path: Path) -> None:
    folder = scripted_run(tmp_path, mpi(OPENMPI), LONG, LONG)
    launcher = scripts.start_launcher(folder)
    when_all_are_up(folder, launcher.kill).join()
    launcher.wait()
    assert nobody_runs(folder)
    assert saved(folder) == {"saved-0", "saved-1"}


MEET = (
    "import os; from aiftrain.train.mpi import meeting_point; from aiftrain.run.rank import read_rank;"
    "from aiftrain.run.machine import Rendezvous; from aiftrain.errors import UserError\n"
    "try: words = ' '.join(map(str, meeting_point(read_rank(os.environ), Rendezvous())))\n"
    "except UserError as error: words = str(error)\n"
    "os.write(1, (words + chr(10)).encode())"  # in one piece: mpiexec mixes what ranks write
)


def met(command: str, tmp_path: Path, **environment: str) -> list[str]:
    """What two ranks print that meet under `command`."""
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    libraries = library_path(command, tmp_path) | {"PYTHONPATH": str(scripts.REPOSITORY)}
    given = os.environ | allowed | libraries | environment
    options = [] if command.endswith("hydra") else ["--oversubscribe"]
    words = [command, *options, "-n", "2", sys.executable, "-c", MEET]
    return subprocess.run(words, env=given, capture_output=True, text=True, timeout=60).stdout.splitlines()


@every_mpiexec
def test_ranks_meet_at_one_address_and_a_free_port(command: str, tmp_path: Path) -> None:
    one, other = met(command, tmp_path)
    assert one == other
    assert one.split()[0] == "127.0.0.1" and 1024 <= int(one.split()[1]) < 65536


def test_two_worlds_of_one_rank_are_told_apart_from_a_world_of_two(tmp_path: Path) -> None:
    one, other = met(MPICH, tmp_path, MPI4PY_MPIABI="openmpi")
    assert one == other
    assert "mpich started 2 ranks, but mpi4py, with Open MPI" in one and "a world of 1" in one


@pytest.mark.parametrize(
    ("variables", "library"),
    [
        ({"PMIX_RANK": "0"}, "openmpi"),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, "mpich"),
        ({"PALS_RANKID": "0"}, "mpich"),
        ({}, None),
    ],
    ids=["pmix", "pmi2", "cray_shasta", "none"],
)
def test_srun_offers_its_ranks_to_the_mpi_that_it_was_told(variables: dict[str, str], library: str | None) -> None:
    assert library_of(Rank(launcher="slurm"), variables) == library


def test_an_mpiexec_beside_the_python_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mpiexec").touch()
    spec = small_spec(launcher={"name": "mpi", "python": f"{tmp_path}/python", "mpiexec": "mpiexec --verbose"})
    assert mpiexec(spec) == [f"{tmp_path}/mpiexec", "--verbose"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"launcher": {"name": "mpi", "mpiexec": "mpiexec.nobody"}}, "there is no mpiexec.nobody here"),
        ({"launcher": {"name": "mpi", "mpiexec": "mpiexec 'x"}}, "No closing quotation"),
        ({"launcher": {"name": "mpi", "hostfile": "/nowhere"}}, "hostfile=/nowhere cannot be read"),
        ({"factory": {"name": "site", "title": "A site", "scheduler": "slurm"}}, "no job of site: .*launcher=slurm"),
    ],
)
def test_what_cannot_start_is_said_before(changes: dict[str, object], message: str) -> None:
    spec = small_spec(**({"launcher": mpi(OPENMPI)} | changes))
    with pytest.raises(UserError, match=message):
        check_mpi(spec, small_execution().layout, {})


def test_a_hostfile_has_to_name_each_node_once(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    spec = small_spec(launcher=mpi(OPENMPI) | {"hostfile": str(file)})
    layout = small_execution().layout.model_copy(update={"nodes": 2, "ranks_per_node": 1})
    file.write_text("# ours\nnid1 slots=8\nnid2\n\n")
    check_mpi(spec, layout, {})
    file.write_text("nid1\nnid1\n")
    with pytest.raises(UserError, match="names nid1 more than once"):
        check_mpi(spec, layout, {})
    file.write_text("nid1\n")
    with pytest.raises(UserError, match=r"nodes=2, but .* names 1: nid1"):
        check_mpi(spec, layout, {})


def test_each_node_of_a_hostfile_gets_its_ranks(tmp_path: Path) -> None:
    """Stand-ins for mpiexec write down how they are called."""
    hosts, record = tmp_path / "hosts", tmp_path / "record"
    hosts.write_text("nid1\nnid2\n")
    layout = small_execution(4).layout.model_copy(update={"nodes": 2, "ranks_per_node": 2})
    called = {}
    for version in ("mpiexec (Open MPI) 5.0.11", "HYDRA build details: slurm pbs", "slurm-wlm 22.05.8"):
        command = tmp_path / "mpiexec-stub"
        command.write_text(
            f'#!/bin/bash\nif [[ $1 == --version ]]; then echo "{version}"; exit; fi\nprintf "%s\\n" "$@" >{record}\n'
        )
        command.chmod(0o755)
        spec = small_spec(launcher=mpi(str(command)) | {"hostfile": str(hosts)})
        folder = RunFolder(tmp_path / "run")
        folder.write(folder.job_sh, render(spec, layout, folder))
        subprocess.run(["bash", folder.job_sh], check=True)
        called[version.split()[0]] = record.read_text().splitlines()
    openmpi, hydra, slurm = called.values()
    assert openmpi[:4] == ["-n", "4", "--map-by", "ppr:2:node:oversubscribe"]
    assert "nid1:2,nid2:2" in openmpi and "HF_HUB_OFFLINE" in openmpi
    assert hydra[:6] == ["-n", "4", "-ppn", "2", "-hosts", "nid1,nid2"]
    assert slurm[:4] == ["-n", "4", "--nodes=2", "--ntasks-per-node=2"] and "--nodelist=nid1,nid2" in slurm
