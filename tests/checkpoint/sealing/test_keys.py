"""Identities are read from files of their owner's alone, and are never shown."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, Identities, wrap
from aiftrain.cli.main import main
from aiftrain.errors import UserError


def test_a_new_identity_is_its_owners_alone_and_prints_its_public_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "identity.txt"
    assert main(["keys", "new", str(file)]) == 0
    made = capsys.readouterr()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    created, public, secret = file.read_text().splitlines()
    assert created.startswith("# created: ") and public == f"# public key: {made.out.strip()}"
    assert secret.startswith("AGE-SECRET-KEY-1")
    assert main(["keys", "show", str(file), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["public_keys"] == [made.out.strip()]
    assert "AGE-SECRET-KEY" not in made.out + made.err + shown.out + shown.err


def test_an_identity_is_never_overwritten(identity_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = identity_file.read_text()
    assert main(["keys", "new", str(identity_file)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert identity_file.read_text() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_an_identity_that_others_can_read_is_refused(identity_file: Path, mode: int) -> None:
    identity_file.chmod(mode)
    with pytest.raises(UserError, match=f"chmod 600 {identity_file}"):
        Identities.read(identity_file)


def test_a_secret_with_a_typing_error_is_not_repeated(identity_file: Path) -> None:
    secret = identity_file.read_text().split()[-1]
    identity_file.write_text(secret[:-1])
    with pytest.raises(UserError, match="no age identity") as refusal:
        Identities.read(identity_file)
    assert secret[20:-1] not in repr(refusal.value)
    assert refusal.value.__suppress_context__


@pytest.mark.parametrize(("line", "told"), [("-----BEGIN KEY-----", "may sign"), ("age1x", "is to be sealed for")])
def test_another_kind_of_key_is_told_apart(identity_file: Path, line: str, told: str) -> None:
    identity_file.write_text(f"{line}\n")
    with pytest.raises(UserError, match=told):
        Identities.read(identity_file)


def test_an_empty_file_holds_no_identity(identity_file: Path) -> None:
    identity_file.write_text("# public key: age1\n")
    with pytest.raises(UserError, match="holds no identity"):
        Identities.read(identity_file)


def test_the_secret_is_not_in_its_representation(identities: Identities, identity_file: Path) -> None:
    assert repr(identities) == f"Identities({identities.public[0]})"


def test_the_file_is_given_or_named_by_the_environment(
    identity_file: Path, identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(IDENTITY_FILE, raising=False)
    with pytest.raises(UserError, match=f"--identity FILE or {IDENTITY_FILE}"):
        Identities.given(None)
    assert Identities.given(identity_file).public == identities.public
    monkeypatch.setenv(IDENTITY_FILE, str(identity_file))
    assert Identities.given(None).public == identities.public


def test_only_public_keys_are_recipients() -> None:
    with pytest.raises(UserError, match="nobody could open"):
        wrap(b"secret", [])
    with pytest.raises(UserError, match="'age1abc' is no age public key"):
        wrap(b"secret", ["age1abc"])


def test_a_full_disk_leaves_no_half_identity(tmp_path: Path) -> None:
    limited = f'ulimit -f 0; trap "" XFSZ; exec python -m aiftrain keys new {tmp_path}/identity.txt'
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "cannot write" in done.stderr
    assert list(tmp_path.iterdir()) == []
