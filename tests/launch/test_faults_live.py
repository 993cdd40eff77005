"""Faults on a live Slurm: ranks and daemons killed, nodes cut off, hangs, walls. Nobody helps, and the losses stay."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from aiftrain.run.folder import RunFolder, read_lines
from tests.rigs.slurm import SlurmRig
from tests.rigs.training import LIVE, Trainings, live_shape, losses, output, processes_of, trainings

pytestmark = LIVE
STEPS = 150  # a few seconds: time to strike while they are made
LONG = [f"train.steps={STEPS}", "train.evaluate_every=0"]
TWO_NODES = ["nodes=2", "launcher.ranks_per_node=1", *LONG]
RESTART_SECONDS = 45  # from a rank's death to the next step, beyond what Slurm itself takes


@pytest.fixture(scope="module")
def on_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Nodes for five runs at once, and spare ones for all that are lost."""
    with SlurmRig(live_shape(15), live=True) as rig, pytest.MonkeyPatch.context() as patch:
        yield trainings(tmp_path_factory.mktemp("faults mit läufen"), rig, patch)


@pytest.fixture(scope="module")
def undisturbed(on_rig: Trainings) -> dict[int, float]:
    return losses(on_rig.here("undisturbed", *LONG))


def nodes_of(run: RunFolder, attempt: int, rank: str = "rank-*") -> set[str]:
    notes = run.attempt_logs(attempt).glob(f"{rank}.start.json")
    return {json.loads(note.read_text())["node"] for note in notes}


def attempts(run: RunFolder) -> list[dict[str, object]]:
    return [event for event in read_lines(run.events) if event["event"] == "ended"]


def jobs(run: RunFolder) -> list[str]:
    return [str(record["job"]) for record in read_lines(run.jobs) if "job" in record]


def test_a_killed_rank_is_started_again_at_once_and_a_node_that_loses_it_twice_is_left_out(
    on_rig: Trainings, undisturbed: dict[int, float]
) -> None:
    run, job = on_rig.submit("killed rank", *TWO_NODES, f"launcher.bad_nodes='{on_rig.folder}/bad nodes.txt'")
    died = 0.0
    for attempt, step in ((1, 20), (2, 40)):
        on_rig.until_step(run, step, attempt)
        os.kill(processes_of(run, attempt)[1], signal.SIGKILL)
        died = time.time() if attempt == 1 else died
        on_rig.until_attempt(run, attempt + 1)
    on_rig.finish(run, jobs(run)[1])
    assert losses(run) == undisturbed
    assert [event["next"] for event in attempts(run)] == ["here", "queue", "end"], "no queue for one lost rank"
    went_on = next(record["time"] for record in read_lines(run.metrics) if record["attempt"] == 2)
    assert went_on - died < RESTART_SECONDS
    print(f"from a killed rank to the next step: {went_on - died:.1f} s")
    [lost] = nodes_of(run, 2, "rank-00001")
    assert (on_rig.folder / "bad nodes.txt").read_text().startswith(f"{lost}\t")
    assert lost not in nodes_of(run, 3) and len(nodes_of(run, 3)) == 2
    following, job = on_rig.submit("next run", *TWO_NODES, f"launcher.bad_nodes='{on_rig.folder}/bad nodes.txt'")
    assert f"ExcNodeList={lost}" in on_rig.rig.call("scontrol", "show", "job", job).stdout
    on_rig.finish(following, job)


def test_a_rank_that_hangs_is_ended_and_started_again(on_rig: Trainings, undisturbed: dict[int, float]) -> None:
    run, job = on_rig.submit("hung", *TWO_NODES, "train.hang_minutes=0.05")
    on_rig.until_step(run, 6)
    os.kill(processes_of(run, 1)[1], signal.SIGSTOP)
    on_rig.finish(run, job)
    assert losses(run) == undisturbed
    assert [event["attempt"] for event in read_lines(run.events) if event["event"] == "hang"] == [1]
    assert "most recent call first" in (run.attempt_logs(1) / "rank-00000.log").read_text()


