"""Jobs as their scheduler tells of them: a real Slurm, without nodes; for PBS a stand-in that speaks as its manual."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from aiftrain.errors import UserError
from aiftrain.launch.jobs import Job, ask_to_leave, end_now, job_numbers, look_up, newest
from aiftrain.launch.status import Liveness
from aiftrain.run.folder import RunFolder, append_line
from tests.conftest import small_spec
from tests.rigs.slurm import SlurmRig, missing_packages
from tests.rigs.training import live_shape

ROOT = Path(__file__).resolve().parents[2]
MISSING = missing_packages()
needs_slurm = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmRig]:
    """A controller whose nodes are not there: jobs wait."""
    with SlurmRig(live_shape(2)) as rig, pytest.MonkeyPatch.context() as patch:
        for name in ("SLURM_CONF", "PATH"):
            patch.setenv(name, rig.environ[name])
        yield rig


@pytest.fixture
def job(slurm: SlurmRig, run_folder: RunFolder) -> str:
    """A job of a run that is for Slurm."""
    spec = small_spec(launcher={"name": "slurm"})
    run_folder.write(run_folder.run_json, spec.model_dump_json())
    run_folder.write(run_folder.job_sh, "#!/bin/bash\nsleep 60\n")
    answer = slurm.call("sbatch", "--parsable", "--hold", "--nodes=1", str(run_folder.job_sh), cwd=run_folder.path)
    number = answer.stdout.strip()
    append_line(run_folder.jobs, {"job": number, "submitted": 1.0})
    return number


@needs_slurm
def test_a_job_that_waits_says_why(job: str, run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert look_up("slurm", [job]) == [Job(job, "pending", "JobHeldUser")]
    assert main(["status", str(run_folder.path), "--json"]) == 0
    [run] = json.loads(capsys.readouterr().out)["runs"]
    assert (run["state"], run["detail"], run["job"]) == ("pending", "JobHeldUser", job)


@needs_slurm
@pytest.mark.parametrize("options", [[], ["--now"]])
def test_a_job_that_waits_is_taken_from_the_queue(
    options: list[str], job: str, run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cancel", str(run_folder.path), *options]) == 0
    assert f"job {job}: cancelled" in capsys.readouterr().out
    [found] = look_up("slurm", [job])
    assert (found.state, found.active) == ("cancelled", False)
    assert main(["cancel", str(run_folder.path)]) == 0
    assert "nothing of" in capsys.readouterr().out
    assert main(["status", str(run_folder.path)]) == 0
    assert f"not started: job {job} cancelled" in capsys.readouterr().out


@needs_slurm
def test_a_job_that_slurm_never_had_is_forgotten_and_hides_no_other(job: str) -> None:
    assert [each.state for each in look_up("slurm", ["99999999"])] == ["forgotten"]
    assert [each.state for each in look_up("slurm", ["99999999", job])] == ["forgotten", "pending"]


def test_a_refusal_comes_in_the_words_of_the_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These are Slurm's to a user whose job it is not."""
    words = "Kill job error on job id 1: Access/permission denied"
    (tmp_path / "scancel").write_text(f"#!/bin/sh\necho 'scancel: error: {words}' >&2\nexit 210\n")
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match=f"scancel refused: {words}"):
        end_now("slurm", Job("1", "pending"))


@needs_slurm
@pytest.mark.skipif(os.getuid() != 0, reason="another user's command needs root")
def test_a_member_of_the_team_sees_a_job_and_may_not_cancel_it(job: str, run_folder: RunFolder) -> None:
    """Another user, who may read everything, as the folder here lies in one that only its owner may enter."""
    status = as_nobody("status", str(run_folder.path), "--json")
    assert json.loads(status.stdout)["runs"][0]["state"] == "pending", status.stderr
    for options in ([], ["--now"]):
        refused = as_nobody("cancel", str(run_folder.path), *options)
        assert refused.returncode == 2, refused.stderr
        assert "scancel refused: Kill job error on job id" in refused.stderr
        assert "Access/permission denied" in refused.stderr
    assert look_up("slurm", [job])[0].state == "pending"


