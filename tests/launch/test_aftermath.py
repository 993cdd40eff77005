"""Whether a run goes on after its ranks have ended, where, and without which nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiftrain.launch.aftermath import JobNow, Verdict, decide, main
from aiftrain.run.folder import RunFolder, append_line, read_lines
from tests.conftest import small_execution, small_spec

NOW = JobNow("0", "RUNNING", "1:00:00", "0")
LOST = "RuntimeError: Connection closed by peer [10.0.0.1]:41234"
NODES = ("nid1", "nid2")


@pytest.fixture
def run(run_folder: RunFolder) -> RunFolder:
    """A run of two ranks on two nodes, submitted as a job of Slurm."""
    return described(run_folder)


def described(folder: RunFolder, **launcher: object) -> RunFolder:
    spec = small_spec(launcher={"name": "slurm", "ranks_per_node": 1} | launcher, time="02:00:00")
    folder.write(folder.run_json, spec.model_dump_json())
    folder.write_json(folder.plan_json, {"execution": small_execution(2).model_dump(mode="json")})
    append_line(folder.jobs, {"job": "1", "submitted": 1.0})
    return folder


def ended(folder: RunFolder, attempt: int, *ends: tuple[int | None, str], steps: int = 0) -> None:
    """What the ranks of an attempt left: each one's exit code and message, None where it vanished."""
    logs = folder.attempt_logs(attempt)
    logs.mkdir(parents=True)
    for rank, (code, message) in enumerate(ends):
        note = {"rank": rank, "host": f"{NODES[rank]}.site", "node": NODES[rank], "time": 10.0 + attempt}
        (logs / f"rank-{rank:05d}.start.json").write_text(json.dumps(note))
        if code is not None:
            end = note | {"exit_code": code, "message": message}
            (logs / f"rank-{rank:05d}.exit.json").write_text(json.dumps(end))
    for step in range(1, steps + 1):
        append_line(folder.metrics, {"step": step, "attempt": attempt, "time": 10.0})


def where(verdict: Verdict) -> tuple[int, str]:
    return verdict.exit_code, verdict.next


@pytest.mark.parametrize(("code", "next_"), [(0, "end"), (2, "end"), (75, "queue"), (1, "here")])
def test_what_the_ranks_said_decides(code: int, next_: str, run: RunFolder) -> None:
    ended(run, 1, (code, ""), (code, ""), steps=3)
    assert where(decide(run, 1, NOW)) == (code, next_)


@pytest.mark.parametrize(
    ("job", "next_"),
    [
        (JobNow("0", "RUNNING", "UNLIMITED", "0"), "here"),
        (JobNow("0", "RUNNING", "5:59", "0"), "queue"),  # no more than a minute before ranks are told to leave
        (JobNow("0", "COMPLETING", "0:00", "0"), "queue"),  # the wall
        (JobNow("0", "COMPLETING", "INVALID", "0"), "queue"),  # and a second after it
        (JobNow("0", "COMPLETING", "1:00:00", "0"), "end"),  # cancelled
        (JobNow("0", "PENDING", "2:00:00", "1"), "wait"),  # started anew, and this script is of before
        (JobNow("0"), "wait"),
    ],
)
def test_what_slurm_says_of_the_job_decides(job: JobNow, next_: str, run: RunFolder) -> None:
    ended(run, 1, (1, "a fault"), (1, LOST), steps=3)
    assert decide(run, 1, job).next == next_


def test_a_requeued_script_speaks_for_its_own_start(run: RunFolder) -> None:
    ended(run, 1, (75, ""), (75, ""))
    assert decide(run, 1, JobNow("2", "RUNNING", "1:00:00", "2")).next == "queue"
    assert decide(run, 1, JobNow("1", "RUNNING", "1:00:00", "2")).next == "wait"


def test_nodes_where_two_starts_led_nowhere_are_given_back(run: RunFolder) -> None:
    ended(run, 1, (1, "a fault"), (1, LOST), steps=3)
    ended(run, 2, (1, "a fault"), (1, LOST))
    assert decide(run, 2, NOW).next == "here", "the first of the two had made steps"
    ended(run, 3, (1, "a fault"), (1, LOST))
    assert decide(run, 3, NOW).next == "queue"


