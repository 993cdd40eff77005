"""Shards: any cut into fragments over any number of ranks reads back equal; gaps and failing disks are told."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from aiftrain.checkpoint.catalog import Checkpoint
from aiftrain.checkpoint.index import Range
from aiftrain.checkpoint.manifest import FileRecord, Manifest
from aiftrain.checkpoint.shards import CheckpointReader, Fragment, shard_name, write_shard
from aiftrain.errors import DamagedError, MachineError

NoFileBeyond = Callable[[int], AbstractContextManager[None]]

SHAPES = {"embed.weight": [7, 4], "norm.weight": [4], "head.weight": [3, 9]}


def reader_of(folder: Path, manifest: Manifest) -> CheckpointReader:
    return Checkpoint(folder, manifest).reader()


def manifest_of(files: list[FileRecord]) -> Manifest:
    return Manifest(
        step=1, optimizer_step=1, tokens=1, sources={}, time=0.0, attempt=1, world_size=len(files), run_digest="x",
        identity={}, versions={}, shapes=SHAPES, files=files,
    )  # fmt: skip


def share_out(folder: Path, files: list[FileRecord], ranks: int, wanted: dict[str, list[Range]]) -> CheckpointReader:
    """A reader that looked into no shard itself: others did, and packed up what they saw."""
    names = [file.name for file in files]
    packed = [reader_of(folder, manifest_of(files)).look_into(names[r::ranks]).pack() for r in range(ranks)]
    reader = reader_of(folder, manifest_of(files))
    reader.learn(packed, wanted)
    return reader


STATES = ("weight", "exp_avg", "any_other")


@st.composite
def cut_parameters(draw: st.DrawFn) -> list[list[tuple[str, int, int]]]:
    """For each of 1 to 4 ranks, the (name, start, stop) it holds: every parameter cut at random, parts replicated."""
    ranks: list[list[tuple[str, int, int]]] = [[] for _ in range(draw(st.integers(1, 4)))]
    for name, shape in SHAPES.items():
        cuts = sorted({0, prod(shape), *draw(st.lists(st.integers(0, prod(shape)), max_size=5))})
        for start, stop in pairwise(cuts):
            for rank in draw(st.sets(st.integers(0, len(ranks) - 1), min_size=1)):
                reach = draw(st.integers(stop, prod(shape)))  # a fragment may overlap those after it
                ranks[rank].append((name, start, reach))
    return ranks


@settings(max_examples=60, deadline=None)
@given(ranks=cut_parameters(), data=st.data())
def test_any_range_reads_back_from_any_cut(ranks: list[list[tuple[str, int, int]]], data: st.DataObject) -> None:
    random = np.random.default_rng(0)
    truth = {(n, s): random.standard_normal(prod(SHAPES[n]), np.float32) for n in SHAPES for s in STATES}
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for rank, held in enumerate(ranks):
            fragments = [Fragment(n, a, {s: truth[n, s][a:b] for s in STATES}) for n, a, b in held]
            files.append(write_shard(Path(folder) / shard_name(rank), fragments, {"rank": np.array(rank)}))
        reader = reader_of(Path(folder), manifest_of(files))
        for (name, state), values in truth.items():
            start, stop = sorted(data.draw(st.tuples(*[st.integers(0, values.size)] * 2)))
            assert np.array_equal(reader.read(name, state, start, stop), values[start:stop])
            told = share_out(Path(folder), files, 3, {f"{state}/{name}": [(start, stop)]})
            assert np.array_equal(told.read(name, state, start, stop), values[start:stop])
        assert [int(reader.extra(rank)["rank"]) for rank in range(len(ranks))] == list(range(len(ranks)))


def test_three_ranks_write_two_ranks_read(tmp_path: Path) -> None:
    values = np.arange(28, dtype=np.float32)
    parts = [(0, 10), (10, 20), (20, 28)]
    files = [
        write_shard(tmp_path / shard_name(rank), [Fragment("embed.weight", a, {"weight": values[a:b]})], {})
        for rank, (a, b) in enumerate(parts)
    ]
    readers = [reader_of(tmp_path, manifest_of(files)) for _ in range(2)]
    assert readers[0].shapes["embed.weight"] == (7, 4)
    halves = [readers[0].read("embed.weight", "weight", 0, 14), readers[1].read("embed.weight", "weight", 14, 28)]
    assert np.array_equal(np.concatenate(halves), values)


def test_own_shard_is_enough_or_not(tmp_path: Path) -> None:
    values = np.arange(28, dtype=np.float32)
    files = [
        write_shard(tmp_path / shard_name(rank), [Fragment("embed.weight", a, {"weight": values[a : a + 14]})], {})
        for rank, a in enumerate((0, 14))
    ]
    with reader_of(tmp_path, manifest_of(files)) as reader:
        index = reader.look_into([shard_name(1)])
        (tmp_path / shard_name(0)).unlink()
        weight, moment = "weight/embed.weight", "exp_avg/embed.weight"
        assert index.holds({weight: [(14, 28)]}) and not index.holds({weight: [(14, 28), (13, 28)]})
        assert not index.holds({moment: [(14, 28)]}) and index.holds({moment: [(5, 5)]})
        assert np.array_equal(reader.read("embed.weight", "weight", 14, 28), values[14:])
        with pytest.raises(DamagedError, match=r"lacks weight of embed\.weight from element 3 on, wanted to 20"):
            reader.read("embed.weight", "weight", 3, 20)


def test_a_reader_keeps_few_shards_open(tmp_path: Path) -> None:
    fragments = [Fragment("embed.weight", i, {"weight": np.full(1, i, np.float32)}) for i in range(28)]
    files = [write_shard(tmp_path / shard_name(i), [fragment], {}) for i, fragment in enumerate(fragments)]
    with reader_of(tmp_path, manifest_of(files)) as reader:
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert reader.read("embed.weight", "weight", 0, 28).tolist() == list(range(28))
        assert 0 < len(list(Path("/proc/self/fd").iterdir())) - before <= 16
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_safetensors_library_reads_a_shard(tmp_path: Path) -> None:
    fragments = [
        Fragment("a", 4, {"weight": np.ones(3, np.float32), "exp_avg": np.zeros(3, np.float32)}),
        Fragment("a", 9, {"weight": np.full(2, 5, np.float32)}),
    ]
    extra = {
        "random": np.arange(5, dtype=np.uint8), "flag": np.array(True), "none": np.zeros((0, 3)),
        "count": np.array(3, np.int64), "strided": np.arange(10, dtype=np.int16)[::3],
    }  # fmt: skip
    record = write_shard(tmp_path / "shard.safetensors", fragments, extra)
    loaded = load_file(tmp_path / "shard.safetensors")
    expected = {"weight/a": np.ones(3), "exp_avg/a": np.zeros(3), "weight/a@9": np.full(2, 5)}
    expected |= {f"extra/{name}": array for name, array in extra.items()}
    assert loaded.keys() == expected.keys()
    for key, array in expected.items():
        assert np.array_equal(loaded[key], array) and loaded[key].shape == array.shape
    assert record.size == (tmp_path / "shard.safetensors").stat().st_size


def test_extra_arrays_keep_type_and_shape(tmp_path: Path) -> None:
    extra = {
        "state": np.arange(625, dtype=np.uint32),
        "position": np.array(2**40),
        "table": np.ones((2, 3), np.float64),
    }
    record = write_shard(tmp_path / shard_name(0), [], extra)
    read = reader_of(tmp_path, manifest_of([record])).extra(0)
    assert read.keys() == extra.keys()
    assert all(read[name].dtype == array.dtype and np.array_equal(read[name], array) for name, array in extra.items())


def test_a_gap_names_parameter_and_range(tmp_path: Path) -> None:
    values = np.zeros(28, np.float32)
    fragments = [
        Fragment("embed.weight", 0, {"weight": values[:10]}),
        Fragment("embed.weight", 12, {"weight": values[12:]}),
    ]
    reader = reader_of(tmp_path, manifest_of([write_shard(tmp_path / shard_name(0), fragments, {})]))
    assert reader.read("embed.weight", "weight", 12, 28).size == 16
    with pytest.raises(DamagedError, match=r"lacks weight of embed\.weight from element 10 on, wanted to 11"):
        reader.read("embed.weight", "weight", 0, 11)
    with pytest.raises(DamagedError, match=r"lacks exp_avg of embed\.weight from element 3 on"):
        reader.read("embed.weight", "exp_avg", 3, 4)
    with pytest.raises(DamagedError, match="no parameter lm_head"):
        reader.read("lm_head", "weight", 0, 1)


@pytest.mark.parametrize(
    "damage", [b"", b"\x00" * 7, b"\xff" * 64, b"\x02" + b"\x00" * 7 + b"[]", b"\x02" + b"\x00" * 9]
)
def test_a_broken_shard_is_told(tmp_path: Path, damage: bytes) -> None:
    record = write_shard(tmp_path / shard_name(0), [Fragment("norm.weight", 0, {"weight": np.ones(4, np.float32)})], {})
    (tmp_path / shard_name(0)).write_bytes(damage)
    with pytest.raises(DamagedError, match=shard_name(0)):
        reader_of(tmp_path, manifest_of([record])).read("norm.weight", "weight", 0, 4)


def test_a_shard_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / shard_name(0)
    record = write_shard(path, [Fragment("norm.weight", 0, {"weight": np.ones(4, np.float32)})], {})
    reader = reader_of(tmp_path, manifest_of([record]))
    assert reader.read("norm.weight", "weight", 0, 2).size == 2
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DamagedError, match="ends 4 bytes too early"):
        reader.read("norm.weight", "weight", 0, 4)
    path.unlink()
    with pytest.raises(DamagedError, match=f"{shard_name(0)} is missing"):
        reader_of(tmp_path, manifest_of([record])).read("norm.weight", "weight", 0, 4)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    path = tmp_path / "full.safetensors"
    path.symlink_to("/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(MachineError, match=r"full\.safetensors: the disk is full: free some space"):
        write_shard(path, [Fragment("a", 0, {"weight": np.ones(4, np.float32)})], {})
    assert not path.is_symlink()


def test_no_partial_file_is_left(tmp_path: Path, no_file_beyond: NoFileBeyond) -> None:
    fragment = Fragment("a", 0, {"weight": np.ones(30_000, np.float32)})
    message = r"cannot write .*rank-00000\.safetensors: File too large"
    with no_file_beyond(65536), pytest.raises(MachineError, match=message):
        write_shard(tmp_path / shard_name(0), [fragment], {})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"cannot write .*No such file or directory"):
        write_shard(tmp_path / "nowhere" / shard_name(0), [], {})


def test_a_wrong_fragment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not flat float32"):
        Fragment("a", 0, {"weight": np.ones(3)})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="differ in length"):
        Fragment("a", 0, {"weight": np.ones(3, np.float32), "exp_avg": np.ones(4, np.float32)})
    for name in ("extra", "a/b", ""):
        with pytest.raises(ValueError, match="cannot be called"):
            Fragment("a", 0, {name: np.ones(3, np.float32)})
    twice = [Fragment("a", 0, {"weight": np.ones(3, np.float32)})] * 3
    with pytest.raises(ValueError, match="two fragments"):
        write_shard(tmp_path / shard_name(0), twice, {})


def test_check_complete_finds_a_gap_and_takes_the_states_there_are(
    tmp_path: Path, make_manifest: Callable[..., Manifest]
) -> None:
    fragments = [
        Fragment("a", 0, {"weight": np.ones(4, np.float32), "exp_avg": np.ones(4, np.float32)}),
        Fragment("b", 0, {"weight": np.ones(4, np.float32), "momentum": np.ones(4, np.float32)}),
    ]
    record = write_shard(tmp_path / shard_name(0), fragments, {})
    reader_of(tmp_path, make_manifest(files=[record], shapes={"a": [4], "b": [4]})).check_complete()
    with pytest.raises(DamagedError, match="lacks momentum of b from element 4 on"):
        reader_of(tmp_path, make_manifest(files=[record], shapes={"a": [4], "b": [5]})).check_complete()
