"""Names of interfaces and cards, as NCCL and gloo read them; cards that the profile names."""

from __future__ import annotations

from typing import Any

import pytest

from aiftrain.train.preflight.finding import Finding, refusal
from aiftrain.train.preflight.network import judge_network, unmatched
from aiftrain.train.preflight.survey import Sight
from tests.train.preflight.sights import changed, gpu_spec, sights

THERE = {"lo": "unknown", "eth0": "up", "hsn0": "up", "hsn1": "down"}


@pytest.mark.parametrize(
    ("value", "missing", "some"),
    [
        ("hsn", [], True),
        ("eth0,hsn0", [], True),
        ("hsn0,hsn1", ["hsn1"], True),  # it is down
        ("ib0,ib1", ["ib0", "ib1"], False),
        ("=eth", ["eth"], False),
        ("=eth0", [], True),
        ("^lo,eth,hsn", [], False),
        ("^=eth", [], True),
        ("eth0:1", [], True),
    ],
)
def test_lists_as_nccl_reads_them(value: str, missing: list[str], some: bool) -> None:
    assert unmatched(value, THERE) == (missing, some)


def test_lists_as_gloo_reads_them() -> None:
    assert unmatched("eth0", THERE, exact=True) == ([], True)
    assert unmatched("eth", THERE, exact=True) == (["eth"], False)


def judged(seen: list[Sight], **hardware: Any) -> list[Finding]:
    return list(judge_network(seen, gpu_spec(**hardware)))


def on_all_nodes(**variables: str) -> list[Sight]:
    return changed(changed(sights(), 0, variables=variables), 4, variables=variables)


def test_a_name_that_is_nowhere_is_the_settings_fault() -> None:
    found = judged(on_all_nodes(NCCL_SOCKET_IFNAME="ib0"))
    refused = refusal(found, ["n0", "n1"])
    assert refused is not None
    assert (refused.exit_code, refused.bad_nodes) == (2, {})
    assert "NCCL_SOCKET_IFNAME=ib0" in refused.message and "hsn0, hsn1" in refused.message


def test_a_name_that_is_missing_on_one_node_is_that_nodes_fault() -> None:
    seen = changed(on_all_nodes(NCCL_SOCKET_IFNAME="=hsn0"), 4, interfaces={"lo": "unknown", "hsn0": "down"})
    refused = refusal(judged(changed(seen, 4, variables={"NCCL_SOCKET_IFNAME": "=hsn0"})), ["n0", "n1"])
    assert refused is not None
    assert (refused.exit_code, list(refused.bad_nodes)) == (1, ["n1"])
    assert "hsn0 (down)" in refused.bad_nodes["n1"]


def test_some_names_missing_are_told_only() -> None:
    found = judged(on_all_nodes(NCCL_SOCKET_IFNAME="hsn0,hsn7", NCCL_IB_HCA="mlx5_0,mlx5_9"))
    assert len(found) == 4 and not any(finding.refuses for finding in found)


def test_cards_that_nccl_would_pass_over_in_silence() -> None:
    assert all(finding.refuses for finding in judged(on_all_nodes(NCCL_IB_HCA="=mlx5_7:1")))
    assert judged(on_all_nodes(NCCL_IB_HCA="=mlx5_7:1", NCCL_IB_DISABLE="1")) == []
    alone = changed(sights(1), 0, variables={"NCCL_IB_HCA": "mlx5_7"})
    assert list(judge_network(alone, gpu_spec(nodes=1))) == [], "one node needs none"


def test_cards_of_the_profile() -> None:
    assert judged(sights(), device_nics=("hsn0", "hsn0", "mlx5_0", "mlx5_1")) == []
    nowhere = judged(sights(), device_nics=("cxi0", "cxi0", "hsn0", "hsn0"))
    assert len(nowhere) == 2 and not any(finding.refuses for finding in nowhere)
    cards = {"mlx5_0": "ACTIVE", "mlx5_1": "DOWN"}
    [finding] = judged(changed(sights(), 4, cards=cards), device_nics=("mlx5_0", "mlx5_0", "mlx5_1", "mlx5_1"))
    assert (finding.host, finding.refuses) == ("n1", True) and "mlx5_1" in finding.found
