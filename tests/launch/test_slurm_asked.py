"""What a real Slurm, without nodes, is asked before and after a submission, and what it says when it is down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aiftrain.errors import MachineError, UserError
from aiftrain.launch.before import check_before_queue
from aiftrain.launch.jobs import job_numbers, look_up
from aiftrain.launch.lost import find_lost
from aiftrain.launch.partition import partition_state
from aiftrain.launch.slurm import submit
from aiftrain.launch.trial import try_job
from aiftrain.plan.plan import make_plan
from aiftrain.run.folder import RunFolder
from aiftrain.run.machine import Partition
from aiftrain.run.spec import RunSpec
from tests.conftest import small_spec
from tests.rigs.slurm import SlurmRig, missing_packages
from tests.rigs.training import live_shape

MISSING, MISSING_WITH_DATABASE = missing_packages(), missing_packages(accounting=True)
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
FACTORY = {"name": "site", "title": "A site", "scheduler": "slurm"}


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmRig]:
    """A controller with the partitions cpu and other, whose nodes are not there: jobs wait."""
    shape = live_shape(2)
    with SlurmRig(replace(shape, partitions=shape.partitions | {"other": Partition()})) as rig:
        yield rig


@pytest.fixture
def here(slurm: SlurmRig, monkeypatch: pytest.MonkeyPatch) -> SlurmRig:
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm.environ[name])
    return slurm


@pytest.fixture
def ready(run_folder: RunFolder) -> RunFolder:
    """A run whose job waits until somebody releases it."""
    run_folder.write(run_folder.job_sh, "#!/bin/bash\n#SBATCH --hold --nodes=1\nsleep 60\n")
    run_folder.write_json(run_folder.data_json, {})
    return run_folder


def spec_for(partition: str | None = None) -> RunSpec:
    return small_spec(factory=FACTORY, launcher={"name": "slurm", "ranks_per_node": 1, "partition": partition})


def queued_in(folder: RunFolder, rig: SlurmRig) -> list[str]:
    """The numbers of all jobs that were submitted in the run's folder."""
    rows = rig.call("squeue", "--noheader", "--format=%i|%Z").stdout.splitlines()
    return [row.partition("|")[0] for row in rows if row.partition("|")[2] == str(folder.path)]


