"""A signature vouches for every byte of a checkpoint; the official program says the same of it as we do."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.listing import verify
from aiftrain.checkpoint.saved import saved_at_home
from aiftrain.checkpoint.shards import shard_name
from aiftrain.checkpoint.signing.bundle import SIGNATURE, Bundle, digests_in, read_bundle, statement
from aiftrain.checkpoint.signing.checkpoint import sign, signature_faults
from aiftrain.checkpoint.signing.keys import PublicKey, SigningKey, new_signing_key

Save = Callable[[Catalog, int], Checkpoint]

# The program, its words, and not a single connection or telemetry module on the way.
_OFFICIAL = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise SystemExit(f"the program calls {event} {arguments}")
sys.addaudithook(watch)
from model_signing._cli import main
main(prog_name="model_signing")
"""


def official(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _OFFICIAL, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def official_verdict(folder: Path, public_key: Path) -> bool:
    done = official("verify", "key", folder, "--signature", folder / SIGNATURE, "--public_key", public_key)
    assert ("Verification succeeded" in done.stdout) == (done.returncode == 0), done.stderr
    return done.returncode == 0


def test_the_official_program_accepts_our_signature_and_sees_damage(signed: Checkpoint, key_file: Path) -> None:
    public = key_file.with_name("key.pem.pub")
    assert official_verdict(signed.folder, public)
    shard = signed.folder / shard_name(1)
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    assert not official_verdict(signed.folder, public)


def test_we_accept_the_official_programs_signature(
    catalog: Catalog, save: Save, key_file: Path, public_key: PublicKey
) -> None:
    folder = save(catalog, 1).folder
    done = official("sign", "key", folder, "--signature", folder / SIGNATURE, "--private_key", key_file)
    assert done.returncode == 0, done.stderr
    assert signature_faults(saved_at_home(catalog.find(1)), [public_key]) == []


def test_a_checkpoint_is_verified_with_its_signature(
    catalog: Catalog, signed: Checkpoint, public_key: PublicKey
) -> None:
    assert [each.faults for each in verify(catalog, 1, public_key)] == [()]


def test_an_unsigned_one_is_at_fault_where_a_signature_is_wanted(
    catalog: Catalog, save: Save, public_key: PublicKey
) -> None:
    save(catalog, 1)
    assert verify(catalog)[0].faults == ()
    assert list(map(str, verify(catalog, 1, public_key)[0].faults)) == ["model.sig: it is not signed"]


def test_a_foreign_signature_is_told(
    catalog: Catalog, signed: Checkpoint, public_key: PublicKey, tmp_path: Path
) -> None:
    other = new_signing_key(tmp_path / "other.pem")
    (fault,) = signature_faults(saved_at_home(signed), [other])
    assert str(fault) == f"model.sig: it was signed with key {public_key.fingerprint}, not with {other.fingerprint}"


def test_a_signature_that_only_claims_to_be_of_a_key_is_told(
    signed: Checkpoint, public_key: PublicKey, tmp_path: Path
) -> None:
    new_signing_key(tmp_path / "other.pem")
    forger = SigningKey.read(tmp_path / "other.pem", lambda: b"")
    bundle = read_bundle((signed.folder / SIGNATURE).read_bytes(), "it")
    forged = Bundle(bundle.statement, forger.sign(bundle.message), public_key.fingerprint)
    (signed.folder / SIGNATURE).write_text(forged.to_json())
    (fault,) = signature_faults(saved_at_home(signed), [public_key])
    assert fault.what == f"the signature is not that of key {public_key.fingerprint}"


def test_a_signature_of_another_checkpoint_is_told(
    catalog: Catalog, save: Save, signed: Checkpoint, public_key: PublicKey
) -> None:
    other = save(catalog, 2)
    shutil.copy(signed.folder / SIGNATURE, other.folder)
    faults = [fault.what.split(":")[0] for fault in signature_faults(saved_at_home(other), [public_key])]
    assert faults == ["manifest.json", shard_name(0), shard_name(1)]


def signed_sentence(said: bytes, key: SigningKey) -> str:
    unsigned = Bundle(said, b"", key.public.fingerprint)
    return Bundle(said, key.sign(unsigned.message), unsigned.hint).to_json()


def test_what_is_in_one_but_not_in_the_other_is_told(signed: Checkpoint, public_key: PublicKey, key_file: Path) -> None:
    key = SigningKey.read(key_file, lambda: b"")
    bundle = read_bundle((signed.folder / SIGNATURE).read_bytes(), "it")
    digests = digests_in(bundle.statement)
    less, more = dict(digests), digests | {"extra.bin": "0" * 64}
    del less[shard_name(0)]
    for changed, told in ((less, f"{shard_name(0)}: SHA-256 none was signed"), (more, "the manifest has none")):
        unsigned = Bundle(statement("step-00000001", changed, SIGNATURE), b"", key.public.fingerprint)
        (signed.folder / SIGNATURE).write_text(
            Bundle(unsigned.statement, key.sign(unsigned.message), unsigned.hint).to_json()
        )
        (fault,) = signature_faults(saved_at_home(signed), [public_key])
        assert told in fault.what


def test_a_signed_sentence_of_another_kind_is_no_signature(
    signed: Checkpoint, public_key: PublicKey, key_file: Path
) -> None:
    key = SigningKey.read(key_file, lambda: b"")
    for said in (b"{}", b"[]", b"no JSON", json.dumps({"_type": "x", "predicateType": "y"}).encode()):
        (signed.folder / SIGNATURE).write_text(signed_sentence(said, key))
        (fault,) = signature_faults(saved_at_home(signed), [public_key])
        assert "no statement on the files" in fault.what


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v2"),
        ("https://model_signing/signature/v1.0", "https://slsa.dev/provenance/v1"),
        ('"method":"files"', '"method":"shards"'),
        ('"algorithm":"sha256"', '"algorithm":"blake2"'),
    ],
)
def test_nor_is_one_that_is_nearly_of_the_kind(
    signed: Checkpoint, public_key: PublicKey, key_file: Path, ours: str, other: str
) -> None:
    said = read_bundle((signed.folder / SIGNATURE).read_bytes(), "it").statement.decode()
    sentence = signed_sentence(said.replace(ours, other, 1).encode(), SigningKey.read(key_file, lambda: b""))
    (signed.folder / SIGNATURE).write_text(sentence)
    (fault,) = signature_faults(saved_at_home(signed), [public_key])
    assert ours in said and "no statement on the files" in fault.what


def test_a_flipped_bit_in_any_byte_of_a_signature_is_found(signed: Checkpoint, public_key: PublicKey) -> None:
    file = signed.folder / SIGNATURE
    content = file.read_bytes()
    dice = random.Random(0)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << dice.randrange(8)
        file.write_bytes(damaged)
        assert signature_faults(saved_at_home(signed), [public_key]), f"byte {place}"


def test_signing_reads_no_shard(signed: Checkpoint, public_key: PublicKey, key_file: Path) -> None:
    for rank in (0, 1):
        (signed.folder / shard_name(rank)).unlink()
    sign(signed, SigningKey.read(key_file, lambda: b""))
    assert signature_faults(saved_at_home(signed), [public_key]) == []