def test_lost_nodes_are_replaced(on_rig: Trainings, undisturbed: dict[int, float]) -> None:
    """All at once, each run on nodes of its own: what takes the time is Slurm's looking for nodes that are silent."""
    faults = [("kill_slurmd", 0), ("kill_slurmd", 1), ("cut_off", 0), ("cut_off", 1), ("kill_node", 1)]
    alone = [*TWO_NODES, "launcher.extra=['--exclusive']", "train.hang_minutes=0.2"]
    runs = [on_rig.submit(f"{fault} {rank}", *alone) for fault, rank in faults]
    lost = [_strike(on_rig, run, job, *fault) for (run, job), fault in zip(runs, faults, strict=True)]
    for (run, job), node in zip(runs, lost, strict=True):
        on_rig.until_attempt(run, 2)
        for process in processes_of(run, attempt=1).values():
            os.kill(process, signal.SIGCONT)  # on a node that Slurm has given up: it finds itself alone, and ends
        on_rig.finish(run, job)
        assert losses(run) == undisturbed
        assert node not in nodes_of(run, run.last_attempt())
        assert jobs(run) == [job]


def _strike(on_rig: Trainings, run: RunFolder, job: str, fault: str, rank: int) -> str:
    """Do it to the node of a rank in the middle of a run; the node."""
    on_rig.until_step(run, 3)
    node = json.loads((run.attempt_logs(1) / f"rank-{rank:05d}.start.json").read_text())["node"]
    if fault == "kill_slurmd":  # ranks that were not stopped would be at the end before Slurm misses it
        on_rig.rig.call("scancel", "--signal=STOP", f"{job}.0")
    getattr(on_rig.rig, fault)(node)
    assert max(losses(run)) < STEPS, "the run was over before the fault"
    return str(node)


def test_at_the_end_of_the_wall_time_the_run_goes_on_by_itself(
    on_rig: Trainings, undisturbed: dict[int, float]
) -> None:
    """Four runs at once, since Slurm looks at time limits every 30 s. Their ranks stand still until it tells them."""
    warned = [*TWO_NODES, "launcher.extra=['--signal=TERM@55']"]
    requeued = on_rig.submit("wall requeue", *warned, "launcher.chain=requeue")
    followed = on_rig.submit("wall follow", *warned, "launcher.chain=follow-up")
    alone = on_rig.submit("wall none", *warned, "launcher.chain=none")
    unwarned = on_rig.submit("wall itself", *TWO_NODES, "launcher.extra=['--signal=B:URG@1']")
    for run, job in (requeued, followed, alone, unwarned):
        on_rig.until_step(run, 3)
        on_rig.rig.call("scancel", "--signal=STOP", f"{job}.0")
        on_rig.set_wall_time(job, minutes=1)
    short = {job for _, job in (requeued, unwarned)}

    def all_have_more_time() -> bool:
        for job in [each for each in short if on_rig.rig.job_state(each) == "PENDING"]:
            on_rig.set_wall_time(job, minutes=60)
            short.remove(job)
        return not short

    on_rig.until(unwarned[0], all_have_more_time, seconds=200)
    for run, job in (requeued, unwarned):
        on_rig.finish(run, job)
        assert losses(run) == undisturbed
        assert jobs(run) == [job]
    run, job = followed
    on_rig.until(run, lambda: len(jobs(run)) == 3)
    on_rig.finish(run, jobs(run)[1])
    assert losses(run) == undisturbed
    assert [on_rig.rig.job_state(each) for each in jobs(run)] == ["FAILED", "COMPLETED", "CANCELLED"]
    run, job = alone
    on_rig.finish(run, job, "FAILED")
    assert on_rig.rig.job_exit_code(job) == 75, output(run)
    assert max(losses(run)) < STEPS
