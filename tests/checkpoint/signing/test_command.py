"""`keys`, `checkpoints sign` and `verify` as typed: no connection is opened, and no secret is shown."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.manifest import FileRecord
from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, new_identity
from aiftrain.checkpoint.sealing.writing import seal_checkpoint
from aiftrain.checkpoint.signing.keys import PublicKey
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder
from tests.cli.places import SavedRun

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
    assert main(["checkpoints", "verify", str(saved.path), "--public-key", f"{key_file}.pub"]) == 1
    told = capsys.readouterr().out
    assert "step 2: not signed with this key" in told and "damaged" not in told


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


def test_what_the_policy_wants_signed_is_not_given_out_otherwise(
    key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = SavedRun(tmp_path / "run", policy={"name": "test", "signed_by": [Path(f"{key_file}.pub").read_text()]})
    run.save(10)
    (tmp_path / "archive").mkdir()
    copy = ["checkpoints", "copy", run.path, str(tmp_path / "archive")]
    export = ["checkpoints", "export", run.path, "--out", str(tmp_path / "model")]
    for words in (copy, [*copy, "--weights-only"], export):
        assert main(words) == 2
        assert "policy.signed_by: " in (told := capsys.readouterr().err) and "it is not signed" in told
    assert not list((tmp_path / "archive").iterdir()) and not (tmp_path / "model").exists()
    assert main(["checkpoints", "sign", run.path, "--key", str(key_file)]) == 0
    assert main(copy) == main(export) == 0
    back = ["checkpoints", "copy", str(tmp_path / "archive"), run.path]
    shutil.rmtree(run.home.folder)
    signature = next((tmp_path / "archive").rglob("model.sig"))
    signature.rename(tmp_path / "aside")
    capsys.readouterr()
    assert main(back) == 2 and "policy.signed_by" in capsys.readouterr().err
    assert run.home.latest() is None
    (tmp_path / "aside").rename(signature)
    assert main(back) == 0 and run.home.verify(10) == []


def test_who_reads_an_archive_says_which_key_counts(
    saved: RunFolder, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policy in a checkpoint is as good as the checkpoint."""
    for place in ("archive", "second"):
        (tmp_path / place).mkdir()
    archive, demanded = str(tmp_path / "archive"), ["--public-key", f"{key_file}.pub"]
    assert main(["checkpoints", "copy", str(saved.path), archive]) == 0
    further = ["checkpoints", "copy", archive, str(tmp_path / "second"), *demanded]
    capsys.readouterr()
    assert main(further) == 2 and "--public-key: " in capsys.readouterr().err
    assert main(["checkpoints", "sign", str(saved.path), "--key", str(key_file)]) == 0
    assert main(["checkpoints", "copy", str(saved.path), archive]) == 0
    assert main(further) == 0


def test_other_content_sealed_for_a_signed_manifest_is_not_exported(
    key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anyone can seal; who knows a signed manifest could put shards of his own beside it."""
    recipient = new_identity(tmp_path / "team")
    monkeypatch.setenv(IDENTITY_FILE, str(tmp_path / "team"))
    seal = {"where": "archives", "recipients": [recipient]}
    run = SavedRun(tmp_path / "run", storage={"name": "local", "seal": seal})
    run.save(10)
    assert main(["checkpoints", "sign", run.path, "--key", str(key_file)]) == 0
    manifest, signature = run.home.find(10).manifest, run.home.find(10).folder / "model.sig"
    (tmp_path / "archive").mkdir()
    archive = Archive(FolderStore(tmp_path / "archive"), run.spec.lineage, (recipient,))

    def forged(record: FileRecord) -> list[bytes]:
        return [bytes(record.size) if record.name.startswith("rank") else (signature.parent / record.name).read_bytes()]

    seal_checkpoint(archive.store, archive.place(10), manifest, forged, [recipient])
    archive.put_signature(10, signature.read_bytes())
    words = ["--public-key", f"{key_file}.pub"]
    for action in (["export", "--out", str(tmp_path / "model")], ["copy", str(tmp_path / "second")]):
        (tmp_path / "second").mkdir(exist_ok=True)
        capsys.readouterr()
        assert main(["checkpoints", action[0], archive.store.address, *action[1:], *words]) == 1
        assert "rank-00000.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "model").exists() and not list((tmp_path / "second").rglob("sealed.json"))


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
