"""PBS: the header and the mpiexec line against the manuals, qsub and the script with stand-ins for PBS and PALS.

No PBS is packaged where this runs; docs/verification.md says what was seen under a real one.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from aiftrain.cli.run_folder import write_run
from aiftrain.errors import ConfigError, MachineError, UserError
from aiftrain.launch.pbs import submit
from aiftrain.launch.script import render
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.spec import RunSpec
from tests.conftest import small_spec
from tests.launch.pbs_manual import check_mpiexec, check_qsub, chunks, ranges
from tests.launch.scripts import REPOSITORY, stand_in_python

HUNTER = ["recipe=eu-llm-7b", "factory=hunter", "data.root=/corpus", "account=mine", "nodes=2"]


def job(folder: RunFolder, *overrides: str) -> tuple[RunSpec, str]:
    spec = resolve([*HUNTER, *overrides])
    return spec, render(spec, make_plan(spec, to_launch=True).execution.layout, folder)


def header(script: str) -> list[str]:
    return [line.removeprefix("#PBS ") for line in script.splitlines() if line.startswith("#PBS ")]


def test_hunter_gets_its_header(run_folder: RunFolder) -> None:
    spec, script = job(run_folder, "time=12:00:00")
    assert (spec.launcher.name, script.splitlines()[0]) == ("pbs", "#!/bin/bash -l")
    assert header(script) == [
        "-N aiftrain-eu-llm-7b",
        "-j oe",
        "-l select=2:node_type=mi300a:mpiprocs=4",
        "-l place=scatter",
        "-l walltime=12:00:00",
        "-W group_list=mine",
    ]


def step(script: str) -> list[str]:
    """The words of AIFTRAIN_STEP."""
    [line] = [line for line in script.splitlines() if line.startswith("export AIFTRAIN_STEP=")]
    return shlex.split(shlex.split(line.removeprefix("export AIFTRAIN_STEP="))[0])


@pytest.mark.parametrize("queue", [None, "single", "test"])
@pytest.mark.parametrize("time", ["00:20:00", "0-0:20"])
def test_every_option_is_as_the_manuals_have_it(queue: str | None, time: str, run_folder: RunFolder) -> None:
    nodes = ["nodes=1"] if queue == "single" else []
    requeue = "factory.requeue_on_node_failure=true"
    script = job(run_folder, f"launcher.partition={queue or 'null'}", f"time={time}", requeue, *nodes)[1]
    lines = header(script)
    for line in lines:
        check_qsub(line)
    assert [line for line in lines if line.startswith("-q ")] == ([f"-q {queue}"] if queue else [])
    check_mpiexec(step(script))


@pytest.mark.parametrize("nodes", [1, 2, 96])
def test_a_chunk_is_a_node_and_its_ranks_are_mpiexecs(nodes: int, run_folder: RunFolder) -> None:
    script = job(run_folder, f"nodes={nodes}")[1]
    [select] = [line.partition("=")[2] for line in header(script) if line.startswith("-l select=")]
    assert chunks(select) == [(nodes, {"node_type": "mi300a", "mpiprocs": "4"})]
    options = check_mpiexec(step(script))
    assert (options["-n"], options["--ppn"]) == (str(4 * nodes), "4")
    cores = ranges(options["--cpu-bind"])
    assert len(cores) == 4 and set.union(*cores) == set(range(96)) and sum(map(len, cores)) == 96


def test_days_become_hours(run_folder: RunFolder) -> None:
    assert "-l walltime=24:00:00" in header(job(run_folder, "time=1-00")[1])


def test_ranks_are_bound_as_the_site_says(run_folder: RunFolder) -> None:
    script = job(run_folder)[1]
    assert "mpiexec -n 8 --ppn 4 --cpu-bind list:0-23:24-47:48-71:72-95" in script
    assert "mpiexec -n 4 --ppn 2 --depth 48 --cpu-bind depth" in job(run_folder, "launcher.ranks_per_node=2")[1]


def test_a_job_without_an_account_is_refused_and_so_is_the_wrong_scheduler() -> None:
    with pytest.raises(ConfigError, match="hunter takes no job without one"):
        make_plan(resolve([*HUNTER, "account=null"]), to_launch=True)
    with pytest.raises(ConfigError, match=r"launcher=slurm, but hunter has pbs\n.*launcher=pbs"):
        make_plan(resolve([*HUNTER, "launcher=slurm"]), to_launch=True)


def test_an_account_that_no_header_can_hold_is_refused(run_folder: RunFolder) -> None:
    spec = resolve(HUNTER).model_copy(update={"account": "a\nb"})
    with pytest.raises(UserError, match="line break"):
        render(spec, make_plan(spec, to_launch=True).execution.layout, run_folder)


def test_a_name_is_made_of_what_pbs_takes(run_folder: RunFolder) -> None:
    spec = resolve(HUNTER).model_copy(update={"recipe": "größe; $(x)\n"})
    lines = header(render(spec, make_plan(spec, to_launch=True).execution.layout, run_folder))
    assert lines[0] == "-N aiftrain-gr__e____x__"
    check_qsub(lines[0])


@pytest.mark.parametrize(
    "option",
    [
        "-l walltime=2-00:00:00",
        "-l select=2:walltime=1",
        "-l select=2:node_type",
        "-l place=scatter:pack",
        "-l ncpus=4",
        "-N größe",
        "-r yes",
        "--time=1",
    ],
)
def test_the_manual_refuses_what_qsub_refuses(option: str) -> None:
    with pytest.raises((AssertionError, StopIteration)):
        check_qsub(option)


def stub(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def qsub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing but a folder for stand-ins before the system's commands."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path / "bin"


def test_qsub_gets_the_script_and_its_answer_is_noted(qsub: Path, run_folder: RunFolder) -> None:
    stub(qsub, "qsub", 'pwd >called; echo "$@" >>called; echo "INFO: balance is fine"; echo 4711.hunter-pbs01')
    run_folder.write(run_folder.job_sh, "")
    assert submit(run_folder) == "4711.hunter-pbs01"
    assert (run_folder.path / "called").read_text().splitlines() == [str(run_folder.path), "job.sh"]
    assert [record["job"] for record in read_lines(run_folder.jobs)] == ["4711.hunter-pbs01"]


def test_what_qsub_says_is_told(qsub: Path, run_folder: RunFolder) -> None:
    with pytest.raises(UserError, match="no qsub here"):
        submit(run_folder)
    stub(qsub, "qsub", 'echo "qsub: Unknown queue" >&2; exit 170')
    with pytest.raises(UserError, match="qsub refused the job: qsub: Unknown queue"):
        submit(run_folder)
    stub(qsub, "qsub", 'echo "qsub: Bad GID for job execution" >&2; exit 159')
    with pytest.raises(UserError, match="Bad GID for job execution; the account is a Unix group of yours"):
        submit(run_folder)
    stub(qsub, "qsub", 'echo "qsub: cannot connect to server pbs (errno=15010)" >&2; exit 2')
    with pytest.raises(MachineError, match="PBS does not answer: qsub: cannot connect"):
        submit(run_folder)
    stub(qsub, "qsub", "echo welcome to Hunter")
    with pytest.raises(MachineError, match="no job identifier but 'welcome to Hunter'"):
        submit(run_folder)


# PALS mpiexec, as far as the script sees it: a process a rank with PALS' variables, signals passed on to them, and the
# greatest of their codes.
PALS = """
[[ $1 == -n && $3 == --ppn ]] || exit 64
world=$2; shift 4
while [[ $1 == -* ]]; do shift 2; done
for ((rank = 0; rank < world; rank++)); do
    PALS_RANKID=$rank PMI_SIZE=$world PALS_LOCAL_RANKID=$rank PALS_LOCAL_SIZE=$world "$@" & pids+=($!)
