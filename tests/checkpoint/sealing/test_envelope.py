"""sealed.json says what is where, and what docs/sealing.md says is enough to open it without this package."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aiftrain.checkpoint.digested import parse
from aiftrain.checkpoint.sealing.envelope import ENVELOPE, Envelope, SealedFile, stored_name
from aiftrain.checkpoint.sealing.keys import Identities, wrap
from aiftrain.checkpoint.sealing.opening import data_key
from aiftrain.checkpoint.sealing.seal import SEGMENT
from aiftrain.checkpoint.sealing.stream import seal_blocks
from aiftrain.errors import DamagedError

CONTEXT = "0123456789ab/step-00000100"
PAGE = Path(__file__).parents[3] / "docs" / "sealing.md"


def seal_into(folder: Path, files: dict[str, bytes], recipients: list[str]) -> Envelope:
    sealed_files = []
    for name, content in files.items():
        seal, blocks = seal_blocks([content], len(content), name=name, context=CONTEXT, recipients=recipients)
        stored, sealed = stored_name(name), b"".join(blocks)
        (folder / stored).write_bytes(sealed)
        digest = hashlib.sha256(sealed).hexdigest()
        sealed_files.append(SealedFile(name=name, stored=stored, size=len(sealed), sha256=digest, seal=seal))
    envelope = Envelope(context=CONTEXT, step=100, manifest="0" * 64, recipients=recipients, files=sealed_files)
    (folder / ENVELOPE).write_text(envelope.to_json())
    return envelope


def test_the_program_in_the_documentation_opens_it(tmp_path: Path, identities: Identities, identity_file: Path) -> None:
    files = {"empty": b"", "rank-00000.safetensors": random.Random(0).randbytes(2 * SEGMENT + 100)}
    seal_into(tmp_path, files, identities.public)
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert "aiftrain" not in program
    for name, content in files.items():
        command = [sys.executable, "-c", program, str(tmp_path), name, str(identity_file)]
        assert subprocess.run(command, capture_output=True, check=True).stdout == content


def test_an_envelope_is_of_the_step_that_its_place_says(tmp_path: Path, identities: Identities) -> None:
    envelope = seal_into(tmp_path, {"file": b"content"}, identities.public)
    with pytest.raises(DamagedError, match=f"{CONTEXT} is no place of step 99"):
        parse(envelope.model_copy(update={"step": 99}).to_json().encode(), "it", Envelope)


def test_a_key_of_another_length_is_damage(tmp_path: Path, identities: Identities) -> None:
    seal = seal_into(tmp_path, {"file": b"content"}, identities.public).files[0].seal
    short = base64.b64encode(wrap(bytes(16), identities.public)).decode()
    with pytest.raises(DamagedError, match="its seal holds a key of 16 bytes"):
        data_key(seal.model_copy(update={"key": short}), identities, "it", identities.public)


def test_every_flipped_bit_of_the_envelope_is_found(tmp_path: Path, identities: Identities) -> None:
    envelope = seal_into(tmp_path, {"file": b"content"}, identities.public)
    content = (tmp_path / ENVELOPE).read_bytes()
    assert parse(content, "it", Envelope) == envelope
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError, match=r"^it (is damaged|has format)"):
            parse(bytes(damaged), "it", Envelope)


def test_it_tells_nothing_of_the_content(tmp_path: Path, identities: Identities) -> None:
    """A digest of what is sealed would tell who guesses it that the guess is right."""
    content = b"name: Llama"
    seal_into(tmp_path, {"manifest.json": content}, identities.public)
    text = (tmp_path / ENVELOPE).read_text()
    assert hashlib.sha256(content).hexdigest()[:8] not in text


def changed(envelope: Envelope, **changes: Any) -> dict[str, Any]:
    return envelope.model_dump() | changes


def test_wrong_envelopes_are_refused(tmp_path: Path, identities: Identities) -> None:
    envelope = seal_into(tmp_path, {"file": b"content"}, identities.public)
    file = envelope.files[0].model_dump()
    with pytest.raises(ValidationError, match="two files have the same name"):
        Envelope.model_validate(changed(envelope, files=[file, file]))
    with pytest.raises(ValidationError, match="has 22 bytes, its seal is of 23"):
        Envelope.model_validate(changed(envelope, files=[file | {"size": 22}]))
    for name in ("../file", "a/b", ".hidden", ""):
        with pytest.raises(ValidationError):
            Envelope.model_validate(changed(envelope, files=[file | {"stored": name}]))
    with pytest.raises(DamagedError, match="has no file other"):
        envelope.file("other")


def test_two_writers_never_write_the_same_object() -> None:
    names = {stored_name("rank-00000.safetensors") for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"rank-00000\.[0-9a-f]{16}\.sealed", name) for name in names)
