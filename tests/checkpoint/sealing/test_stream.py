"""What is sealed comes back to the last byte, from anywhere in it, and nothing else ever does."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.opening import Opening
from aiftrain.checkpoint.sealing.seal import SEGMENT, TAG, Seal
from aiftrain.checkpoint.sealing.source import SealedSource, open_sealed
from aiftrain.checkpoint.sealing.stream import enciphered, seal_blocks
from aiftrain.checkpoint.sources import FileSource
from aiftrain.errors import DamagedError, UserError

NAME, CONTEXT = "rank-00000.safetensors", "0123456789ab/step-00000100"
SECRET = bytes(range(32))
SMALL = 16  # bytes of a segment here


class Memory:
    """A source of bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self.name = "stored.sealed"
        self.size = len(content)
        self.content = content
        self.reads: list[tuple[int, int]] = []

    def read_into(self, offset: int, target: memoryview) -> None:
        self.reads.append((offset, len(target)))
        target[:] = self.content[offset : offset + len(target)]

    def close(self) -> None: ...


def small_seal(size: int) -> Seal:
    return Seal(segment=SMALL, size=size, key=base64.b64encode(b"no age file").decode())


def sealed(content: bytes, name: str = NAME, context: str = CONTEXT) -> bytes:
    return b"".join(enciphered([content], small_seal(len(content)), SECRET, name, context))


def opened(stored: bytes, size: int, name: str = NAME, context: str = CONTEXT) -> bytes:
    """By random reads; what comes as a stream is no better and no worse."""
    streamed: bytes | str
    try:
        streamed = b"".join(Opening(small_seal(size), SECRET, name, context, "stored.sealed").all([stored]))
    except DamagedError as error:
        streamed = str(error)
    try:
        source = SealedSource(Memory(stored), small_seal(size), SECRET, name, context)
        content = read(source, 0, source.size)
    except DamagedError as error:
        assert isinstance(streamed, str) and (streamed == str(error) or "bytes were sealed" in str(error))
        raise
    assert streamed == content
    return content


def read(source: SealedSource, start: int, stop: int) -> bytes:
    content = bytearray(stop - start)
    source.read_into(start, memoryview(content))
    return bytes(content)


@given(st.lists(st.binary(max_size=50), max_size=6), st.data())
def test_any_content_in_any_blocks_is_read_from_anywhere(blocks: list[bytes], data: st.DataObject) -> None:
    content = b"".join(blocks)
    seal = small_seal(len(content))
    stored = b"".join(enciphered(blocks, seal, SECRET, NAME, CONTEXT))
    assert len(stored) == seal.sealed_size
    cut = [stored[:7], stored[7:30], stored[30:]]
    assert b"".join(Opening(seal, SECRET, NAME, CONTEXT, "here").all(cut)) == content
    source = SealedSource(Memory(stored), seal, SECRET, NAME, CONTEXT)
    for _ in range(3):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, len(content)))
        assert read(source, start, stop) == content[start:stop]


def test_a_file_is_sealed_for_recipients_and_opened_by_each(
    tmp_path: Path, identities: Identities, stranger: Identities
) -> None:
    content = random.Random(0).randbytes(3 * SEGMENT + 5)
    both = [*identities.public, *stranger.public]
    seal, blocks = seal_blocks([content], len(content), name=NAME, context=CONTEXT, recipients=both)
    (tmp_path / "file").write_bytes(b"".join(blocks))
    for each in (identities, stranger):
        source = open_sealed(FileSource(tmp_path / "file"), seal, each, name=NAME, context=CONTEXT)
        assert read(source, 0, source.size) == content
        assert read(source, 2 * SEGMENT - 3, 2 * SEGMENT + 3) == content[2 * SEGMENT - 3 : 2 * SEGMENT + 3]
        source.close()


def test_only_the_segments_that_are_asked_for_are_read() -> None:
    content = random.Random(0).randbytes(10 * SMALL)
    stored = Memory(sealed(content))
    source = SealedSource(stored, small_seal(len(content)), SECRET, NAME, CONTEXT)
    read(source, 4 * SMALL + 1, 6 * SMALL)
    read(source, 5 * SMALL + 1, 6 * SMALL)  # opened already
    assert stored.reads == [(4 * (SMALL + TAG), 2 * (SMALL + TAG))]


def test_no_two_files_have_the_same_key(identities: Identities) -> None:
    ways = {"name": NAME, "context": CONTEXT, "recipients": identities.public}
    first, second = (b"".join(seal_blocks([b"the same"], 8, **ways)[1]) for _ in range(2))  # type: ignore[arg-type]
    assert first != second


def test_every_flipped_bit_is_found() -> None:
    content = bytes(2 * SMALL + 3)
    stored = sealed(content)
    assert opened(stored, len(content)) == content
    for bit in range(8 * len(stored)):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError, match=f"segment {bit // 8 // (SMALL + TAG)} of 3 is not what was sealed"):
            opened(bytes(damaged), len(content))


