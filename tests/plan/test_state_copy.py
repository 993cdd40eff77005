"""The copy of the state in the nodes' memory: its size, and where it is not to be had."""

from __future__ import annotations

from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.plan.state_copy import StateCopy

GIB = 2**30


def copy_of(*overrides: str) -> StateCopy | None:
    return make_plan(resolve(["recipe=smoke", *overrides])).state_copy


def test_nodes_share_the_checkpoint_out() -> None:
    plan = make_plan(resolve(["recipe=smoke"]))
    assert plan.state_copy is not None
    assert plan.state_copy.size == plan.estimate.checkpoint_bytes
    assert plan.state_copy.left is not None and plan.state_copy.left > plan.state_copy.size
    assert copy_of("storage.background=false") is None


def test_a_node_without_room_for_it_is_warned_of() -> None:
    use = make_plan(resolve(["recipe=smoke"])).prediction.memory.total / GIB
    tight = make_plan(resolve(["recipe=smoke", f"hardware.node_memory_gib={use + 0.02}"]))
    assert any("the copy of the state takes" in warning for warning in tight.warnings)
    assert StateCopy(size=79 * GIB, left=100 * GIB).warnings == ()
    assert StateCopy(size=81 * GIB, left=None).warnings == ()
