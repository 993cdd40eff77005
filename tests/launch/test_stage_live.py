"""A packed environment on a live Slurm: unpacked on each node's own disk, run from there, and taken away again."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from tests.rigs.slurm import SlurmRig
from tests.rigs.training import LIVE, Trainings, live_shape, losses, trainings

pytestmark = LIVE


@pytest.fixture(scope="module")
def on_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    with SlurmRig(live_shape(2), live=True) as rig, pytest.MonkeyPatch.context() as patch:
        yield trainings(tmp_path_factory.mktemp("trainings"), rig, patch)


@pytest.fixture(scope="module")
def archive(on_rig: Trainings) -> Path:
    """A small environment: torch and the rest it reads from this one, through a .pth file. `packed` tells it apart."""
    venv, archive = on_rig.folder / "venv", on_rig.folder / "it's packed.tar"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = next(venv.glob("lib/python3*/site-packages"))
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "packed-1.0.dist-info").mkdir()
    assert main(["env", "pack", str(archive), "--venv", str(venv)]) == 0
    return archive


def test_a_job_runs_from_its_nodes_disks_and_only_what_is_locked(on_rig: Trainings, archive: Path) -> None:
    """Two nodes, /tmp of each its own; the lock is made of the archive before the job, and holds for it."""
    disk = on_rig.rig.state / "tmp"
    words = ["nodes=2", "launcher.ranks_per_node=1", f'launcher.env_archive="{archive}"', f"+factory.env.TMPDIR={disk}"]
    run, job = on_rig.submit("staged", *words, "launcher.extra=['--hold']")
    assert main(["env", "lock", str(run.path)]) == 0
    on_rig.rig.call("scontrol", "release", job)
    on_rig.finish(run, job)
    assert losses(run) == losses(on_rig.here("undisturbed"))
    assert json.loads(run.environment(1).read_text())["packages"]["packed"] == "1.0"
    nodes = sorted((on_rig.rig.state / "tmp-of").iterdir())
    assert len(nodes) == 2 and not any(list(node.glob("aiftrain-*")) for node in nodes)


def test_a_job_with_other_software_than_is_locked_ends_with_the_difference(on_rig: Trainings) -> None:
    run, job = on_rig.submit("locked", "nodes=2", "launcher.ranks_per_node=1", "launcher.extra=['--hold']")
    assert main(["env", "lock", str(run.path)]) == 0
    document = json.loads(run.env_lock.read_text())
    document["software"]["packages"]["deepspeed"] = "0.1"
    run.write_json(run.env_lock, document)
    on_rig.rig.call("scontrol", "release", job)
    on_rig.finish(run, job, "FAILED")
    assert on_rig.rig.job_exit_code(job) == 2
    note = json.loads((run.attempt_logs(1) / "rank-00000.exit.json").read_text())
    assert note["exit_code"] == 2 and "deepspeed: locked 0.1, here " in note["message"]
