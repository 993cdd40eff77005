"""Jobs on a live Slurm of several nodes: they train as this machine alone would, and go on after every interruption."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from tests.rigs.slurm import SlurmRig
from tests.rigs.training import LIVE, Trainings, live_shape, losses, trainings

pytestmark = LIVE
ROOT = Path(__file__).resolve().parents[2]
TWO_NODES = ["nodes=2", "launcher.ranks_per_node=1"]


@pytest.fixture(scope="module")
def on_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Four nodes that run jobs, and tiny runs for them."""
    with SlurmRig(live_shape(4), live=True) as rig, pytest.MonkeyPatch.context() as patch:
        yield trainings(tmp_path_factory.mktemp("trainings mit läufen"), rig, patch)


@pytest.fixture(scope="module")
def undisturbed(on_rig: Trainings) -> dict[int, float]:
    """The losses of two ranks on this machine, without a scheduler."""
    found = losses(on_rig.here("undisturbed"))
    assert sorted(found) == list(range(1, 21))
    return found


@pytest.mark.parametrize(
    "layout",
    [
        TWO_NODES,
        ["nodes=1", "launcher.ranks_per_node=2"],
        ["nodes=1", "launcher.ranks_per_node=2", "launcher.style=task-per-node"],
        [*TWO_NODES, "launcher.style=task-per-node"],
    ],
    ids=["two nodes", "two tasks of a node", "one torchrun", "a torchrun on each of two nodes"],
)
def test_a_job_trains_as_this_machine_does(
    layout: list[str], on_rig: Trainings, undisturbed: dict[int, float], request: pytest.FixtureRequest
) -> None:
    run, job = on_rig.submit(request.node.callspec.id, *layout)
    on_rig.finish(run, job)
    assert losses(run) == undisturbed
    hosts = {file.read_text().split('"host": "')[1].split('"')[0] for file in run.attempt_logs(1).glob("*.start.json")}
    assert len(hosts) == (2 if "nodes=2" in layout else 1)


def test_four_nodes_train_as_four_ranks_of_this_machine_do(on_rig: Trainings) -> None:
    here = on_rig.here("four here", "launcher.ranks_per_node=4")
    run, job = on_rig.submit("four nodes", "nodes=4", "launcher.ranks_per_node=1")
    on_rig.finish(run, job)
    assert losses(run) == losses(here)


def test_the_launcher_by_hand_needs_nothing_but_the_run_folder(
    on_rig: Trainings, undisturbed: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, job = on_rig.submit("by hand", *TWO_NODES, "launcher.extra=['--hold']")
    on_rig.rig.call("scancel", job)
    monkeypatch.setitem(on_rig.rig.environ, "PYTHONPATH", str(ROOT))
    monkeypatch.setitem(on_rig.rig.environ, "PATH", f"{Path(sys.executable).parent}:{on_rig.rig.environ['PATH']}")
    words = ("sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", str(ROOT / "launchers" / "slurm.sh"))
    submitted = on_rig.rig.call(*words, cwd=run.path)
    assert submitted.returncode == 0, submitted.stderr
    on_rig.finish(run, submitted.stdout.strip())
    assert losses(run) == undisturbed


def test_two_jobs_share_a_node(on_rig: Trainings, undisturbed: dict[int, float]) -> None:
    together = ["nodes=1", "launcher.ranks_per_node=2", "launcher.extra=['--nodelist=node1']"]
    first, second = (on_rig.submit(name, *together) for name in ("first", "second"))
    on_rig.until_step(first[0], 1)
    assert on_rig.rig.job_state(second[1]) == "RUNNING"
    for run, job in (first, second):
        on_rig.finish(run, job)
        assert losses(run) == undisturbed


def test_a_job_that_is_started_twice_is_refused(on_rig: Trainings, capsys: pytest.CaptureFixture[str]) -> None:
    held = [*TWO_NODES, "launcher.extra=['--hold']"]
    _, job = on_rig.submit("twice", *held)
    with pytest.raises(AssertionError):
        on_rig.submit("twice", *held)
    assert f"job {job} of this run is pending" in capsys.readouterr().err
    on_rig.rig.call("scancel", job)


def test_a_requeued_job_goes_on_by_itself(on_rig: Trainings, undisturbed: dict[int, float]) -> None:
    run, job = on_rig.submit("requeued", *TWO_NODES)
    on_rig.until_step(run, 7)
    on_rig.rig.call("scontrol", "requeue", job)
    on_rig.until(run, lambda: run.last_attempt() == 2)
    on_rig.finish(run, job)
    assert losses(run) == undisturbed
    assert (run.path / f"slurm-{job}.out").is_file()


def test_a_partition_that_is_unknown_to_slurm_is_refused_in_its_words(
    on_rig: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    site = [f"hydra.searchpath=[{Path(__file__).parents[1] / 'rigs' / 'conf'}]", "factory=rig"]
    words = [*on_rig.overrides("refused"), *site, *TWO_NODES, "+factory.partitions.ghost={}"]
    assert main([*words, "launcher.partition=ghost"]) == 2
    assert "invalid partition" in capsys.readouterr().err
