"""Parts of objects: within every limit of a service, and the same bytes as the blocks they are cut from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.checkpoint.stores.s3.parts import GIB, MIB, Parts, part_size
from aiftrain.errors import DamagedError, MachineError
from aiftrain.run.storage import ServiceLimits

SCALEWAY = ServiceLimits(max_parts=1000, max_part_gib=4.6, max_object_gib=4656)


@given(st.integers(0, 4 * 1024 * GIB), st.sampled_from([ServiceLimits(), SCALEWAY]))
def test_no_limit_is_met(size: int, limits: ServiceLimits) -> None:
    length = part_size(size, limits)
    assert 64 * MIB <= length <= 5 * GIB
    assert -(-size // length) <= (limits.max_parts or 10_000) * 0.9 + 1


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        (0, ServiceLimits(), 64 * MIB),
        (16 * GIB, ServiceLimits(), 64 * MIB),
        (16 * GIB, ServiceLimits(max_parts=100), -(-16 * GIB // 90)),
        (900 * GIB, SCALEWAY, GIB),
    ],
)
def test_parts_grow_where_there_may_be_few(size: int, limits: ServiceLimits, expected: int) -> None:
    assert part_size(size, limits) == expected


@pytest.mark.parametrize("limits", [SCALEWAY, ServiceLimits(max_parts=10, max_part_gib=0.1)])
def test_what_no_service_takes_is_refused_before_it_is_sent(limits: ServiceLimits) -> None:
    with pytest.raises(MachineError, match=r"more than the service takes .*: use more ranks"):
        part_size(4657 * GIB, limits)


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(1, 30))
def test_parts_are_the_blocks(blocks: list[bytes], length: int) -> None:
    whole = b"".join(blocks)
    parts = list(Parts(blocks, len(whole), length))
    assert b"".join(parts) == whole
    assert all(len(part) == length for part in parts[:-1])


@given(st.binary(min_size=1, max_size=40), st.integers(1, 9))
def test_another_size_than_promised_is_damage(content: bytes, length: int) -> None:
    for promised in (len(content) - 1, len(content) + 1):
        with pytest.raises(DamagedError, match="announced"):
            list(Parts([content], promised, length))


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(1, 30))
def test_parts_that_were_given_back_are_filled_again(blocks: list[bytes], length: int) -> None:
    whole, seen = b"".join(blocks), []
    parts = Parts(blocks, len(whole), length)
    memory = {}  # kept, so that no two have the same number
    for part in parts:
        seen.append(bytes(part))
        memory[id(part)] = part
        parts.give_back(part)
    assert b"".join(seen) == whole
    assert len(memory) <= 2, "one, and the last, which is shorter"
