"""What makes a run the same run as before."""

from __future__ import annotations

from tests.conftest import small_spec


def test_what_a_run_does_not_use_is_no_part_of_it() -> None:
    """So that checkpoints from before an optimizer existed still belong to their run."""
    optimizer = small_spec().identity()["optimizer"]
    assert isinstance(optimizer, dict)
    assert {"ademamix", "ema_decay"}.isdisjoint(optimizer)


def test_another_optimizer_is_another_run() -> None:
    plain, averaged = (small_spec(optimizer={"name": "adamw", "lr": 1e-3, "ema_decay": decay}) for decay in (None, 0.9))
    assert plain.lineage != averaged.lineage
