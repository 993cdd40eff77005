"""`checkpoints seal`, `reseal` and `verify --identity`: the commands that docs/sealing.md names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, new_identity
from aiftrain.cli.main import main
from tests.checkpoint.conftest import flip
from tests.cli.places import SavedRun, asked

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IDENTITY_FILE, raising=False)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Public keys of identities in files of these names."""
    return {name: new_identity(tmp_path / name) for name in ("team", "escrow", "next")}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with the steps 10 and 20 of a run, in the clear."""
    (tmp_path / "archive").mkdir()
    run = SavedRun(tmp_path / "run")
    run.save(10, 20)
    assert main(["checkpoints", "copy", run.path, str(tmp_path / "archive"), "--all"]) == 0
    return tmp_path / "archive"


def endings(archive: Path) -> set[str]:
    return {file.name.rpartition(".")[2] for file in archive.rglob("*.*") if file.is_file()}


def sealed_for(archive: Path, *keys: str) -> None:
    assert main(["checkpoints", "seal", str(archive), *(word for key in keys for word in ("--recipient", key))]) == 0


def test_all_is_sealed_and_nothing_in_the_clear_stays(
    archive: Path, keys: dict[str, str], tmp_path: Path, capsys: Capture
) -> None:
    capsys.readouterr()
    words: list[str | Path] = ["seal", archive, "--recipient", keys["team"], "--recipient", keys["escrow"]]
    document = asked(capsys, *words, "--identity", tmp_path / "team")
    assert document["sealed"] == [10, 20] and document["recipients"] == [keys["team"], keys["escrow"]]
    assert endings(archive) == {"sealed", "json", "jsonl"}, "jsonl: custody"
    assert not list(archive.rglob("manifest.json"))
    assert asked(capsys, *words)["sealed"] == []
    for name in ("team", "escrow"):
        document = asked(capsys, "verify", archive, "--identity", tmp_path / name)
        assert (document["intact"], document["opened"]) == (True, True)


def test_verify_says_whether_it_has_opened_what_is_sealed(archive: Path, keys: dict[str, str], capsys: Capture) -> None:
    sealed_for(archive, keys["team"])
    capsys.readouterr()
    assert asked(capsys, "verify", archive)["opened"] is False
    assert main(["checkpoints", "verify", str(archive)]) == 0
    assert "compared as it is stored: --identity FILE would open it" in " ".join(capsys.readouterr().out.split())
    flip(next(archive.rglob("rank-00001.*.sealed")))
    assert asked(capsys, "verify", archive, code=1)["intact"] is False


@pytest.mark.parametrize("new_keys", [(), ("--new-keys",)])
def test_a_key_is_changed(
    archive: Path, keys: dict[str, str], tmp_path: Path, capsys: Capture, new_keys: tuple[str, ...]
) -> None:
    sealed_for(archive, keys["team"], keys["escrow"])
    objects = {file.name for file in archive.rglob("*.sealed")}
    capsys.readouterr()
    words: list[str | Path] = ["reseal", archive, "--recipient", keys["next"], "--recipient", keys["escrow"]]
    assert asked(capsys, *words, "--identity", tmp_path / "team", *new_keys)["resealed"] == [10, 20]
    assert bool(objects & {file.name for file in archive.rglob("*.sealed")}) is not bool(new_keys)
    assert asked(capsys, "verify", archive, "--identity", tmp_path / "next")["intact"] is True
    assert main(["checkpoints", "verify", str(archive), "--identity", str(tmp_path / "team")]) == 2
    # The same command goes on after an interruption, though its identity opens nothing any more.
    done = {file: file.read_bytes() for file in archive.rglob("*.sealed")}
    asked(capsys, *words, "--identity", tmp_path / "team", *new_keys)
    assert {file: file.read_bytes() for file in archive.rglob("*.sealed")} == done
    assert asked(capsys, "verify", archive, "--identity", tmp_path / "next")["intact"] is True


def test_new_keys_are_not_taken_for_granted(
    archive: Path, keys: dict[str, str], tmp_path: Path, capsys: Capture
) -> None:
    """Wrapped for others is not sealed anew: who asks for new keys with an identity that opens nothing is told."""
    sealed_for(archive, keys["team"])
    words = ["reseal", archive, "--recipient", keys["next"], "--identity", tmp_path / "team"]
    for step in ("10", "20"):
        asked_for = [*words, "--step", step, *(["--new-keys"] if step == "10" else [])]
        assert main(["checkpoints", *map(str, asked_for)]) == 0
    assert main(["checkpoints", *map(str, [*words, "--step", "10", "--new-keys"])]) == 0
    assert "none of these is in" in refused(capsys, *words, "--step", "20", "--new-keys")
    words = ["reseal", archive, "--recipient", keys["escrow"], "--identity", tmp_path / "next", "--step", "10"]
    assert main(["checkpoints", *map(str, words)]) == 0
    assert "none of these is in" in refused(capsys, *words, "--new-keys")


def test_one_recipient_alone_is_warned_of(archive: Path, keys: dict[str, str], capsys: Capture) -> None:
    sealed_for(archive, keys["team"])
    assert "when it is lost, all is" in " ".join(capsys.readouterr().err.split())
    sealed_for(archive, keys["team"], keys["escrow"])
    assert "is lost" not in capsys.readouterr().err


def refused(capsys: Capture, *words: Any) -> str:
    assert main(["checkpoints", *map(str, words)]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_wrong_requests_are_answered(archive: Path, keys: dict[str, str], tmp_path: Path, capsys: Capture) -> None:
    capsys.readouterr()
    team = ("--recipient", keys["team"])
    assert "seal needs --recipient age1..." in refused(capsys, "seal", archive)
    assert "is no age public key" in refused(capsys, "seal", archive, "--recipient", "age1x")
    assert "is there twice" in refused(capsys, "seal", archive, *team, *team)
    assert "seal takes an archive" in refused(capsys, "seal", tmp_path / "run", *team)
    assert "no complete checkpoint of step 5; complete steps: 10, 20" in refused(
        capsys, "seal", archive, "--step", 5, *team
    )
    assert f"--identity FILE or {IDENTITY_FILE}" in refused(capsys, "reseal", archive, *team)
    identity = ("--identity", tmp_path / "next")
    assert "has nothing that is sealed" in refused(capsys, "reseal", archive, *team, *identity)
    sealed_for(archive, keys["team"])
    capsys.readouterr()
    assert "none of these is in" in refused(capsys, "reseal", archive, "--recipient", keys["next"], *identity)
    assert "--new-keys goes with reseal" in refused(capsys, "verify", archive, "--new-keys")
    secret = (tmp_path / "next").read_text().split()[-1]
    assert secret not in refused(capsys, "seal", archive, "--recipient", secret)
