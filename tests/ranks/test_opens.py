"""What ranks read of a run: rank 0 for all, and of a checkpoint each its share. Nothing is read by every rank."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, events

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

OF_RANK_0 = ("run.json", "plan.json", "data.json", "deepspeed.json", "lock", "events.jsonl", "metrics.jsonl")
SHORT = ("train.steps=2", "storage.save_every=2", "train.evaluate_every=0", "parallelism=zero1")


def start(nursery: Nursery, folder: RunFolder, world: int) -> list[Counter[str]]:
    """Run to the end; for each rank, how often it opened what in the run folder."""
    ranks = nursery.start(folder, world, program="tests.ranks.listed_opens")
    assert ranks.wait() == [0] * world, ranks.log()
    notes = (folder.path.parent / f"opens-{ranks.attempt}-{rank}" for rank in range(world))
    return [Counter(note.read_text(encoding="utf-8").splitlines()) for note in notes]


def shards(opens: Counter[str]) -> Counter[int]:
    """Rank that wrote it -> how often its shard was opened."""
    numbers = {path: Path(path).stem.removeprefix("rank-") for path in opens if path.endswith(".safetensors")}
    return Counter({int(number): opens[path] for path, number in numbers.items()})


@pytest.fixture(scope="module")
def saved(nursery: Nursery, new_run: NewRun, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of four ranks, finished and saved."""
    folder = new_run(*SHORT, ranks=4, folder=tmp_path_factory.mktemp("saved") / "run")
    for rank, opens in enumerate(start(nursery, folder, 4)):
        endings = ("log", "start.json", "egress.jsonl", "exit.json")
        own = {f"logs/attempt-001/rank-{rank:05d}.{ending}" for ending in endings}
        assert (set(opens) == own) == (rank > 0), opens
        assert set(opens.values()) == {1} or rank == 0
        assert (set(OF_RANK_0) < set(opens)) == (rank == 0), opens
    return folder


def test_a_resumed_rank_opens_its_own_shard_and_no_manifest(nursery: Nursery, saved: RunFolder) -> None:
    for rank, opens in enumerate(start(nursery, saved, 4)):
        assert shards(opens) == {rank: 2}  # its digest is checked, then it is read
        if rank:
            assert not [path for path in opens if "manifest" in path or path in (*OF_RANK_0, "checkpoints")]
    assert [event["step"] for event in events(saved, "resume")] == [2]


def test_fewer_ranks_share_out_the_headers(nursery: Nursery, new_run: NewRun, saved: RunFolder, tmp_path: Path) -> None:
    """Rank 0 of 2 checks and looks into shards 0 and 2, and its half lies in 0 and 1; of rank 1 they are 1, 3; 2, 3."""
    folder = new_run(*SHORT, ranks=2, folder=tmp_path / "run")
    shutil.copytree(saved.checkpoints, folder.checkpoints)
    assert [shards(opens) for opens in start(nursery, folder, 2)] == [{0: 2, 1: 1, 2: 2}, {1: 2, 2: 1, 3: 2}]
    assert [event["step"] for event in events(folder, "resume")] == [2]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", "{", "run.json cannot be read as a run"),
        ("data.json", None, "data.json is missing"),
        ("plan.json", "[]", "plan.json holds no JSON object"),
        ("deepspeed.json", '{"a": ', "deepspeed.json is no valid JSON"),
    ],
)
def test_what_rank_0_cannot_read_ends_all_ranks_alike(
    nursery: Nursery, new_run: NewRun, file: str, content: str | None, message: str
) -> None:
    folder = new_run("train.global_batch=6", "train.micro_batch=1", ranks=3)
    (folder.path / file).unlink() if content is None else (folder.path / file).write_text(content)
    ranks = nursery.start(folder, 3)
    assert ranks.wait() == [2, 2, 2]
    assert message in ranks.message()
    assert {ranks.message(rank) for rank in range(3)} == {ranks.message()}


def test_every_rank_says_what_world_it_woke_up_in(nursery: Nursery, new_run: NewRun) -> None:
    ranks = nursery.start(new_run(ranks=4), 2)
    assert ranks.wait() == [2, 2]
    for rank in range(2):
        assert "the plan is for 4 ranks" in ranks.message(rank) and "started 2" in ranks.message(rank)
