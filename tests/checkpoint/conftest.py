"""Checkpoints to test with: small, of known content, written through the public interface."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.shards import Fragment, shard_name, write_shard
from aiftrain.checkpoint.stores.base import Store
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.errors import StoppedEarly

LINEAGE = "0123456789ab"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "checkpoints")


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    """A manifest with plausible values; keyword arguments replace some."""

    def make(**changes: Any) -> Manifest:
        values: dict[str, Any] = {
            "step": 7, "optimizer_step": 7, "tokens": 7 * 4096, "sources": {"de": 20_000, "fr": 8_672},
            "time": 1.75e9, "attempt": 1, "world_size": 2, "run_digest": "0123456789ab",
            "identity": {"model": {"hidden_size": 8, "norm_eps": 1e-5}, "seed": 0},
            "versions": {"numpy": np.__version__}, "shapes": {}, "files": [],
        }  # fmt: skip
        return Manifest(**(values | changes))

    return make


@pytest.fixture
def save(make_manifest: Callable[..., Manifest]) -> Callable[[Catalog, int], Checkpoint]:
    """Saves a matrix of 6 x 5 that is `step` everywhere, cut in the middle of a row between two ranks."""

    def save_step(catalog: Catalog, step: int) -> Checkpoint:
        folder = catalog.begin(step)
        matrix = np.full(30, step, np.float32)
        upper = Fragment("matrix", 0, {"weight": matrix[:13]})
        lower = Fragment("matrix", 13, {"weight": matrix[13:]})
        files = [
            write_shard(folder / shard_name(0), [upper], {"seed": np.arange(3)}),
            write_shard(folder / shard_name(1), [lower], {}),
        ]
        return catalog.commit(make_manifest(step=step, shapes={"matrix": [6, 5]}, files=files))

    return save_step


@pytest.fixture
def no_file_beyond() -> Callable[[int], AbstractContextManager[None]]:
    """Inside this context no file may grow beyond so many bytes: a write then fails in the middle."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    (tmp_path / "archive").mkdir()
    return Archive(FolderStore(tmp_path / "archive"), LINEAGE)


def stop_after(size: int) -> Callable[[int], None]:
    """A Progress that stops the work once more bytes than `size` are done."""
    left = size

    def progress(done: int) -> None:
        nonlocal left
        left -= done
        if left < 0:
            raise StoppedEarly("stopped")

    return progress


def let_decay(store: Store, patch: pytest.MonkeyPatch) -> None:
    """Have what is written into a folder not stay what it was."""
    write = store.write

    def write_and_decay(name: str, *rest: object, **options: object) -> None:
        write(name, *rest, **options)  # type: ignore[arg-type]
        flip(Path(store.address) / name)

    patch.setattr(store, "write", write_and_decay)


def flip(file: Path, place: int = -1) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
