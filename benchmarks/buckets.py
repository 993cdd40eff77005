"""A checkpoint to an S3 service and home again, against uploads and downloads of botocore alone.

    AWS_ENDPOINT_URL_S3=https://... AWS_CA_BUNDLE=FILE AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... \
        python -m benchmarks.buckets [--mib 1024] [--files 2] [--rounds 7] [--folder .] [--json]
    python -m tests.rigs.ceph python -m benchmarks.buckets ...          at a Ceph gateway on this machine
    taskset -c 1 python -m tests.rigs.ceph taskset -c 0 python -m benchmarks.buckets ...    which takes no core from us

`plain` and `sealed` are what `aiftrain ship` does (with all digests) and what a run that resumes does (verified, and
synced to the disk). `botocore` uploads the same files, as many at a time, in parts of the same size, as many at a time,
by its own transport, and streams them into files that it syncs. It is told to leave out the checksums that other
services than AWS do not know; the SHA-256 of each part, which it signs by itself, stays, and goes in `botocore,
unsigned`. Each way takes its turn at being first. Medians: 10^9 bytes of content a second, and CPU seconds of this
process for so many bytes. It makes a bucket, and removes it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from botocore.config import Config
from botocore.session import Session

from aiftrain.checkpoint.archive import Archive, Archived
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.copying import copy
from aiftrain.checkpoint.fetch import fetch
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.saved import saved_at_home
from aiftrain.checkpoint.sealing.keys import Identities, new_identity
from aiftrain.checkpoint.sealing.opened import open_checkpoint
from aiftrain.checkpoint.several import several
from aiftrain.checkpoint.shards import Fragment, shard_name, write_shard
from aiftrain.checkpoint.stores.bucket import open_bucket
from aiftrain.checkpoint.stores.s3.parts import SMALLEST
from aiftrain.run.storage import ArchiveSpec, ServiceSpec

Way = Callable[[], object]
STEP, PARTS_AT_ONCE, BLOCK = 100, 4, 8 << 20
THEIRS = "botocore"
BAR = 0.8  # of botocore's upload, at least


class Botocore:
    """botocore as it is: endpoint, keys and certificates are those of its own variables."""

    def __init__(self, *, signed: bool = True) -> None:
        config = Config(
            s3={"addressing_style": "path", "payload_signing_enabled": signed},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=4 * PARTS_AT_ONCE,
        )
        self.client = Session().create_client("s3", region_name="us-east-1", config=config)

    def upload(self, bucket: str, files: list[Path]) -> None:
        several(partial(self._upload, bucket), files)

    def _upload(self, bucket: str, file: Path) -> None:
        place = {"Bucket": bucket, "Key": f"botocore/{file.name}"}
        place["UploadId"] = self.client.create_multipart_upload(**place)["UploadId"]

        def send(number: int) -> dict[str, Any]:
            with file.open("rb", buffering=0) as stream:
                stream.seek((number - 1) * SMALLEST)
                sent = self.client.upload_part(PartNumber=number, Body=stream.read(SMALLEST), **place)
            return {"PartNumber": number, "ETag": sent["ETag"]}

        with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
            parts = list(pool.map(send, range(1, -(-file.stat().st_size // SMALLEST) + 1)))
        self.client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **place)

    def download(self, bucket: str, names: list[str], folder: Path) -> None:
        folder.mkdir()
        several(lambda name: self._download(bucket, name, folder / name), names)

    def _download(self, bucket: str, name: str, file: Path) -> None:
        body = self.client.get_object(Bucket=bucket, Key=f"botocore/{name}")["Body"]
        with file.open("wb", buffering=0) as stream:
            while block := body.read(BLOCK):
                stream.write(block)
            os.fsync(stream.fileno())

    @contextmanager
    def bucket(self) -> Iterator[str]:
        name = f"benchmark-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        try:
            yield name
        finally:
            self.empty(name)
            self.client.delete_bucket(Bucket=name)

    def empty(self, bucket: str) -> None:
        for entry in self.client.list_objects_v2(Bucket=bucket).get("Contents", ()):
            self.client.delete_object(Bucket=bucket, Key=entry["Key"])


class Contest:
    """A checkpoint at home, and the ways to take it to a bucket and back."""

    def __init__(self, bucket: str, folder: Path, size: int, files: int) -> None:
        service = ServiceSpec(
            name="s3",
            title="The service",
            endpoint=os.environ["AWS_ENDPOINT_URL_S3"],
            ca_file=os.environ.get("AWS_CA_BUNDLE"),
        )
        new_identity(folder / "identity")
        self._identities = Identities.read(folder / "identity")
        self._store = open_bucket(ArchiveSpec(address=f"s3://s3/{bucket}", service=service))
        self._bucket, self._folder = bucket, folder
        self._home = write_checkpoint(folder / "home", size, files)
        self._files = [self._home.folder / record.name for record in self._home.manifest.files]

    def ways(self) -> dict[str, tuple[Way, Way]]:
        """Of each, what writes and what reads again."""
        found = {name: self._ours(self._archive(name)) for name in ("plain", "sealed")}
        return found | {
            THEIRS: self._theirs(Botocore()),
            f"{THEIRS}, unsigned": self._theirs(Botocore(signed=False)),
        }

    def _archive(self, name: str) -> Archive:
        return Archive(self._store, name, self._identities.public if name == "sealed" else ())

    def _ours(self, archive: Archive) -> tuple[Way, Way]:
        return partial(copy, saved_at_home(self._home), archive), partial(self._fetch, archive)

    def _theirs(self, botocore: Botocore) -> tuple[Way, Way]:
        names = [file.name for file in self._files]
        return (
            partial(botocore.upload, self._bucket, self._files),
            partial(botocore.download, self._bucket, names, self._folder / "fetched"),
        )

    def _fetch(self, archive: Archive) -> None:
        stored = archive.find(STEP)
        contents = stored if isinstance(stored, Archived) else open_checkpoint(stored, self._identities)
        fetch(contents, Catalog(self._folder / "fetched"))


def write_checkpoint(folder: Path, size: int, files: int) -> Checkpoint:
    catalog = Catalog(folder)
    place, elements = catalog.begin(STEP), size // files // 4
    generator = np.random.default_rng(0)
    records = [
        write_shard(
            place / shard_name(rank),
            [Fragment("values", rank * elements, {"weight": generator.random(elements, np.float32)})],
            {"step": np.array(STEP)},
        )
        for rank in range(files)
    ]
    manifest = Manifest(
        step=STEP, optimizer_step=STEP, tokens=0, sources={}, time=time.time(), attempt=1, world_size=files,
        run_digest="", identity={}, versions={}, shapes={"values": [elements * files]}, files=records,
    )  # fmt: skip
    catalog.commit(manifest)
    return Checkpoint(place, manifest)


def cost(name: str, size: int, work: Way) -> dict[str, float]:
    """GB a second, and CPU seconds of all threads of this process a GB."""
    os.sync()
    began, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return {name: size / seconds / 1e9, f"{name}, CPU s a GB": cpu_seconds / size * 1e9}


def measure(folder: Path, size: int, files: int, rounds: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = {}
    before, botocore = os.getloadavg()[0], Botocore()
    with botocore.bucket() as bucket:
        ways = Contest(bucket, folder, size, files).ways()
        names = list(ways)
        for turn in range(rounds + 1):  # the first warms up
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                write, read = ways[name]
                of_turn = cost("written", size, write) | cost("read", size, read)
                botocore.empty(bucket)
                shutil.rmtree(folder / "fetched")
                for what, value in of_turn.items() if turn else ():
                    found.setdefault(name, {}).setdefault(what, []).append(value)
    medians = {
        name: {what: statistics.median(each) for what, each in figures.items()} for name, figures in found.items()
    }
    load = {"load_before": before, "load_after": os.getloadavg()[0]}
    return {"bytes": size, "files": files, "rounds": rounds, "bar": BAR} | load | {"ways": medians}


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    head = (
        f"{result['bytes'] / 1e6:,.0f} MB in {result['files']} files, {result['rounds']} rounds, load "
        f"{result['load_before']:.1f} to {result['load_after']:.1f}; bar {result['bar']} of {THEIRS} when writing\n"
        f"{'':20}" + f"{'GB/s':>14}{f'of {THEIRS}':>13}{'CPU s/GB':>10}" * 2
    )
    theirs = result["ways"][THEIRS]
    return "\n".join([head] + [f"{name:20}" + row(way, theirs) for name, way in result["ways"].items()])


def row(way: dict[str, float], theirs: dict[str, float]) -> str:
    return "".join(
        f"{f'{what} {way[what]:.3f}':>14}{way[what] / theirs[what]:13.2f}{way[f'{what}, CPU s a GB']:10.2f}"
        for what in ("written", "read")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="of the checkpoint")
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the checkpoint lies and is fetched to")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(Path(folder), options.mib << 20, options.files, options.rounds)
    print(json.dumps(result, indent=2) if options.json else table(result))


if __name__ == "__main__":
    main()
