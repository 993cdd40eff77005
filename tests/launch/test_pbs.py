"""PBS: the header, the PALS mpiexec, qsub and the script, with stand-ins that write down what they get.

No PBS can be installed here: that the options are right is checked against the list of those that are documented.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from aiftrain.errors import ConfigError, MachineError, UserError
from aiftrain.launch.pbs import submit
from aiftrain.launch.script import render
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.spec import RunSpec
from tests.conftest import small_spec
from tests.launch.scripts import stand_in_python

# Options of PBS Professional's qsub as they are known to us: the directives we write, and the resources of -l.
DOCUMENTED = {"-N", "-j", "-l", "-q", "-W", "-r"}
DOCUMENTED_RESOURCES = {"select", "place", "walltime"}
# Of mpiexec(1) of HPE PALS.
DOCUMENTED_OF_PALS = {"-n", "--ppn", "--cpu-bind", "--depth"}
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


@pytest.mark.parametrize("queue", [None, "single", "test"])
@pytest.mark.parametrize("time", ["00:20:00", "0-0:20"])
def test_only_documented_options_are_written(queue: str | None, time: str, run_folder: RunFolder) -> None:
    nodes = ["nodes=1"] if queue == "single" else []
    script = job(run_folder, f"launcher.partition={queue or 'null'}", f"time={time}", *nodes)[1]
    lines = header(script)
    assert {line.split()[0] for line in lines} <= DOCUMENTED
    resources = {line.split()[1].split("=")[0] for line in lines if line.startswith("-l ")}
    assert resources <= DOCUMENTED_RESOURCES
    assert [line for line in lines if line.startswith("-q ")] == ([f"-q {queue}"] if queue else [])
    step = re.search(r"AIFTRAIN_STEP='(.*)'", script)
    assert step and {word for word in step[1].split() if word.startswith("-")} <= DOCUMENTED_OF_PALS


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
    stub(qsub, "qsub", "echo welcome to Hunter")
    with pytest.raises(MachineError, match="no job identifier but 'welcome to Hunter'"):
        submit(run_folder)


# PALS mpiexec, as far as the script sees it: a process a rank with PALS' variables, and the first failure's code.
PALS = """
[[ $1 == -n && $3 == --ppn ]] || exit 64
world=$2; shift 4
while [[ $1 == -* ]]; do shift 2; done
for ((rank = 0; rank < world; rank++)); do
    PALS_RANKID=$rank PMI_SIZE=$world PALS_LOCAL_RANKID=$rank PALS_LOCAL_SIZE=$world "$@" & pids+=($!)
done
code=0; for pid in "${pids[@]}"; do wait "$pid" || code=$?; done; exit "$code"
"""


def pbs_job(tmp_path: Path, time: str, behaviour: dict[str, object]) -> tuple[RunFolder, subprocess.Popen[bytes]]:
    """job.sh of a two-rank run, started as PBS would."""
    folder = RunFolder(tmp_path / "ein läuf; $HOME")
    stub(tmp_path / "bin", "mpiexec", PALS)
    factory = {"name": "site", "title": "A PBS site", "scheduler": "pbs"}
    launcher = {"name": "pbs", "ranks_per_node": 2, "python": str(stand_in_python(tmp_path))}
    spec = small_spec(factory=factory, launcher=launcher, time=time)
    layout = make_plan(spec, to_launch=False).execution.layout
    folder.write(folder.job_sh, render(spec, layout, folder))
    folder.write(folder.path / "behaviour.json", json.dumps({"0": behaviour, "1": behaviour}))
    (tmp_path / "nodes").write_text("nid1\nnid1\n")
    given = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PBS_JOBID": "4711[3].server", "HOME": "/"}
    given["PBS_NODEFILE"] = str(tmp_path / "nodes")
    return folder, subprocess.Popen(["bash", folder.job_sh], env=given, cwd=tmp_path)


@pytest.mark.ranks
def test_the_script_runs_to_its_end(tmp_path: Path) -> None:
    folder, script = pbs_job(tmp_path, "01:00:00", {"does": "steps", "steps": 3, "seconds": 0.05})
    assert script.wait(30) == 0, (folder.attempt_logs(1) / "launcher.log").read_text()
    assert (folder.attempt_logs(1) / "rank-00001.exit.json").is_file()
    left = subprocess.run(["pgrep", "-P", "1", "-f", "sleep 2700"], capture_output=True, text=True).stdout
    assert left == ""


@pytest.mark.ranks
@pytest.mark.parametrize("behind", ["sigterm", "clock"])
def test_the_ranks_save_before_the_wall_time_ends(behind: str, tmp_path: Path) -> None:
    """Asked by PBS' SIGTERM, or by the script's own clock, after three quarters of a job of eight seconds."""
    time_limit = "01:00:00" if behind == "sigterm" else "00:00:08"
    began = time.monotonic()
    folder, script = pbs_job(tmp_path, time_limit, {"does": "steps", "steps": 400, "seconds": 0.1, "save": 0.3})
    while not (folder.attempt_logs(1) / "rank-00001.start.json").is_file():
        assert time.monotonic() < began + 30
        time.sleep(0.05)
    if behind == "sigterm":
        script.terminate()
    assert script.wait(30) == 75
    assert (folder.attempt_logs(1) / "saved-0").is_file()


@pytest.mark.ranks
def test_a_rank_that_fails_fails_the_job(tmp_path: Path) -> None:
    behaviour = {"does": "fail", "code": 1, "message": "out of luck"}
    assert pbs_job(tmp_path, "01:00:00", behaviour)[1].wait(30) == 1