def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    prefix += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return subprocess.run(
        [*prefix, sys.executable, "-m", "aiftrain", *words],
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@needs_slurm
def test_following_the_log_of_a_job_that_was_cancelled_in_the_queue_ends(
    job: str, run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    end_now("slurm", Job(job, "pending"))
    assert main(["logs", str(run_folder.path), "-f"]) == 2
    assert "no rank of it was ever started" in capsys.readouterr().err


@needs_slurm
def test_a_slurm_that_does_not_answer(
    job: str, run_folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its controller is on no port that anybody listens on."""
    conf = tmp_path / "slurm.conf"
    lines = ("ClusterName=gone", "SlurmctldHost=localhost", "SlurmctldPort=9", "NodeName=a", "MessageTimeout=1")
    conf.write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    [found] = look_up("slurm", [job])
    assert found.state == "unknown" and found.detail.startswith("Slurm does not answer: ")
    assert main(["cancel", str(run_folder.path)]) == 1
    assert f"where job {job}" in capsys.readouterr().err
    assert main(["status", str(run_folder.path), "--json"]) == 0
    [run] = json.loads(capsys.readouterr().out)["runs"]
    assert (run["state"], run["detail"]) == ("unknown", f"of job {job} nothing is known: {found.detail}")
    assert Liveness(run_folder, run_folder.read_spec())(), "it may run all the same"


def test_without_a_scheduler_here_a_job_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert look_up("slurm", ["1"]) == [Job("1", "unknown", "there is no squeue here: ask on a login node of the site")]
    assert look_up("pbs", []) == []


def test_of_several_jobs_the_one_that_lives_counts(run_folder: RunFolder) -> None:
    for number in ("1", "2", "3"):
        append_line(run_folder.jobs, {"job": number, "submitted": 1.0})
    assert job_numbers(run_folder) == ["1", "2", "3"]
    done, running = Job("1", "failed"), Job("2", "running")
    assert newest([done, running, Job("3", "cancelled")]) == running
    assert newest([done, Job("3", "cancelled")]) == Job("3", "cancelled")
    assert newest([]) is None


PBS_ANSWER = """{
    "timestamp":1, "pbs_version":"2022.1", "pbs_server":"hunter",
    "Jobs":{
        "12.hunter":{"Job_Name":"a", "job_state":"R", "comment":"Job run at noon", "exec_host":"n1/0*24+n2/0*24"},
        "13.hunter":{"Job_Name":"a", "job_state":"Q", "comment":"Not Running: Insufficient nodes"},
        "15.hunter":{"job_state":"F", "comment":"Job run at noon and failed", "exec_host":"n1/0", "Exit_status":75},
        "16.hunter":{"job_state":"F", "comment":"Job run at noon and failed", "Exit_status":-29},
        "17.hunter":{"job_state":"F", "comment":"Job run at noon and terminated by me@login", "Exit_status":271},
        "18.hunter":{"job_state":"F", "comment":"Can Never Run: Not enough total nodes available and terminated"}
    }
}"""


@pytest.fixture
def pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of PBS that note how they were called."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, body in {"qstat": f"cat <<'E'\n{PBS_ANSWER}\nE", "qsig": "", "qdel": ""}.items():
        (commands / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {tmp_path}/called\n{body}\n')
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    return tmp_path / "called"


def test_jobs_of_pbs(pbs: Path) -> None:
    running, waiting, unknown = look_up("pbs", ["12.hunter", "13.hunter", "14.hunter"])
    assert running == Job("12.hunter", "running", "", "n1/0*24+n2/0*24")
    assert waiting == Job("13.hunter", "pending", "Not Running: Insufficient nodes")
    assert unknown.state == "forgotten"
    assert ask_to_leave("pbs", running) == "job 12.hunter: its ranks save and leave"
    assert ask_to_leave("pbs", waiting) == "job 13.hunter: cancelled"
    assert pbs.read_text().splitlines()[1:] == ["qsig -s SIGURG 12.hunter", "qdel 13.hunter"]


def test_how_jobs_of_pbs_ended(pbs: Path) -> None:
    saved, late, killed, never = look_up("pbs", ["15.hunter", "16.hunter", "17.hunter", "18.hunter"])
    assert not any(job.active for job in (saved, late, killed, never))
    assert (saved.detail, late.detail) == ("", "ended by PBS: its wall time was over")
    assert killed.detail == "ended by signal 15"
    assert never.detail.startswith("Can Never Run")


@pytest.mark.parametrize(("number", "state"), [("12.hunter", "running"), ("99.hunter", "forgotten")])
def test_a_pbs_that_keeps_no_history_is_asked_once_more(
    number: str, state: str, pbs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenPBS 23.06 answers: `qstat -x` shows nothing at all, with exit code 0."""
    known = PBS_ANSWER if state == "running" else '{"timestamp":1}'
    (pbs.parent / "bin" / "qstat").write_text(
        f"""#!/bin/bash
if [[ $1 == -x ]]; then
    echo '{{"timestamp":1}}'
    echo "qstat: PBS is not configured to maintain job history $5" >&2
    exit
fi
echo '{known}'; echo "qstat: Unknown Job Id 99.hunter" >&2
"""
    )
    assert [job.state for job in look_up("pbs", [number])] == [state]
