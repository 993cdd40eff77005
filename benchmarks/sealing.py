"""Sealing: bytes a second of one thread, by the size of segments, and of a file that is written sealed.

    python benchmarks/sealing.py [--json] [--folder .] [--gib 2] [--rounds 5]

Written are the same random bytes: plainly, with one sync at the end; then by the store that archives on a disk have:
sealed, and sealed with the SHA-256 of what is written, one after the other and overlapping (what archives get). Then
the sealed file is opened again from the disk. Figures are medians: 10^9 bytes of content a second, and CPU seconds for
so many bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from aiftrain.checkpoint.pipeline import ahead, digesting
from aiftrain.checkpoint.sealing.keys import Identities, new_identity
from aiftrain.checkpoint.sealing.seal import Seal
from aiftrain.checkpoint.sealing.source import SealedSource, open_sealed
from aiftrain.checkpoint.sealing.stream import enciphered, seal_blocks
from aiftrain.checkpoint.sources import FileSource
from aiftrain.checkpoint.stores.folder import FolderStore

BLOCK = os.urandom(1 << 20)  # larger writes are slower here: the bytes fall out of the cache between
SEGMENTS_KIB = (64, 256, 1024, 4096)
PLACE = {"name": "file", "context": "benchmark"}


def rate(size: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return size / (time.perf_counter() - began) / 1e9


def plain(size: int) -> Iterator[bytes]:
    return (BLOCK for _ in range(size // len(BLOCK)))


def segment_rate(segment: int, size: int) -> float:
    """Sealing into nothing."""
    seal = Seal(segment=segment, size=size, key="")
    return rate(size, lambda: sum(map(len, enciphered(plain(size), seal, bytes(32), **PLACE))))


def cost(size: int, work: Callable[[], object]) -> tuple[float, float]:
    """GB a second, and CPU seconds of all threads a GB."""
    began = time.process_time()
    speed = rate(size, work)
    return speed, (time.process_time() - began) / size * 1e9


def write_plain(file: Path, size: int) -> None:
    with file.open("wb", buffering=0) as stream:
        for block in plain(size):
            stream.write(block)
        os.fsync(stream.fileno())


def hashed(blocks: Iterable[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
        yield block


def file_rates(folder: Path, size: int, turn: int) -> dict[str, float]:
    """One round; who comes first changes with `turn`."""
    new_identity(folder / "identity")
    identities = Identities.read(folder / "identity")
    seal, blocks = sealed(size, identities)
    store = FolderStore(folder)
    stored = partial(store.write, size=seal.sealed_size)
    ways: dict[str, Callable[[], object]] = {
        "plain": partial(write_plain, folder / "plain", size),
        "sealed": partial(stored, "sealed", blocks),
        "sealed and hashed": partial(stored, "hashed", hashed(sealed(size, identities)[1])),
        "sealed and hashed, overlapping": partial(
            stored, "overlapping", digesting(ahead(sealed(size, identities)[1]), hashlib.sha256())
        ),
    }
    rates = {}
    names = list(ways)
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
        os.sync()
        speed, rates[f"CPU s a GB: {name}"] = cost(size, ways[name])
        rates[f"written {name}"] = speed
    source = open_sealed(FileSource(folder / "sealed"), seal, identities, **PLACE)
    rates["opened"] = rate(size, lambda: read_through(source))
    return rates


def sealed(size: int, identities: Identities) -> tuple[Seal, Iterator[bytes]]:
    return seal_blocks(plain(size), size, **PLACE, recipients=identities.public)


def read_through(source: SealedSource) -> None:
    target = memoryview(bytearray(len(BLOCK)))
    for start in range(0, source.size, len(BLOCK)):
        source.read_into(start, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk in question")
    parser.add_argument("--gib", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    size = int(options.gib * 2**30) // len(BLOCK) * len(BLOCK)
    found: dict[str, list[float]] = {}
    for turn in range(options.rounds):
        for kib in SEGMENTS_KIB:
            found.setdefault(f"segments of {kib} KiB", []).append(segment_rate(kib << 10, size))
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for name, value in file_rates(Path(folder), size, turn).items():
                found.setdefault(name, []).append(value)
    medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
    if options.json:
        print(json.dumps(medians, indent=2))
    else:
        for name, value in medians.items():
            print(f"{name:<42} {value:5.2f}{'' if name.startswith('CPU') else ' GB/s'}")


if __name__ == "__main__":
    main()
