"""`keys`, `checkpoints sign` and `verify` as typed: no connection is opened, and no secret is shown."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.signing.keys import PublicKey
from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder

Save = Callable[[Catalog, int], Checkpoint]

# As `python -m aiftrain`, but the first thing that a connection needs ends it.
_WITHOUT_NETWORK = """
import runpy, sys
def watch(event, arguments):
    if event.startswith("socket.") and event not in ("socket.gethostname",):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(watch)
sys.argv[0] = "aiftrain"
runpy.run_module("aiftrain", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def saved(run_folder: RunFolder, save: Save) -> RunFolder:
    """A run with checkpoints of steps 1 and 2."""
    catalog = Catalog.of_run(run_folder, run_folder.read_spec())
    for step in (1, 2):
        save(catalog, step)
    return run_folder


def test_keys_are_made_a_checkpoint_is_signed_and_verified_without_a_network(saved: RunFolder, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-c", _WITHOUT_NETWORK, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "PRIVATE KEY" not in done.stdout + done.stderr
        return done.stdout

    key, run_path = str(tmp_path / "key.pem"), str(saved.path)
    assert run("keys", "new", key, "--for", "signing").startswith("-----BEGIN PUBLIC KEY-----")
    assert run("checkpoints", "sign", run_path, "--key", key).startswith("step 2: ")
    told = run("checkpoints", "verify", run_path, "--step", "2", "--public-key", f"{key}.pub")
    fingerprint = json.loads(run("keys", "show", key, "--for", "signing", "--json"))["fingerprint"]
    assert told.startswith(f"step 2: signed with {fingerprint[:16]}, and intact")


def test_verify_fails_where_one_is_not_signed(
    saved: RunFolder, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["checkpoints", "sign", str(saved.path), "--key", str(key_file), "--step", "1"]) == 0
    capsys.readouterr()
    assert main(["checkpoints", "verify", str(saved.path), "--public-key", f"{key_file}.pub", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [each["faults"] for each in found["checkpoints"]] == [
        [],
        [{"file": "model.sig", "what": "it is not signed"}],
    ]
    assert not found["intact"]


def test_an_archive_alone_shows_who_signed(
    saved: RunFolder, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["checkpoints", "sign", str(saved.path), "--key", str(key_file)]) == 0
    (tmp_path / "archive").mkdir()
    assert main(["checkpoints", "copy", str(saved.path), str(tmp_path / "archive"), "--all"]) == 0
    capsys.readouterr()
    verify = ["checkpoints", "verify", str(tmp_path / "archive"), "--public-key", f"{key_file}.pub"]
    assert main([*verify, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["signed_with"] == PublicKey.read(Path(f"{key_file}.pub")).fingerprint
    first, second = found["runs"][0]["checkpoints"]
    assert [fault["what"] for fault in first["faults"]] == ["it is not signed"] and not second["faults"]
    assert main([*verify, "--step", "2"]) == 0
    assert "step 2: signed with" in capsys.readouterr().out


WRONG = {
    "sign with nothing": (["checkpoints", "sign", "{run}"], "sign needs --key FILE"),
    "key of another action": (["checkpoints", "list", "{run}", "--key", "x"], "--key goes with sign"),
    "no such key": (["checkpoints", "sign", "{run}", "--key", "nowhere"], "cannot read nowhere"),
    "no such step": (["checkpoints", "sign", "{run}", "--key", "{key}", "--step", "9"], "complete steps: 1, 2"),
    "no public key": (["checkpoints", "verify", "{run}", "--public-key", "{key}"], "holds no public key"),
    "passphrase for sealing": (["keys", "new", "x", "--passphrase"], "goes with --for signing"),
    "nobody to type": (["keys", "new", "x", "--for", "signing", "--passphrase"], "nobody is here to type it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes(
    case: str,
    saved: RunFolder,
    key_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words, phrase = WRONG[case]
    assert main([word.format(run=saved.path, key=key_file) for word in words]) == 2
    assert phrase in capsys.readouterr().err


def test_a_passphrase_is_typed_or_read_from_a_private_file(
    saved: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, words = tmp_path / "locked.pem", tmp_path / "words"
    words.write_text("correct horse\n")
    words.chmod(0o644)
    made = ["keys", "new", str(key), "--for", "signing", "--passphrase-file", str(words)]
    assert main(made) == 2 and "chmod 600" in capsys.readouterr().err
    words.chmod(0o600)
    assert main(made) == 0
    sign = ["checkpoints", "sign", str(saved.path), "--key", str(key)]
    assert main([*sign, "--passphrase-file", str(words)]) == 0
    told = capsys.readouterr()
    assert "horse" not in told.out + told.err
    assert signed_at_a_terminal(sign, b"correct horse\n") == 0
    assert signed_at_a_terminal(sign, b"wrong\n") == 2


def signed_at_a_terminal(words: list[str], typed: bytes) -> int:
    process, terminal = pty.fork()
    if process == 0:
        os._exit(subprocess.run([sys.executable, "-m", "aiftrain", *words]).returncode)
    shown = b""
    while b"passphrase of the key: " not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, typed)
    try:
        while more := os.read(terminal, 1024):
            shown += more
    except OSError:  # the terminal is closed
        pass
    assert b"horse" not in shown
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
