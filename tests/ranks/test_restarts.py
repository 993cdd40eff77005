"""A run that fails at the same step again and again is not restarted for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aiftrain.run.folder import RunFolder, append_line
from aiftrain.run.spec import LauncherSpec
from tests.ranks.conftest import Nursery, losses

pytestmark = pytest.mark.ranks


def test_a_loop_of_failures_ends(nursery: Nursery, new_run: Callable[..., RunFolder]) -> None:
    """A learning rate beyond all measure breaks the second step, whenever it is taken."""
    folder = new_run("optimizer.lr=1e30", "optimizer.warmup_steps=0", ranks=1)
    spec = folder.read_spec().model_copy(update={"launcher": LauncherSpec(name="slurm", ranks_per_node=1)})
    folder.write(folder.run_json, spec.model_dump_json())
    append_line(folder.jobs, {"job": "1", "submitted": 1.0})
    for _ in range(4):  # the first makes steps that are new
        ranks = nursery.start(folder, 1)
        assert ranks.wait() == [1]
        assert "training cannot go on" in ranks.message()
    reached = max(losses(folder))
    ranks = nursery.start(folder, 1)
    assert ranks.wait() == [1]
    assert "the last 3 starts" in ranks.message()
    assert "training cannot go on" in ranks.message()
    assert max(losses(folder)) == reached