done
trap 'kill -TERM "${pids[@]}"' TERM
code=0
for pid in "${pids[@]}"; do
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; ended=$?; done
    if ((ended > code)); then code=$ended; fi
done
exit "$code"
"""
# PBS gives a job's script to a shell of its own, which any signal ends that it does not ignore, and the job with it.
SHELL_OF_PBS = 'bash "$1"; exit'


def new_run(tmp_path: Path, time: str, behaviour: dict[str, object], chain: str = "auto") -> RunFolder:
    """The folder of a two-rank run for PBS, in a path with much to quote; nobody else may look into it."""
    folder = RunFolder(tmp_path / "ein läuf; $HOME")
    stub(tmp_path / "bin", "mpiexec", PALS)
    factory = {"name": "site", "title": "A PBS site", "scheduler": "pbs"}
    launcher = {"name": "pbs", "ranks_per_node": 2, "python": str(stand_in_python(tmp_path)), "chain": chain}
    spec = small_spec(factory=factory, launcher=launcher, time=time)
    plan = make_plan(spec, to_launch=False)
    write_run(folder, spec, plan)
    folder.write(folder.job_sh, render(spec, plan.execution.layout, folder))
    folder.write(folder.path / "behaviour.json", json.dumps({"0": behaviour, "1": behaviour}))
    (tmp_path / "nodes").write_text("nid1\nnid1\n")
    return folder


def start(folder: RunFolder, script: Path, **environ: str) -> subprocess.Popen[bytes]:
    """As PBS does: in a session of its own, under its shell, with its umask."""
    tmp_path = folder.path.parent
    given = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PBS_JOBID": "4711[3].server", "HOME": "/"}
    given |= {"PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_O_WORKDIR": str(folder.path)} | environ
    words = ["bash", "-c", SHELL_OF_PBS, "bash", str(script)]
    return subprocess.Popen(words, env=given, cwd=tmp_path, start_new_session=True, umask=0o077)


def pbs_job(tmp_path: Path, time: str, behaviour: dict[str, object]) -> tuple[RunFolder, subprocess.Popen[bytes]]:
    folder = new_run(tmp_path, time, behaviour)
    return folder, start(folder, folder.job_sh)


@pytest.mark.ranks
def test_the_script_runs_to_its_end_and_hides_nothing_from_the_folders_readers(tmp_path: Path) -> None:
    folder = new_run(tmp_path, "01:00:00", {"does": "steps", "steps": 3, "seconds": 0.05})
    folder.path.chmod(0o750)
    assert start(folder, folder.job_sh).wait(30) == 0, (folder.attempt_logs(1) / "launcher.log").read_text()
    assert (folder.attempt_logs(1) / "rank-00001.exit.json").is_file()
    for file in (folder.logs, folder.attempt_logs(1), folder.attempt_logs(1) / "launcher.log"):
        assert file.stat().st_mode & 0o077 == (0o050 if file.is_dir() else 0o040), file
    left = subprocess.run(["pgrep", "-P", "1", "-f", "sleep 2700"], capture_output=True, text=True).stdout
    assert left == ""


@pytest.mark.ranks
def test_the_launcher_runs_by_hand_in_a_run_folder(tmp_path: Path) -> None:
    """`qsub -l select=1:mpiprocs=2 pbs.sh` there: a rank a line of PBS_NODEFILE."""
    folder = new_run(tmp_path, "01:00:00", {"does": "steps", "steps": 3, "seconds": 0.05})
    stub(tmp_path / "bin", "python3", f'exec {shlex.quote(str(stand_in_python(tmp_path)))} "$@"')
    assert start(folder, REPOSITORY / "launchers" / "pbs.sh").wait(30) == 0
    assert len(list(folder.attempt_logs(1).glob("rank-*.exit.json"))) == 2


@pytest.mark.ranks
@pytest.mark.parametrize("behind", ["cancel", "clock"])
def test_the_ranks_save_before_the_job_ends(behind: str, tmp_path: Path) -> None:
    """Asked by the signal of `cancel`, or by the script's own clock, after three quarters of a job of eight seconds."""
    time_limit = "01:00:00" if behind == "cancel" else "00:00:08"
    began = time.monotonic()
    folder, script = pbs_job(tmp_path, time_limit, {"does": "steps", "steps": 400, "seconds": 0.1, "save": 0.3})
    while not (folder.attempt_logs(1) / "rank-00001.start.json").is_file():
        assert time.monotonic() < began + 30
        time.sleep(0.05)
    if behind == "cancel":  # qsig signals the whole session
        os.killpg(script.pid, signal.SIGURG)
    assert script.wait(30) == 75
    assert (folder.attempt_logs(1) / "saved-0").is_file()


