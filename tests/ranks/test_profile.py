"""profile=true on real ranks: the numbers stay what they are, traces can be read, and the parts add up."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable

import pytest

from aiftrain.run.folder import RunFolder
from aiftrain.run.profile import read_profile
from tests.ranks.conftest import Nursery, events, losses

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]
SHORT = ["train.steps=7", "train.evaluate_every=5", "storage.save_every=5"]


def test_profiled_steps_are_told_and_change_no_number(nursery: Nursery, new_run: NewRun) -> None:
    plain = new_run(*SHORT)
    assert nursery.start(plain, 2).wait() == [0, 0]
    run = new_run(*SHORT, "profile=true")
    ranks = nursery.start(run, 2)
    assert ranks.wait() == [0, 0], ranks.log()
    assert losses(run) == losses(plain)
    assert losses(run, "grad_norm") == losses(plain, "grad_norm")
    assert not plain.profile.exists()

    profile = read_profile(run)
    assert (profile.first, profile.last, profile.device, profile.compared) == (4, 6, "cpu", True)
    assert [rank.rank for rank in profile.ranks] == [0, 1]
    for rank in profile.ranks:
        assert sum(rank.parts.values()) == pytest.approx(rank.wall, rel=1e-6)
        assert all(rank.parts[part] > 0 for part in rank.parts if part != "waiting"), rank.parts
    [told] = events(run, "profiled")
    assert told["steps"] == "4-6" and told["compute"].endswith("%")

    [trace] = run.profile.glob("*.trace.json.gz")
    assert profile.traces == (trace.name,) == ("rank-00000.trace.json.gz",)
    with gzip.open(trace) as stream:
        names = {event.get("name") for event in json.load(stream)["traceEvents"]}
    assert {"ProfilerStep#1", "ProfilerStep#2", "ProfilerStep#3", "aiftrain: optimizer", "gloo:all_reduce"} <= names


def test_a_run_that_goes_on_records_what_is_left_of_the_steps(nursery: Nursery, new_run: NewRun) -> None:
    """And every rank's trace, where that was asked for."""
    words = [*SHORT, "profile=true", "profile_ranks=all", "profile_steps=[4,7]"]
    run = new_run("train.steps=5", *SHORT[1:])
    assert nursery.start(run, 2).wait() == [0, 0]
    new_run(*words, folder=run.path)
    assert nursery.start(run, 2).wait() == [0, 0]
    profile = read_profile(run)
    assert (profile.attempt, profile.first, profile.last) == (2, 6, 7)
    assert len(profile.traces) == len(list(run.profile.glob("rank-*.gz"))) == 2


def test_one_rank_has_nobody_to_wait_for(nursery: Nursery, new_run: NewRun) -> None:
    run = new_run("train.steps=2", "profile=true", "profile_steps=[1,1]", ranks=1)
    assert nursery.start(run, 1).wait() == [0]
    profile = read_profile(run)
    assert not profile.compared
    assert profile.ranks[0].parts["waiting"] == 0
    assert not list(run.profile.glob("*.tmp"))
