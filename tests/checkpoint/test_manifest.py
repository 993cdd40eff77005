"""A manifest reads back as it was written, and any other content is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.manifest import FileRecord, Manifest, read_manifest
from aiftrain.errors import DamagedError

RECORD = FileRecord(name="rank-00000.safetensors", size=9, sha256="ab" * 32)


def test_reads_back_equal(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest(files=[RECORD], shapes={"norm.weight": [8]}, sources={"slovenščina": 3})
    (tmp_path / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    assert read_manifest(tmp_path / "manifest.json") == manifest


def test_every_flipped_byte_is_found(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> None:
    file = tmp_path / "manifest.json"
    content = make_manifest(files=[RECORD]).to_json().encode()
    for position in range(len(content)):
        file.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(DamagedError, match=r"manifest\.json"):
            read_manifest(file)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1}'])
def test_what_is_no_manifest_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(DamagedError):
        read_manifest(tmp_path / "manifest.json")


def test_another_format_is_named(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> None:
    document = json.loads(make_manifest().to_json()) | {"format": 2}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(DamagedError, match="has format 2; this aiftrain reads format 1"):
        read_manifest(tmp_path / "manifest.json")


def test_an_edit_names_both_digests(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest()
    (tmp_path / "manifest.json").write_text(manifest.to_json().replace('"tokens": 28672', '"tokens": 28673'))
    with pytest.raises(DamagedError, match=f"states digest {manifest.digest}, its content has [0-9a-f]{{64}}"):
        read_manifest(tmp_path / "manifest.json")


@pytest.mark.parametrize("name", ["", "../run.json", "a/b", ".hidden", "/etc/passwd"])
def test_a_file_name_stays_in_its_folder(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        FileRecord(name=name, size=1, sha256="ab" * 32)


def test_weights_that_stay_the_same_are_noticed_where_updates_were_made(make_manifest: Callable[..., Manifest]) -> None:
    before = make_manifest(optimizer_step=5, weights="ab")
    assert make_manifest(optimizer_step=6, weights="ab").is_stuck_at(before)
    assert not make_manifest(optimizer_step=6, weights="cd").is_stuck_at(before)
    assert not make_manifest(optimizer_step=5, weights="ab").is_stuck_at(before), "every step was skipped"
    assert not make_manifest(optimizer_step=6).is_stuck_at(make_manifest(optimizer_step=5)), (
        "from before there were any"
    )