def stand_in(folder: Path, name: str, body: str, monkeypatch: pytest.MonkeyPatch, rig: SlurmRig) -> None:
    """A program before Slurm's own in the PATH."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:{rig.environ['PATH']}")


@pytest.mark.parametrize("state", ["up", "down", "drain", "inactive"])
def test_the_state_of_the_partition_and_what_is_to_be_said_of_it(state: str, here: SlurmRig) -> None:
    here.call("scontrol", "update", "PartitionName=cpu", f"State={state}")
    found, default, other = (partition_state(spec_for(name)) for name in ("cpu", None, "other"))
    here.call("scontrol", "update", "PartitionName=cpu", "State=up")
    assert found is not None and found == default and found.state == state
    told = str(found.problem or found.reason_to_ask or "")
    assert (state in told) == (state != "up")
    assert ("launcher.partition=other" in told) == (state != "up")
    assert bool(found.problem) == (state in ("drain", "inactive"))
    assert other is not None and other.problem is None and other.reason_to_ask is None


def test_a_partition_that_slurm_lacks_is_left_to_slurm(here: SlurmRig) -> None:
    assert partition_state(spec_for("ghost")) is None


TAKEN = 'sbatch=$(PATH=${PATH#*:} command -v sbatch); "$sbatch" "$@" >/dev/null; '
TIMED_OUT = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1"


@pytest.mark.parametrize("answer", [TIMED_OUT, "echo welcome to the site", "exec sleep 60"], ids=lambda text: text[:4])
def test_a_job_that_was_taken_though_the_answer_was_lost_is_found(
    answer: str, here: SlurmRig, ready: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiftrain.launch.slurm._PATIENCE", 2.0)
    stand_in(tmp_path, "sbatch", TAKEN + answer, monkeypatch, here)
    job = submit(ready)
    assert [job] == queued_in(ready, here) == job_numbers(ready)


def test_what_could_not_be_found_at_once_is_found_before_the_next_submission(
    here: SlurmRig, ready: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, "sbatch", TAKEN + TIMED_OUT, monkeypatch, here)
    stand_in(
        tmp_path,
        "squeue",
        "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
        monkeypatch,
        here,
    )
    with pytest.raises(MachineError, match="finds it if it came through"):
        submit(ready)
    assert job_numbers(ready) == []
    monkeypatch.setenv("PATH", here.environ["PATH"])
    spec = spec_for()
    with pytest.raises(UserError, match=r"job \d+ of this run is pending"):
        check_before_queue(spec, make_plan(spec), ready)
    assert job_numbers(ready) == queued_in(ready, here)


def test_a_job_of_another_folder_is_not_taken_for_the_lost_one(
    here: SlurmRig, ready: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.call("sbatch", "--hold", "--nodes=1", str(ready.job_sh), cwd=tmp_path)
    stand_in(tmp_path, "sbatch", TIMED_OUT, monkeypatch, here)
    with pytest.raises(MachineError):
        submit(ready)
    assert find_lost(ready) is None


def test_a_trial_says_when_a_job_would_start_or_why_never(here: SlurmRig) -> None:
    command = ["sbatch", "--parsable", "job.sh"]
    taken = try_job(command, "#!/bin/bash\n#SBATCH --nodes=2\n")
    assert taken is not None and not taken.refused
    assert re.search(r"^Job \d+ to start at 20", taken.words)
    refused = try_job(command, "#!/bin/bash\n#SBATCH --nodes=3\n")
    assert refused is not None and refused.refused and "sbatch refused the job" in refused.words
    assert here.call("squeue", "--noheader", "--name=sbatch").stdout == ""


def test_without_sbatch_there_is_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert try_job(["sbatch", "job.sh"], "") is None


def test_a_controller_that_is_gone_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: SlurmRig
) -> None:
    conf = tmp_path / "slurm.conf"
    lines = ("ClusterName=gone", "SlurmctldHost=localhost", "SlurmctldPort=9", "NodeName=a", "MessageTimeout=1")
    conf.write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    with pytest.raises(MachineError, match=r"Slurm does not answer: .*\n.*the same command submits"):
        partition_state(spec_for())


@pytest.mark.slow
def test_without_munge_a_launch_stops_before_it_has_begun_and_works_again_later(
    here: SlurmRig, ready: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To Slurm's commands a munge whose socket is not there is one that does not run."""
    conf = tmp_path / "slurm.conf"
    text = (here.state / "slurm.conf").read_text()
    conf.write_text(text.replace(f"{here.state}/munge/socket", f"{tmp_path}/no-munge"))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    for act in (lambda: partition_state(spec_for()), lambda: submit(ready)):
        with pytest.raises(MachineError, match="munge, by which Slurm knows who asks, does not work on this host"):
            act()
    [job] = look_up("slurm", ["1"])
    assert job.state == "unknown" and job.detail.startswith("munge,")
    monkeypatch.setenv("SLURM_CONF", here.environ["SLURM_CONF"])
    assert [submit(ready)] == queued_in(ready, here)


@pytest.mark.slow
@pytest.mark.skipif(MISSING_WITH_DATABASE is not None, reason=str(MISSING_WITH_DATABASE))
def test_an_unknown_account_is_refused_with_those_that_slurm_knows(
    ready: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SlurmRig(replace(live_shape(2), accounts=("alpha", "beta")), accounting=True) as rig:
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, rig.environ[name])
        good = ready.job_sh.read_text()
        ready.write(ready.job_sh, good.replace("--hold", "--hold --account=ghost"))
        with pytest.raises(UserError, match=r"Invalid account.*\n.*accounts of yours: alpha, beta"):
            submit(ready)
        ready.write(ready.job_sh, good.replace("--hold", "--hold --account=beta"))
        assert [submit(ready)] == queued_in(ready, rig)
