"""An optimizer's states in files on a disk: the numbers of memory, and checkpoints that know nothing of it.

DeepSpeed compiles what reads the files when it is first used; then it is kept in the user's cache.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.run.folder import RunFolder, read_lines
from tests.ranks.comparing import assert_close, assert_same
from tests.ranks.conftest import Nursery, events, losses

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(1200)]  # to compile
NewRun = Callable[..., RunFolder]
CXX = Path(__file__).parents[1] / "rigs" / "cxx.sh"

# Large enough for DeepSpeed to swap what belongs to its matrices: it leaves in memory what has less than a MiB.
LARGE = (
    "model.hidden_size=256",
    "model.intermediate_size=512",
    "optimizer=ademamix",
    "optimizer.ema_decay=0.9",
    "train.evaluate_average=true",
    "train.steps=8",
    "train.evaluate_every=4",
    "storage.save_every=4",
    "storage.keep_every=4",
)


@pytest.fixture(scope="module")
def compiler() -> dict[str, str]:
    """Variables for a compilation that takes a fifth of the time, kept apart from what DeepSpeed compiles elsewhere."""
    kept = Path.home() / ".cache" / "torch_extensions" / "aiftrain-tests"
    return {"CXX": str(CXX), "TORCH_EXTENSIONS_DIR": str(kept)}


def test_the_numbers_are_those_of_memory_to_the_last_bit_after_a_kill_and_go_on_elsewhere(
    nursery: Nursery, new_run: NewRun, compiler: dict[str, str], tmp_path: Path
) -> None:
    nvme = ("parallelism=nvme", f"parallelism.nvme_path={tmp_path}", *LARGE)
    memory, moved = (new_run(*LARGE, f"parallelism={strategy}") for strategy in ("zero3", "zero1"))
    straight, broken = new_run(*nvme), new_run(*nvme, "storage.background=false")
    for folder in (straight, memory):
        ranks = nursery.start(folder, 2, **compiler)
        assert ranks.wait() == [0, 0], ranks.log()
    assert_close(memory, straight)

    ranks = nursery.start(broken, 2, **compiler)
    ranks.until(lambda: 6 in losses(broken))
    assert list(tmp_path.glob("*/zero_stage_3/optimizer/rank1/exp_avg_slow-*.tensor.swp")), "it is in files"
    ranks.kill()
    assert nursery.start(broken, 2, **compiler).wait() == [0, 0]
    assert [event["step"] for event in events(broken, "resume")] == [4]
    assert_same(straight, broken)
    assert not list(tmp_path.glob("*/zero_stage_3/optimizer/*/*")), "ranks that come to their end leave no files"

    shutil.copytree(straight.checkpoints / "step-00000004", moved.checkpoints / "step-00000004")
    assert nursery.start(moved, 2).wait() == [0, 0]
    assert_close(moved, memory)


def test_a_step_that_is_skipped_changes_no_bit(
    nursery: Nursery, new_run: NewRun, compiler: dict[str, str], tmp_path: Path
) -> None:
    folder = new_run("parallelism=nvme", f"parallelism.nvme_path={tmp_path}", *LARGE)
    trouble = json.dumps({"nan_gradient": [1, 5], "nan_loss": [3]})
    assert nursery.start(folder, 2, program="tests.ranks.troubled", TROUBLE=trouble, **compiler).wait() == [0, 0]
    assert [event["step"] for event in events(folder, "skip")] == [2, 4, 6]
    for rank in (0, 1):
        states = [record["state"] for record in read_lines(folder.path / f"states-{rank}.jsonl")]
        assert [step for step in range(1, 8) if states[step] == states[step - 1]] == [1, 3, 5]
