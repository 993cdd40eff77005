"""Events in words, as the live view and `status` show them."""

from __future__ import annotations

from typing import Any

import pytest

from aiftrain.report.events import describe


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            {"event": "warning", "hosts": ["n1"], "ranks": [5], "found": "one core, 12", "expected": "4"},
            "warning: rank 5 on n1: one core, 12, where 4 was expected",
        ),
        (
            {"event": "warning", "hosts": ["n1", "n2"], "ranks": [4, 5, 8], "found": "a", "expected": "b"},
            "warning: 3 ranks on n1 and others: a, where b was expected",
        ),
        ({"event": "bad node", "host": "n3", "reason": "no GPU"}, "node n3 is bad: no GPU"),
        (
            {"event": "straggler", "host": "n1", "ranks": [4, 5], "ratio": 1.5, "step": 50},
            "2 ranks on n1 took 1.5 times as long as others by step 50",
        ),
        ({"event": "unchanged", "message": "no weight has changed"}, "warning: no weight has changed"),
        (
            {"event": "skip", "step": 3, "trouble": "loss_spike", "loss": 9.0, "grad_norm": 1.0, "limit": 5.0},
            "step 3: loss spike (loss 9, gradient norm 1, limit 5); skipped",
        ),
        (
            {"event": "fetched", "step": 8, "archive": "s3://lumi-o/b", "bytes": 2e6, "seconds": 0.5},
            "fetched step 8 from s3://lumi-o/b (2 MB in 0.5 s)",
        ),
        (
            {"event": "shipper ended", "exit_code": 1, "message": "no key (logs/shipper.log)"},
            "the shipper ended: no key (logs/shipper.log)",
        ),
        ({"event": "egress", "message": "a connection that none allows"}, "warning: a connection that none allows"),
        ({"event": "preflight", "seconds": 0.1}, None),
    ],
)
def test_what_the_checks_and_the_straggler_report_say(event: dict[str, Any], words: str | None) -> None:
    assert describe(event) == words


def test_whatever_happens_to_checkpoints_and_data_is_shown() -> None:
    """Each with its message, though a field of it is missing: what is shown must not end who looks."""
    names = (
        *("archive damaged", "archive out of reach", "bad node", "custody damaged", "damaged", "egress", "ended"),
        *("fetch failed", "fetched", "hang", "hopeless", "phase", "resume", "rollback", "save waited", "saved"),
        *("saved uncopied", "shipper ended", "skip", "spike", "start", "stopping", "straggler", "unchanged"),
        *("unshipped", "vanished", "void", "wandb lost", "warning", "writer restarted"),
    )
    assert all(describe({"event": name}) for name in names)
