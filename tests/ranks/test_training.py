"""Ranks at work: strategies agree with one rank, the loss falls, wrong worlds and broken disks are refused."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, children, events, losses

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]


@pytest.fixture(scope="module")
def alone(nursery: Nursery, new_run: NewRun) -> RunFolder:
    """One rank, no ZeRO: what every other layout must equal."""
    folder = new_run("parallelism=ddp", ranks=1)
    assert nursery.start(folder, 1).wait() == [0]
    return folder


@pytest.mark.parametrize(
    ("strategy", "ranks", "micro_batch"),
    [("ddp", 2, 4), ("zero1", 2, 2), ("zero2", 4, 1), ("zero3", 2, 1), ("zero3", 4, 2)],
)
def test_every_layout_trains_like_one_rank(
    nursery: Nursery, new_run: NewRun, alone: RunFolder, strategy: str, ranks: int, micro_batch: int
) -> None:
    folder = new_run(f"parallelism={strategy}", f"train.micro_batch={micro_batch}", ranks=ranks)
    assert nursery.start(folder, ranks).wait() == [0] * ranks
    ours, theirs = losses(folder), losses(alone)
    assert set(ours) == set(theirs) == set(range(1, 21))
    assert max(abs(ours[step] - theirs[step]) / theirs[step] for step in ours) < 1e-5
    assert losses(folder, "sources") == losses(alone, "sources")
    for step, validation in losses(alone, "validation").items():
        assert losses(folder, "validation")[step] == pytest.approx(validation, rel=1e-4)


def test_the_loss_falls_and_is_recorded(alone: RunFolder) -> None:
    curve = losses(alone)
    assert curve[20] < curve[1] - 0.3
    assert losses(alone, "tokens")[20] == 20 * 8 * 32
    assert sum(losses(alone, "sources")[20].values()) == 20 * 8 * 32
    assert set(losses(alone, "validation")[20]) == {"de", "fr"}
    assert [event["step"] for event in events(alone, "saved")] == [5, 10, 15, 20]
    assert events(alone, "end")[-1]["exit_code"] == 0


@pytest.mark.parametrize(("strategy", "ranks"), [("zero3", 2), pytest.param("pp", 4, marks=pytest.mark.slow)])
def test_no_rank_evaluates_an_empty_batch(nursery: Nursery, new_run: NewRun, strategy: str, ranks: int) -> None:
    """GPUs' attention refuses one. Of the nine rows of a source that two ranks evaluate by twos, one is left over."""
    words = ("train.steps=2", "train.evaluate_every=2", "train.evaluate_batches=2")
    one = new_run(*words, "parallelism=ddp", ranks=1)
    several = new_run(*words, f"parallelism={strategy}", ranks=ranks)
    assert nursery.start(one, 1).wait() == [0]
    started = nursery.start(several, ranks, program="tests.ranks.empty_refused")
    assert started.wait() == [0] * ranks, started.log()
    assert losses(several, "validation")[2] == pytest.approx(losses(one, "validation")[2], rel=1e-5)


def test_ranks_below_an_mpiexec_that_has_variables_of_its_own(nursery: Nursery, new_run: NewRun) -> None:
    """It started a torchrun on each node: its word on the rank on the node is torchrun's, not the rank's."""
    folder = new_run("parallelism=ddp", "train.steps=1")
    ranks = nursery.start(folder, 2, OMPI_COMM_WORLD_RANK="2", OMPI_COMM_WORLD_LOCAL_RANK="2")
    assert ranks.wait() == [0, 0], ranks.log()


def test_bf16_follows_fp32(nursery: Nursery, new_run: NewRun, alone: RunFolder) -> None:
    folder = new_run("parallelism=zero1", "train.precision=bf16")
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert losses(folder)[20] == pytest.approx(losses(alone)[20], rel=0.02)


def test_deepspeed_does_not_end_the_autocast(nursery: Nursery, new_run: NewRun) -> None:
    """As it does on GPUs with one that was entered around its engine: all products would be of fp32."""
    as_asked, fp32, on_gpu = (
        new_run("parallelism=ddp", "train.steps=3", f"train.precision={precision}", ranks=1)
        for precision in ("bf16", "fp32", "bf16")
    )
    for folder in (as_asked, fp32):
        assert nursery.start(folder, 1).wait() == [0]
    assert nursery.start(on_gpu, 1, program="tests.ranks.gpu_autocast").wait() == [0]
    assert losses(as_asked) == losses(on_gpu)
    assert losses(as_asked) != losses(fp32)


@pytest.mark.parametrize(
    ("option", "strategy"),
    [
        ("train.deterministic=true", "zero2"),
        pytest.param("train.compile=true", "zero1", marks=pytest.mark.slow),
        pytest.param("train.compile=true", "zero3", marks=pytest.mark.slow),
    ],
)
def test_options_change_speed_and_not_the_numbers(
    nursery: Nursery, new_run: NewRun, alone: RunFolder, option: str, strategy: str
) -> None:
    folder = new_run(f"parallelism={strategy}", option)
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert max(abs(losses(folder)[step] - loss) / loss for step, loss in losses(alone).items()) < 1e-5


def test_a_world_that_is_not_the_planned_one_is_refused(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run(ranks=2)
    ranks = nursery.start(folder, 1)
    assert ranks.wait() == [2]
    assert "2 ranks" in ranks.message() and "started 1" in ranks.message()


def test_a_second_start_on_the_same_folder_is_refused(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("train.steps=400", "storage.save_every=400", ranks=1)
    first = nursery.start(folder, 1)
    first.until(lambda: 1 in losses(folder))
    second = nursery.start(folder, 1)
    assert second.wait() == [2]
    assert "in use" in second.message() and str(first.pids[0]) in second.message()
    first.kill()


def test_a_loss_that_is_no_number_ends_the_run_without_a_checkpoint(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("optimizer.lr=1e30", "optimizer.grad_clip=0", "train.steps=12")
    ranks = nursery.start(folder, 2)
    assert set(ranks.wait()) == {1}
    assert "training cannot go on" in ranks.message()
    assert all(event["step"] < max(losses(folder), default=0) + 1 for event in events(folder, "saved"))


def test_a_full_disk_ends_the_run_and_loses_nothing(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("train.steps=60", "storage.save_every=5")
    ranks = nursery.start(folder, 2)
    ranks.until_saved()
    resource.prlimit(ranks.writers()[1], resource.RLIMIT_FSIZE, (20_000, 20_000))  # to one rank the disk is full now
    assert set(ranks.wait()) == {1}
    assert "cannot write" in ranks.message() and "rank-00001" in ranks.message()
    newest = Catalog(folder.checkpoints).find().step
    assert 5 <= newest < 60
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert [event["step"] for event in events(folder, "resume")] == [newest]


def test_the_death_of_wandbs_process_harms_nothing(nursery: Nursery, new_run: NewRun) -> None:
    """A scheduler that signals all processes of a job ends wandb's before the rank has saved."""
    folder = new_run("tracking=offline", "train.steps=400", "storage.save_every=400", ranks=1)
    ranks = nursery.start(folder, 1)
    ranks.until(lambda: 2 in losses(folder))
    assert any(folder.wandb.glob("offline-run-*"))
    (service,) = [pid for pid in children(ranks.pids[0]) if b"wandb" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(service, signal.SIGKILL)
    ranks.until(lambda: bool(events(folder, "wandb lost")))
    ranks.signal(signal.SIGTERM)
    assert ranks.wait() == [75]
    assert events(folder, "saved")[-1]["step"] == max(losses(folder))