@pytest.mark.ranks
@pytest.mark.parametrize("chain", ["follow-up", "none"])
def test_a_job_follows_one_whose_time_is_up_where_that_is_wanted(chain: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path, "00:00:08", {"does": "steps", "steps": 400, "seconds": 0.1, "save": 0.1}, chain)
    stub(tmp_path / "bin", "qsub", 'echo "$PWD" "$@" >called; echo 4712.server')
    assert start(folder, folder.job_sh).wait(30) == 75
    submitted = folder.path / "called"
    if chain == "none":
        assert not submitted.exists() and not folder.jobs.exists()
        return
    assert submitted.read_text() == f"{folder.path} -W depend=afterany:4711[3].server job.sh\n"
    [record] = read_lines(folder.jobs)
    assert (record["job"], record["follows"]) == ("4712.server", "4711[3].server")


def test_only_operators_requeue_with_pbs(run_folder: RunFolder) -> None:
    with pytest.raises(UserError, match="chain=follow-up would work"):
        job(run_folder, "launcher.chain=requeue")
    assert "export AIFTRAIN_CHAIN=none" in job(run_folder)[1]  # HLRS wants people to submit jobs


@pytest.mark.ranks
def test_a_rank_that_fails_is_started_once_more_and_then_fails_the_job(tmp_path: Path) -> None:
    folder, script = pbs_job(tmp_path, "01:00:00", {"does": "fail", "code": 1, "message": "out of luck"})
    assert script.wait(60) == 1
    assert folder.last_attempt() == 2