def test_segments_cannot_be_cut_off_moved_repeated_or_added() -> None:
    content = random.Random(0).randbytes(3 * SMALL)
    stored, length = sealed(content), SMALL + TAG
    first, second, third = (stored[start : start + length] for start in range(0, 3 * length, length))
    wrong = {
        2: [first + second, second + third],
        3: [second + first + third, first + first + third, first + third + second],
        4: [stored + third, first + second + second + third],
    }
    for count, orders in wrong.items():
        for order in orders:
            with pytest.raises(DamagedError, match="segment"):
                opened(order, count * SMALL)
    with pytest.raises(DamagedError, match="96 bytes were sealed, 95 are there"):
        opened(stored[:-1], len(content))
    with pytest.raises(DamagedError, match="96 bytes were sealed, 97 are there"):
        opened(stored + b"\0", len(content))


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_stream_that_ends_between_two_segments_is_damaged(kept: int) -> None:
    """Each segment that comes is as it was sealed: the ones that do not come are what is missed."""
    stored = sealed(bytes(3 * SMALL))[: kept * (SMALL + TAG)]
    opening = Opening(small_seal(3 * SMALL), SECRET, NAME, CONTEXT, "here")
    with pytest.raises(DamagedError, match=f"ends after {kept} of 3" if kept else "segment 0 of 3"):
        list(opening.all([stored]))


@pytest.mark.parametrize(
    "other",
    [
        {"name": "rank-00001.safetensors", "context": CONTEXT},
        {"name": NAME, "context": "0123456789ab/step-00000200"},
    ],
    ids=["another file", "another checkpoint"],
)
def test_a_sealed_file_serves_in_no_others_place(other: dict[str, str]) -> None:
    stored = sealed(b"weights of rank 0")
    with pytest.raises(DamagedError, match="segment 0 of 2 is not what was sealed there"):
        opened(stored, 17, **other)


@pytest.mark.parametrize("size", [0, 16, 20, 31, 33, 48])
def test_content_of_another_size_than_announced_is_not_sealed(size: int) -> None:
    with pytest.raises(DamagedError, match=f"not the {size} it was to have"):
        list(enciphered([bytes(32)], small_seal(size), SECRET, NAME, CONTEXT))


def test_sealing_and_opening_need_a_few_segments_of_memory(tmp_path: Path, identities: Identities) -> None:
    size = 64 * SEGMENT

    def blocks() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(SEGMENT)

    tracemalloc.start()
    seal, sealed_blocks = seal_blocks(blocks(), size, name=NAME, context=CONTEXT, recipients=identities.public)
    with (tmp_path / "file").open("wb") as stream:
        stream.writelines(sealed_blocks)
    source = open_sealed(FileSource(tmp_path / "file"), seal, identities, name=NAME, context=CONTEXT)
    target = bytearray(SEGMENT)
    for start in range(0, size, SEGMENT):
        source.read_into(start, memoryview(target))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * SEGMENT


def test_the_vectors_open_and_are_sealed_as_they_were(tmp_path: Path) -> None:
    vectors = json.loads((Path(__file__).parent / "vectors.json").read_text())
    file = tmp_path / "identity.txt"
    file.write_text(vectors["identity"])
    file.chmod(0o600)
    identities = Identities.read(file)
    assert identities.public == [vectors["public_key"]]
    for case in vectors["files"]:
        place = {"name": case["name"], "context": case["context"]}
        content, stored = bytes.fromhex(case["content"]), bytes.fromhex(case["sealed"])
        seal = Seal.model_validate(case["seal"])
        source = open_sealed(Memory(stored), seal, identities, **place)
        assert read(source, 0, source.size) == content
        assert b"".join(enciphered([content], seal, bytes.fromhex(case["data_key"]), **place)) == stored


def test_a_stranger_is_told_for_whom_it_was_sealed(identities: Identities, stranger: Identities) -> None:
    seal, blocks = seal_blocks([b"abc"], 3, name=NAME, context=CONTEXT, recipients=identities.public)
    place = {"name": NAME, "context": CONTEXT}
    with pytest.raises(UserError) as refusal:
        open_sealed(Memory(b"".join(blocks)), seal, stranger, **place, recipients=identities.public)
    for told in ("stored.sealed", identities.public[0], stranger.public[0], "stranger.txt"):
        assert told in str(refusal.value)


def test_a_seal_that_was_touched_is_damaged(identities: Identities) -> None:
    seal, blocks = seal_blocks([b"abc"], 3, name=NAME, context=CONTEXT, recipients=identities.public)
    stored = Memory(b"".join(blocks))
    for place in (-1, -20, len(seal.wrapped) - 40):
        wrapped = bytearray(seal.wrapped)
        wrapped[place] ^= 1
        damaged = seal.model_copy(update={"key": base64.b64encode(wrapped).decode()})
        with pytest.raises(DamagedError, match="damaged: its wrapped key cannot be read"):
            open_sealed(stored, damaged, identities, name=NAME, context=CONTEXT)
    with pytest.raises(ValueError, match="base64 that no encoder writes"):
        Seal(size=3, key="YR==")
