"""job.sh: the header, the quoting, and what the script does when bash runs it with stand-ins for srun and scontrol."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiftrain.errors import UserError
from aiftrain.launch.script import render
from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec
from aiftrain.shipped import launchers_dir
from tests.conftest import small_execution, small_spec

PYTHON = sys.executable
TOOLS = f"{Path(PYTHON).parent}:{os.environ['PATH']}"  # with this environment's own shellcheck

NASTY = ["two words", "it's", 'a "quote"', "semi;colon", "line\nbreak", "comma,comma", "größe", "$(touch hacked)", "-i"]

# Everything that `sbatch --help` of Slurm 22.05 lists and that we write.
KNOWN_TO_SLURM_22_05 = {
    *("job-name", "output", "open-mode", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node"),
    *("mem", "partition", "qos", "account", "time", "exclusive", "signal", "requeue", "no-requeue"),
    *("constraint", "hint", "dependency", "reservation"),
}
LUMI = {
    "name": "lumi",
    "title": "LUMI-G",
    "scheduler": "slurm",
    "partition": "standard-g",
    "partitions": {"standard-g": {"exclusive": True}, "dev-g": {"qos": "debug"}},
    "gpu_request": ["--gpus-per-node=8"],
    "memory": "480G",
    "cpus_per_task": 7,
    "cpu_bind": "mask_cpu:0xfe000000000000,0xfe00000000000000",
    "srun_flags": ["--mpi=pmi2"],
    "env": {"NCCL_SOCKET_IFNAME": "hsn0,hsn1,hsn2,hsn3"},
    "container": {"runtime": "singularity", "image": "/images/multi torch.sif", "binds": ["/pfs", "/scratch"]},
    "requeue_on_node_failure": True,
}
MI250X = {"name": "mi250x", "title": "MI250X", "kind": "rocm", "devices_per_node": 8}


def lumi_spec(factory: dict[str, Any] | None = None, **changes: Any) -> RunSpec:
    whole: dict[str, Any] = {
        "factory": LUMI | (factory or {}),
        "hardware": MI250X,
        "launcher": {"name": "slurm"},
        "nodes": 2,
        "account": "project_1",
        "time": "1-00:00:00",
    }
    return small_spec(**(whole | changes))


def layout(spec: RunSpec) -> ParallelLayout:
    per_node = spec.launcher.ranks_per_node or spec.hardware.devices_per_node
    world = spec.nodes * per_node
    known = small_execution().layout.model_dump() | {"nodes": spec.nodes, "ranks_per_node": per_node}
    return ParallelLayout.model_validate(known | {"world_size": world, "data_parallel": world})


def header(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def stub(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!{PYTHON}\nimport json, os, sys\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def execute(script: str, tmp_path: Path, name: str = "srun", *, nodes: int = 2) -> dict[str, Any]:
    """Run job.sh under bash with `name` and scontrol replaced by programs that write down what they were given."""
    bin_folder, record = tmp_path / "bin", tmp_path / "record.json"
    bin_folder.mkdir(exist_ok=True)
    stub(bin_folder, "squeue", "print('RUNNING 1:00:00 0')")
    stub(bin_folder, name, f"json.dump([sys.argv[1:], dict(os.environ), os.getcwd()], open({str(record)!r}, 'w'))")
    hosts = "\n".join(["nid5", "nid6"][:nodes])
    stub(bin_folder, "scontrol", f"assert sys.argv[1:3] == ['show', 'hostnames']; print({hosts!r})")
    (tmp_path / "job.sh").write_text(script)
    given = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "nid[5-6]"}
    subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=given)  # fails, as no rank of a stand-in leaves a word
    arguments, environment, folder = json.loads(record.read_text())
    return {"arguments": arguments, "environment": environment, "folder": folder}


def test_lumi_gets_its_header(run_folder: RunFolder) -> None:
    spec = lumi_spec()
    lines = header(render(spec, layout(spec), run_folder))
    assert lines == [
        f"--job-name=aiftrain-small-{hashlib.sha256(bytes(run_folder.path)).hexdigest()[:8]}",
        "--dependency=singleton",
        "--output=slurm-%j.out",
        "--open-mode=append",
        "--nodes=2",
        "--ntasks-per-node=8",
        "--cpus-per-task=7",
        "--gpus-per-node=8",
        "--mem=480G",
        "--partition=standard-g",
        "--account=project_1",
        "--time=1-00:00:00",
        "--signal=TERM@300",
        "--requeue",
    ]
    assert {line.removeprefix("--").split("=")[0] for line in lines} <= KNOWN_TO_SLURM_22_05


def test_a_shared_partition_is_taken_whole_for_core_masks(run_folder: RunFolder) -> None:
    spec = lumi_spec(launcher={"name": "slurm", "partition": "dev-g"})
    lines = header(render(spec, layout(spec), run_folder))
    assert "--exclusive" in lines and "--qos=debug" in lines


def test_a_short_job_is_not_stopped_as_it_starts(run_folder: RunFolder) -> None:
    spec = lumi_spec(time="00:04:00")
    assert "--signal=TERM@60" in header(render(spec, layout(spec), run_folder))


def test_one_rank_a_node_gets_all_cores_and_no_masks(run_folder: RunFolder, tmp_path: Path) -> None:
    spec = lumi_spec(launcher={"name": "slurm", "ranks_per_node": 1})
    script = render(spec, layout(spec), run_folder)
    assert "--cpus-per-task=56" in header(script)
    assert not any(word.startswith("--cpu-bind") for word in execute(script, tmp_path)["arguments"])


def test_the_step_that_lumi_runs(run_folder: RunFolder, tmp_path: Path) -> None:
    spec = lumi_spec()
    ran = execute(render(spec, layout(spec), run_folder), tmp_path)
    image = ran["arguments"].index("/images/multi torch.sif")
    assert ran["arguments"][:5] == [
        "--kill-on-bad-exit=1",
        "--cpu-bind=mask_cpu:0xfe000000000000,0xfe00000000000000",  # and no --cpus-per-task: it needs all cores
        "--mpi=pmi2",
        "singularity",
        "exec",
    ]
    assert {"--bind=/pfs", "--bind=/scratch", f"--bind={run_folder.path}"} <= set(ran["arguments"][5:image])
    assert f"--pwd={Path.cwd()}" in ran["arguments"][5:image]
    assert ran["arguments"][-4:] == ["python3", "-m", "aiftrain.train", str(run_folder.path)]
    assert ran["folder"] == str(Path.cwd())
    environment = ran["environment"]
    assert environment["NCCL_SOCKET_IFNAME"] == "hsn0,hsn1,hsn2,hsn3"
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("nid5", "14711")
    assert environment["HF_HUB_OFFLINE"] == "1" and environment["WANDB_MODE"] == "disabled"
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["SINGULARITYENV_OMP_NUM_THREADS"] == "7", "or one that the image sets would win"
    assert environment["SINGULARITYENV_NCCL_SOCKET_IFNAME"] == "hsn0,hsn1,hsn2,hsn3"


def test_each_start_is_an_attempt_of_its_own(run_folder: RunFolder, tmp_path: Path) -> None:
    spec = lumi_spec()
    script = render(spec, layout(spec), run_folder)
    numbers = [execute(script, tmp_path)["environment"]["AIFTRAIN_ATTEMPT"] for _ in range(2)]
    run_folder.attempt_logs(9).mkdir()
    numbers.append(execute(script, tmp_path)["environment"]["AIFTRAIN_ATTEMPT"])
    assert numbers == ["1", "2", "10"]
    assert run_folder.last_attempt() == 10


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("launcher", ["slurm", "local"])
def test_nasty_names_survive(name: str, launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / f"cwd {name}"
    here.mkdir()
    monkeypatch.chdir(here)
    folder = RunFolder(tmp_path / name)
    factory = {"container": None, "env": {"SITE": name}, "srun_flags": [f"--comment={name}"]}
    spec = lumi_spec(factory, recipe=name, launcher={"name": launcher}, nodes=1)
    if launcher == "local":  # the stub takes the place of Python
        monkeypatch.setattr(sys, "executable", "torchrun-stub")
    folder.write(folder.run_json, spec.model_dump_json())
    ran = execute(render(spec, layout(spec), folder), tmp_path, "srun" if launcher == "slurm" else "torchrun-stub")
    assert ran["arguments"][-2:] == ["aiftrain.train", str(folder.path)]
    assert ran["environment"]["SITE"] == name
    assert ran["folder"] == str(here)
    assert folder.last_attempt() == 1
    assert launcher == "local" or f"--comment={name}" in ran["arguments"]
    assert not list(tmp_path.rglob("hacked"))


def test_an_account_that_no_header_can_hold_is_refused(run_folder: RunFolder) -> None:
    spec = lumi_spec(account="a\nb")
    with pytest.raises(UserError, match="line break"):
        render(spec, layout(spec), run_folder)


def test_constraint_hint_and_modules_of_the_site(run_folder: RunFolder, tmp_path: Path) -> None:
    site = {"constraint": "h100", "hint": "nomultithread", "modules": ["export FROM_MODULE=yes PYTHONPATH=/site"]}
    spec = lumi_spec(site | {"container": None})
    script = render(spec, layout(spec), run_folder)
    assert {"--constraint=h100", "--hint=nomultithread"} <= set(header(script))
    assert script.startswith("#!/bin/bash -l\n"), "or `module` is not known on every site"
    environment = execute(script, tmp_path)["environment"]
    assert environment["FROM_MODULE"] == "yes"
    assert environment["PYTHONPATH"].endswith(":/site"), "what modules put there stays"


@pytest.mark.parametrize(
    ("rendezvous", "nodes", "address"),
    [
        ({"rule": "hostname"}, 2, "nid5"),
        ({"rule": "suffix", "suffix": "-ib.site"}, 2, "nid5-ib.site"),
        ({"rule": "address", "interface": "lo"}, 2, "127.0.0.1"),
        ({"rule": "suffix", "suffix": "-ib.site"}, 1, "127.0.0.1"),
    ],
)
def test_ranks_meet_by_the_rule_of_the_site(
    rendezvous: dict[str, str], nodes: int, address: str, run_folder: RunFolder, tmp_path: Path
) -> None:
    spec = lumi_spec({"rendezvous": rendezvous}, nodes=nodes)
    ran = execute(render(spec, layout(spec), run_folder), tmp_path, nodes=nodes)
    assert ran["environment"]["MASTER_ADDR"] == address


def test_a_port_in_use_is_passed_over(run_folder: RunFolder, tmp_path: Path) -> None:
    spec = lumi_spec()
    with socket.create_server(("127.0.0.1", 14711)), socket.create_server(("::1", 14712), family=socket.AF_INET6):
        assert execute(render(spec, layout(spec), run_folder), tmp_path)["environment"]["MASTER_PORT"] == "14713"


def test_one_task_a_node_starts_the_ranks_of_its_node(run_folder: RunFolder, tmp_path: Path) -> None:
    spec = lumi_spec(launcher={"name": "slurm", "style": "task-per-node"})
    script = render(spec, layout(spec), run_folder)
    assert {"--ntasks-per-node=1", "--cpus-per-task=56"} <= set(header(script))
    ran = execute(script, tmp_path)
    assert not any(word.startswith("--cpu-bind") for word in ran["arguments"])
    assert ran["arguments"][-6:] == [
        *("torch.distributed.run", "--nnodes=2", "--nproc-per-node=8"),
        *("-m", "aiftrain.train", str(run_folder.path)),
    ]
    assert ran["environment"]["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("left", "srun", "job", "calls"),
    [
        (75, 137, 75, ["srun", "requeue"]),  # whatever srun makes of a rank that left before the others
        (75, 0, 75, ["srun", "requeue"]),
        (1, 1, 1, ["srun", "srun"]),
        (0, 0, 0, ["srun"]),
        (2, 2, 2, ["srun"]),
    ],
)
def test_a_job_ends_or_goes_on_as_its_ranks_ended(
    left: int, srun: int, job: int, calls: list[str], run_folder: RunFolder, tmp_path: Path
) -> None:
    spec = lumi_spec({"container": None})
    run_folder.write(run_folder.run_json, spec.model_dump_json())
    run_folder.write_json(run_folder.plan_json, {"execution": small_execution(1).model_dump(mode="json")})
    (tmp_path / "job.sh").write_text(render(spec, layout(spec), run_folder))
    (tmp_path / "bin").mkdir()
    record = f"print(os.path.basename(sys.argv[0]), *sys.argv[1:2], file=open({str(tmp_path / 'calls')!r}, 'a'))"
    logs = f"{str(run_folder.logs)!r} + '/attempt-' + os.environ['AIFTRAIN_ATTEMPT'].zfill(3) + '/rank-00000.'"
    note = {"rank": 0, "host": "nid5", "time": 1.0, "exit_code": left, "message": ""}
    leave = f"[json.dump({note!r}, open({logs} + name + '.json', 'w')) for name in ('start', 'exit')]"
    stub(tmp_path / "bin", "srun", f"{record}\n{leave}\nsys.exit({srun})")
    stub(tmp_path / "bin", "scontrol", f"{record}\nprint('nid5')")
    stub(tmp_path / "bin", "squeue", "print('RUNNING 1:00:00 0')")
    given = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "nid5"}
    assert subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=given).returncode == job
    called = [line.replace("scontrol", "").split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert [call for call in called if call != "show"] == calls


def test_a_run_folder_that_is_gone_ends_the_job_at_once(run_folder: RunFolder, tmp_path: Path) -> None:
    spec = lumi_spec()
    (tmp_path / "job.sh").write_text(render(spec, layout(spec), run_folder))
    shutil.rmtree(run_folder.path)
    ran = subprocess.run(
        ["bash", "job.sh"], cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert ran.returncode == 2 and f"there is no run in {run_folder.path}" in ran.stderr
    assert not run_folder.path.exists()


@pytest.mark.skipif(shutil.which("shellcheck", path=TOOLS) is None, reason="apt-get install shellcheck")
@pytest.mark.parametrize(
    ("launcher", "factory"),
    [
        ({"name": "slurm"}, {}),
        ({"name": "slurm", "env_archive": "/it's.tar"}, {"container": None}),
        ({"name": "local"}, {}),
    ],
    ids=["slurm", "slurm with an archive", "local"],
)
def test_scripts_are_shellcheck_clean(
    launcher: dict[str, str], factory: dict[str, Any], run_folder: RunFolder, tmp_path: Path
) -> None:
    spec = lumi_spec(factory, launcher=launcher)
    file = tmp_path / "job.sh"
    file.write_text(render(spec, layout(spec), run_folder))
    checked = subprocess.run(["shellcheck", file], capture_output=True, text=True, env={"PATH": TOOLS})
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("body", sorted(launchers_dir().glob("*.sh")), ids=lambda file: file.name)
def test_bodies_are_short_and_read_our_variables_only(body: Path) -> None:
    text = body.read_text()
    assert 10 <= len(text.splitlines()) <= 90
    subprocess.run(["bash", "-n", body], check=True)


@pytest.mark.parametrize("launcher", ["deepspeed", "local", "mpi", "pbs", "slurm"])
def test_starts_are_counted_beyond_999(launcher: str, tmp_path: Path) -> None:
    """A run of three months in jobs of two hours has as many. Names sort otherwise than numbers there.

    What a person has put aside beside them counts for nothing.
    """
    lines = [line.strip() for line in (launchers_dir() / f"{launcher}.sh").read_text().splitlines()]
    begin = next(number for number, line in enumerate(lines) if "/logs/attempt-[0-9]*" in line)
    end = next(number for number, line in enumerate(lines) if "10#$last + 1" in line)
    program = "\n".join(["set -eu; shopt -s nullglob", *lines[begin : end + 1], "echo $AIFTRAIN_ATTEMPT"])
    folder = RunFolder(tmp_path)
    environment = {"PATH": os.environ["PATH"], "AIFTRAIN_RUN": str(tmp_path), "AIFTRAIN_RANKS_PER_NODE": "1"}
    for name in ("attempt-2000.old", "attempt-3000-kept"):
        (folder.logs / name).mkdir(parents=True)
    for last in (0, 8, 999, 1000):
        if last:
            folder.attempt_logs(last).mkdir(parents=True)
        told = subprocess.run(["bash", "-c", program], env=environment, capture_output=True, text=True, check=True)
        assert int(told.stdout) == folder.last_attempt() + 1 == last + 1
