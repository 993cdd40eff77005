"""More tokens than the published weights know: old rows stay, new ones follow from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from aiftrain.checkpoint.pretrained.reader import PretrainedReader, pretrained_reader
from aiftrain.checkpoint.pretrained.vocabulary import TABLES, GrownReader, spellings
from aiftrain.errors import UserError
from tests.checkpoint.published import publish, save_tokenizer, spec_of

ROWS, COLUMNS, GROWN = 101, 32, 110


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published") / "model")


@contextmanager
def grown(folder: Path, spelled: dict[int, list[int]], seed: int = 0) -> Iterator[tuple[PretrainedReader, GrownReader]]:
    with pretrained_reader(folder, spec_of(folder, vocab_size=GROWN)) as reader:
        yield reader, GrownReader(reader, ROWS, COLUMNS, spelled, seed)


@pytest.mark.parametrize("name", TABLES)
def test_old_rows_stay_and_new_ones_follow(folder: Path, name: str) -> None:
    with grown(folder, {50: [3, 4], 105: [8, 9, 2]}) as (reader, both):
        old = reader.read(name, 0, ROWS * COLUMNS).reshape(ROWS, COLUMNS)
        new = both.read(name, 0, GROWN * COLUMNS).reshape(GROWN, COLUMNS)
    kept = [row for row in range(ROWS) if row != 50]
    assert np.array_equal(old[kept].view(np.uint32), new[kept].view(np.uint32))
    assert np.allclose(new[50], old[[3, 4]].mean(0), atol=1e-7)
    assert np.allclose(new[105], old[[8, 9, 2]].mean(0), atol=1e-7)
    rest = new[[row for row in range(ROWS, GROWN) if row != 105]]
    noise = rest - old.mean(0)
    assert noise.std() == pytest.approx(0.01 * old.std(0).mean(), rel=0.2)
    assert len(np.unique(rest, axis=0)) == len(rest)


def test_any_range_is_that_of_the_whole_and_seed_and_table_decide(folder: Path) -> None:
    size = GROWN * COLUMNS
    with grown(folder, {105: [1]}) as (_, both):
        whole = both.read("embed.weight", 0, size)
        for start, stop in [(0, 40), (3200, 3300), (3233, 3234), (3300, 3500), (3231, size), (size, size)]:
            assert np.array_equal(both.read("embed.weight", start, stop), whole[start:stop])
        head = both.read("head.weight", 0, size)
        other = both.read("norm.weight", 3, 9), both._reader.read("norm.weight", 3, 9)
    assert np.array_equal(*other)
    with grown(folder, {105: [1]}, seed=1) as (_, both):
        assert not np.array_equal(both.read("embed.weight", 0, size)[-9:], whole[-9:])
    assert not np.allclose(head[-9:] - head[-41:-32], whole[-9:] - whole[-41:-32])


def test_new_tokens_are_spelled_by_the_old_model(tmp_path: Path) -> None:
    old = save_tokenizer(tmp_path / "tokenizer.json")
    assert spellings(old, save_tokenizer(tmp_path / "same.json")) == {}
    new = save_tokenizer(tmp_path / "new.json", "abcdf", "hab", "xyz", "aé")
    assert spellings(old, new) == {11: [8, 9, 5], 12: [7, 8], 13: [], 14: []}


def test_a_tokenizer_that_moves_old_tokens_is_refused(tmp_path: Path) -> None:
    old = save_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="2 tokens are not in their place, such as 'a', 'b'"):
        spellings(old, save_tokenizer(tmp_path / "moved.json", "new", moved=True))
    with pytest.raises(UserError, match="2 tokens are not in their place, such as 'new', 'newer'"):
        spellings(save_tokenizer(tmp_path / "longer.json", "new", "newer"), old)
    (tmp_path / "other.model").write_bytes(b"x")
    with pytest.raises(UserError, match=r"only of a tokenizer\.json"):
        spellings(old, tmp_path / "other.model")