def test_a_loop_of_failures_ends(run: RunFolder) -> None:
    ended(run, 1, (1, "a fault"), (1, LOST), steps=3)
    for attempt in (2, 3, 4):
        assert decide(run, attempt - 1, NOW).next != "end"
        ended(run, attempt, (1, "the disk is full"), (1, LOST))
    verdict = decide(run, 4, NOW)
    assert verdict.next == "end" and "the last 3 starts" in verdict.why and "the disk is full" in verdict.why


def test_a_run_that_never_made_a_step_is_tried_twice_and_a_broken_set_up_once(run: RunFolder) -> None:
    ended(run, 1, (1, "a fault"), (1, LOST))
    assert decide(run, 1, NOW).next == "here"
    ended(run, 2, (1, "a fault"), (1, LOST))
    assert decide(run, 2, NOW).next == "end"
    append_line(run.jobs, {"job": "2", "submitted": 12.5})
    run.attempt_logs(3).mkdir()
    verdict = decide(run, 3, NOW)
    assert verdict.next == "end" and "2 of 2 ranks did not start" not in verdict.why


def test_ranks_that_did_not_start_want_other_nodes(run: RunFolder) -> None:
    ended(run, 1, (1, "a fault"), (1, LOST), steps=3)
    ended(run, 2, (1, LOST))
    assert decide(run, 2, NOW).next == "queue"


@pytest.mark.parametrize("mark", [{"cancelled": 2.0}, {"cancelled": None}])
def test_a_cancelled_run_stays_away(mark: dict[str, float | None], run: RunFolder) -> None:
    append_line(run.jobs, mark)
    append_line(run.jobs, {"job": "2", "submitted": 3.0, "follows": "1"})
    ended(run, 1, (75, ""), (75, ""))
    assert decide(run, 1, NOW).next == ("end" if mark["cancelled"] else "queue")
    append_line(run.jobs, {"job": "3", "submitted": 4.0})
    assert decide(run, 1, NOW).next == "queue", "someone has submitted it again"


def test_without_a_chain_nothing_goes_on(run_folder: RunFolder) -> None:
    described(run_folder, chain="none")
    ended(run_folder, 1, (75, ""), (75, ""))
    assert decide(run_folder, 1, NOW) == Verdict(75, "end", "launcher.chain=none")


def test_a_node_that_the_preflight_names_is_left_out(run: RunFolder, tmp_path: Path) -> None:
    append_line(run.events, {"event": "bad node", "attempt": 1, "host": "nid2.site", "reason": "3 of 4 devices"})
    append_line(run.events, {"event": "bad node", "attempt": 0, "host": "nid7", "reason": "of another attempt"})
    ended(run, 1, (1, "3 of 4 devices"), (1, LOST), steps=1)
    listed = tmp_path / "bad.txt"
    listed.write_text("nid9\n")
    assert str(decide(run, 1, NOW, listed)) == "1 queue nid2,nid9"
    assert "nid2\t" in listed.read_text() and "3 of 4 devices (" in listed.read_text()


def test_a_broken_device_names_its_node(run: RunFolder) -> None:
    ended(run, 1, (1, LOST), (1, "CUDA error: uncorrectable ECC error encountered"), steps=1)
    assert decide(run, 1, NOW).leave_out == ("nid2",)


def test_a_node_is_left_out_when_its_ranks_vanish_twice_in_a_row(run: RunFolder) -> None:
    ended(run, 1, (1, LOST), (None, ""), steps=1)
    assert where(decide(run, 1, NOW)) == (1, "here")
    ended(run, 2, (1, LOST), (None, ""), steps=2)
    assert decide(run, 2, NOW).leave_out == ("nid2",)
    ended(run, 3, (None, ""), (1, LOST), steps=3)
    assert decide(run, 3, NOW).leave_out == (), "now it was the other one"
    ended(run, 4, (None, ""), (None, ""), steps=4)
    assert decide(run, 4, NOW).leave_out == (), "all were killed: that says nothing of one"


def test_it_answers_in_one_line_and_notes_why(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    ended(run, 1, (75, ""), (75, ""), steps=3)
    assert main([str(run.path), "1", "0", "RUNNING", "1:00:00", "0"]) == 0
    answer = capsys.readouterr()
    assert answer.out == "75 queue\n"
    assert "next: queue, the ranks were told to leave" in answer.err
    [event] = read_lines(run.events)
    assert (event["event"], event["attempt"], event["next"]) == ("ended", 1, "queue")


def test_a_run_that_cannot_be_read_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "1", "0"]) == 0
    answer = capsys.readouterr()
    assert answer.out == "1 end\n" and "no run folder" in answer.err
