"""`checkpoints` at any place: a run folder, an archive's folder with several runs, a sealed one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from aiftrain.checkpoint import several
from aiftrain.checkpoint.custody import NAME as CUSTODY
from aiftrain.checkpoint.milestones import NAME as MILESTONES
from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, new_identity
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder
from tests.checkpoint.conftest import flip
from tests.checkpoint.run_to_export import LLAMA
from tests.cli.places import SavedRun, asked
from tests.cli.program import aiftrain

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path) -> SavedRun:
    run = SavedRun(tmp_path / "run")
    run.save(10, 20)
    return run


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


@pytest.fixture
def sealed(tmp_path: Path) -> SavedRun:
    """A run whose archives are sealed."""
    recipient = new_identity(tmp_path / "identity")
    storage = {"name": "local", "save_every": 10, "seal": {"where": "archives", "recipients": [recipient]}}
    run = SavedRun(tmp_path / "sealed run", storage=storage)
    run.save(10)
    return run


def copied(run: SavedRun, to: Path, *words: str) -> None:
    assert main(["checkpoints", "copy", run.path, str(to), *words]) == 0


def steps(document: dict[str, Any]) -> list[int]:
    return [each["step"] for each in document["checkpoints"]]


def test_an_archive_with_two_runs_is_listed_and_verified(
    run: SavedRun, archive: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = SavedRun(tmp_path / "other", seed=1)
    other.save(10)
    copied(run, archive, "--all")
    copied(other, archive)
    capsys.readouterr()
    found = {each["lineage"]: steps(each) for each in asked(capsys, "list", archive)["runs"]}
    assert found == {run.spec.lineage: [10, 20], other.spec.lineage: [10]}
    chosen = asked(capsys, "list", archive, "--lineage", run.spec.lineage[:4])["runs"]
    assert [each["lineage"] for each in chosen] == [run.spec.lineage]
    assert steps(asked(capsys, "list", archive / other.spec.lineage)["runs"][0]) == [10]
    assert asked(capsys, "verify", archive)["intact"] is True
    shard = next((archive / run.spec.lineage / "step-00000020").glob("rank-00001.*"))
    flip(shard)
    document = asked(capsys, "verify", archive, code=1)
    faults = [
        (one["lineage"], each["step"], each["faults"][0]["file"])
        for one in document["runs"]
        for each in one["checkpoints"]
        if each["faults"]
    ]
    assert faults == [(run.spec.lineage, 20, "rank-00001.safetensors")]
    assert main(["checkpoints", "export", str(archive), "--out", str(tmp_path / "model")]) == 2
    assert f"{other.spec.lineage}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list", "RUM"], "did you mean RUN?"),
        (["list", "EMPTY"], "is no archive"),
        (["list", "s3://lumi-oo/bucket"], "there is no storage service 'lumi-oo'"),
        (["list", "s3://lumi-o"], "s3://SERVICE/BUCKET"),
        (["list", "ARCHIVE", "--lineage", "zz"], "has no run that begins with zz; there are: "),
        (["export", "ARCHIVE"], "name the folder to write with --out"),
        (["export", "ARCHIVE", "--out", "x", "--step", "3"], "no complete checkpoint of step 3; complete steps: 20"),
        (["copy", "RUN"], "two places"),
        (["verify", "RUN", "ARCHIVE"], "one place is enough"),
        (["copy", "RUN", "RUN"], "is where it is copied from"),
        (["list", "FILE"], "run.json is a file"),
        (["list", "https://host.example.eu/bucket"], "a URL is no place"),
        (["copy", "RUN", "ftp://host.example.eu/folder"], "a URL is no place"),
        (["keep", "RUN", "--drop"], "needs --step"),
        (["copy", "ARCHIVE", "RUN", "--weights-only"], "no run goes on from weights only"),
        (["copy", "RUN", "s3://lumi-o/bucket"], "policy=site lets no checkpoints leave the site"),
        (["prune", "RUN", "--older-than", "30"], "30d"),
        (["prune", "RUN", "--keep-last", "0"], "at least 1"),
        (["keep", "RUN", "--drop", "--step", "7"], "is no milestone"),
    ],
)
def test_what_cannot_be_is_told(
    run: SavedRun, archive: Path, tmp_path: Path, capsys: Capture, words: list[str], told: str
) -> None:
    copied(run, archive)
    (tmp_path / "empty").mkdir()
    names = {"FILE": tmp_path / "run" / "run.json"}
    names |= {"RUN": tmp_path / "run", "RUM": tmp_path / "rum", "ARCHIVE": archive, "EMPTY": tmp_path / "empty"}
    assert main(["checkpoints", *(str(names.get(word, word)) for word in words)]) == 2
    message = capsys.readouterr().err
    for word in ("RUN", "ARCHIVE"):
        told = told.replace(word, str(names[word]))
    assert told in message and "Traceback" not in message


def test_folders_need_neither_torch_nor_hydra(run: SavedRun, archive: Path, tmp_path: Path) -> None:
    copied(run, archive)
    program = (
        "import sys; sys.modules.update(torch=None, hydra=None, omegaconf=None, botocore=None)\n"
        "from aiftrain.cli.main import main; raise SystemExit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "checkpoints", "list", str(archive)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and run.spec.lineage in done.stdout, done.stderr


def test_a_copy_goes_from_home_to_an_archive_to_another_and_home_again(
    run: SavedRun, archive: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "second").mkdir()
    copied(run, archive, "--all")
    assert main(["checkpoints", "copy", str(archive), str(tmp_path / "second"), "--all"]) == 0
    before = {file.name: file.read_bytes() for file in run.home.step_folder(20).iterdir()}
    shutil.rmtree(run.home.folder)
    assert main(["checkpoints", "copy", str(tmp_path / "second"), run.path]) == 0
    assert {file.name: file.read_bytes() for file in run.home.step_folder(20).iterdir()} == before
    assert run.home.verify(20) == []
    capsys.readouterr()
    assert steps(asked(capsys, "list", run.path)) == [20]


def test_a_copy_takes_custody_along_and_a_replay_is_seen_there(
    run: SavedRun, archive: Path, tmp_path: Path, capsys: Capture
) -> None:
    """An archive that a copy was made of once, and what an old checkpoint from there would look like."""
    (tmp_path / "second").mkdir()
    copied(run, archive, "--all")
    assert main(["checkpoints", "copy", str(archive), str(tmp_path / "second"), "--step", "20"]) == 0
    old, custody = shutil.copytree(archive, tmp_path / "old"), tmp_path / "second" / run.spec.lineage / CUSTODY
    assert custody.read_bytes() == run.home.custody.text() != b""
    run.home.set_aside(20, "void")
    run.save(20)
    shutil.rmtree(custody.parent / "step-00000020")
    copied(run, tmp_path / "second")
    assert main(["checkpoints", "verify", str(tmp_path / "second")]) == 0
    shutil.rmtree(custody.parent / "step-00000020")
    shutil.copytree(old / run.spec.lineage / "step-00000020", custody.parent / "step-00000020")
    capsys.readouterr()
    assert main(["checkpoints", "verify", str(tmp_path / "second")]) == 1
    assert "custody.jsonl has the manifest" in capsys.readouterr().out


@pytest.mark.parametrize("which", ["damaged", "another"])
def test_custody_that_does_not_fit_is_told_and_stops_no_copy(
    run: SavedRun, archive: Path, capsys: Capture, which: str
) -> None:
    copied(run, archive, "--step", "10")
    theirs = archive / run.spec.lineage / CUSTODY
    before = theirs.read_bytes()
    if which == "damaged":
        flip(run.home.custody.file, 20)
    else:
        run.home.custody.set_aside()
        run.home.adopt()
    capsys.readouterr()
    told = asked(capsys, "copy", run.path, archive, "--step", "20", code=1)["custody"]
    assert ("copied without it" if which == "damaged" else "does not go on from this one: it stays") in told
    assert steps(asked(capsys, "list", archive)["runs"][0]) == [10, 20]
    assert theirs.read_bytes() == before


def test_an_interrupted_copy_goes_on(run: SavedRun, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = FolderStore.write

    def watched(self: FolderStore, name: str, *arguments: Any, **options: Any) -> None:
        if not interrupted and "rank-00001" in name:
            raise KeyboardInterrupt
        write(self, name, *arguments, **options)
        written.append(name)

    interrupted: set[str] = set()
    monkeypatch.setattr(FolderStore, "write", watched)
    assert main(["checkpoints", "copy", run.path, str(archive)]) != 0
    assert not list(archive.rglob("manifest.json"))
    interrupted.update(written)
    written.clear()
    copied(run, archive)
    assert interrupted and not interrupted & set(written)
    assert main(["checkpoints", "verify", str(archive)]) == 0


def test_damage_is_not_copied(run: SavedRun, archive: Path, capsys: Capture) -> None:
    flip(run.home.step_folder(20) / "rank-00000.safetensors")
    assert main(["checkpoints", "copy", run.path, str(archive)]) == 1
    assert "rank-00000.safetensors is damaged" in capsys.readouterr().err
    assert not list(archive.rglob("manifest.json"))


def test_all_that_is_whole_is_copied_and_the_rest_is_told(run: SavedRun, archive: Path, capsys: Capture) -> None:
    flip(run.home.step_folder(10) / "rank-00000.safetensors")
    document = asked(capsys, "copy", run.path, archive, "--all", code=1)
    assert document["steps"] == [20] and "rank-00000.safetensors is damaged" in document["damaged"]["10"]
    assert main(["checkpoints", "verify", str(archive)]) == 0


def test_what_the_run_removes_meanwhile_is_no_reason_to_stop(
    run: SavedRun, archive: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FolderStore.write

    def remove_and_write(store: FolderStore, name: str, *content: Any, **how: Any) -> Any:
        if name.endswith(CUSTODY) and run.home.has(10):
            run.home.retain(keep_last=1)
        return write(store, name, *content, **how)

    monkeypatch.setattr(FolderStore, "write", remove_and_write)
    assert main(["checkpoints", "copy", run.path, str(archive), "--all"]) == 0
    told = capsys.readouterr().out
    assert "step 10 is not copied" in told and "its run has removed it" in told and "step 20 is at" in told
    assert main(["checkpoints", "verify", str(archive)]) == 0


def test_a_copy_to_home_mends_what_is_damaged_there_and_nothing_else(
    run: SavedRun, archive: Path, capsys: Capture
) -> None:
    copied(run, archive)
    assert main(["checkpoints", "copy", str(archive), run.path]) == 0
    assert not list(run.home.folder.glob("damaged-*"))
    flip(run.home.step_folder(20) / "rank-00000.safetensors")
    capsys.readouterr()
    assert main(["checkpoints", "copy", str(archive), run.path]) == 0
    assert "set aside as" in capsys.readouterr().out and list(run.home.folder.glob("damaged-*"))
    assert run.home.verify(20) == []


def test_weights_alone_are_smaller_can_be_exported_and_nothing_resumes_from_them(
    run: SavedRun, archive: Path, tmp_path: Path, capsys: Capture
) -> None:
    copied(run, archive, "--weights-only")
    capsys.readouterr()
    (entry,) = asked(capsys, "list", archive)["runs"][0]["checkpoints"]
    (_, whole) = asked(capsys, "list", run.path)["checkpoints"]
    assert entry["message"] == "complete, weights only"
    weights = 4 * run.spec.model.parameters
    assert whole["size"] - entry["size"] > 1.9 * weights
    assert main(["checkpoints", "verify", str(archive)]) == 0
    assert main(["checkpoints", "export", str(archive), "--out", str(tmp_path / "model")]) == 0
    assert main(["checkpoints", "export", run.path, "--out", str(tmp_path / "reference")]) == 0
    assert _weights(tmp_path / "model") == _weights(tmp_path / "reference")
    shutil.rmtree(run.home.folder)
    assert main(["checkpoints", "copy", str(archive), run.path]) == 2
    assert "holds weights only, and no run can go on from it" in capsys.readouterr().err
    assert main(["checkpoints", "copy", str(archive), str(tmp_path / "missing")]) == 1


def test_weights_alone_do_not_get_in_the_way_of_the_run(tmp_path: Path, archive: Path, capsys: Capture) -> None:
    run = SavedRun(tmp_path / "run", storage={"name": "local", "save_every": 10, "archives": [str(archive)]})
    (tmp_path / "team").mkdir()
    run.save(10)
    copied(run, tmp_path / "team")
    for place in ("archive", "team"):
        assert main(["checkpoints", "copy", run.path, str(tmp_path / place), "--weights-only"]) == 2
        assert "choose another place" in capsys.readouterr().err


def _weights(folder: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(folder / "model.safetensors").items()}


def test_export_straight_from_an_archive(run: SavedRun, archive: Path, tmp_path: Path) -> None:
    copied(run, archive)
    assert main(["checkpoints", "export", run.path, "--out", str(tmp_path / "reference")]) == 0
    shutil.rmtree(run.path)  # the archive alone must do
    assert main(["checkpoints", "export", str(archive), "--out", str(tmp_path / "model")]) == 0
    for file in (tmp_path / "reference").iterdir():
        assert (tmp_path / "model" / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("where", ["home", "archive", "sealed"])
def test_memory_does_not_grow_with_the_model(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the layers, the same memory. The smaller model, too, has files larger than a block that is read."""
    monkeypatch.setattr(several, "_AT_ONCE", 1)  # how much threads hold at the same moment is chance
    small, large = (_peak(where, tmp_path / str(layers), layers, monkeypatch) for layers in (2, 8))
    assert large < small + (1 << 20)


def _peak(where: str, place: Path, layers: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that Python holds at most while it exports; numpy's arrays are among them."""
    place.mkdir()
    monkeypatch.setenv(IDENTITY_FILE, str(place / "identity"))
    recipient = new_identity(place / "identity")
    seal = {"where": "archives", "recipients": [recipient]} if where == "sealed" else {}
    model = LLAMA | {"hidden_size": 128, "intermediate_size": 4096, "num_layers": layers}
    run = SavedRun(place / "run", model=model, storage={"name": "local", "seal": seal})
    run.save(10)
    origin = run.path if where == "home" else str(place / "archive")
    if where != "home":
        Path(origin).mkdir()
        copied(run, Path(origin))
    run.weights.clear()
    tracemalloc.start()
    assert main(["checkpoints", "export", origin, "--out", str(place / "model")]) == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_damage_in_an_archive_is_never_exported(run: SavedRun, archive: Path, tmp_path: Path, capsys: Capture) -> None:
    copied(run, archive)
    flip(next(archive.rglob("rank-00001.*")), 5000)
    assert main(["checkpoints", "export", str(archive), "--out", str(tmp_path / "model")]) == 1
    assert "rank-00001.safetensors: SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_sealed_archive_is_exported_with_the_identity_alone(
    sealed: SavedRun, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    copied(sealed, archive)
    assert main(["checkpoints", "export", sealed.path, "--out", str(tmp_path / "reference")]) == 0
    shutil.rmtree(sealed.path)
    words = ["checkpoints", "export", str(archive), "--out", str(tmp_path / "model")]
    assert main(words) == 2
    assert IDENTITY_FILE in capsys.readouterr().err
    assert main(["checkpoints", "verify", str(archive)]) == 0  # takes no key
    assert main(["checkpoints", "keep", str(archive), "--as", "first"]) == 0  # nor does that
    assert main([*words, "--identity", str(tmp_path / "identity")]) == 0
    monkeypatch.setenv(IDENTITY_FILE, str(tmp_path / "identity"))
    assert _weights(tmp_path / "model") == _weights(tmp_path / "reference")
    flip(next(archive.rglob("rank-00000.*")), 5000)
    shutil.rmtree(tmp_path / "model")
    capsys.readouterr()
    assert main(words) == 1
    assert "is not what was sealed there" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_sealed_checkpoint_is_copied_without_a_key_and_opened_at_home(
    sealed: SavedRun, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "second").mkdir()
    copied(sealed, archive)
    assert main(["checkpoints", "copy", str(archive), str(tmp_path / "second")]) == 0
    names, others = ({file.name for file in place.rglob("*")} for place in (archive, tmp_path / "second"))
    assert names == others and "sealed.json" in names
    shutil.rmtree(sealed.home.folder)
    monkeypatch.setenv(IDENTITY_FILE, str(tmp_path / "identity"))
    assert main(["checkpoints", "copy", str(tmp_path / "second"), sealed.path]) == 0
    assert sealed.home.verify(10) == []


def test_prune_shows_first_and_keeps_milestones_and_what_verifies(run: SavedRun, capsys: Capture) -> None:
    run.save(30, 40, 50)
    assert main(["checkpoints", "keep", run.path, "--step", "20", "--as", "before the anneal"]) == 0
    flip(run.home.step_folder(50) / "rank-00000.safetensors")
    flip(run.home.step_folder(40) / "rank-00000.safetensors")
    assert main(["checkpoints", "prune", run.path, "--keep-last", "1"]) == 0
    assert "--yes removes" in capsys.readouterr().out
    assert run.home.steps() == [10, 20, 30, 40, 50]
    document = asked(capsys, "prune", run.path, "--keep-last", "1", "--yes")
    reasons = {each["summary"]["step"]: each["why"] for each in document["checkpoints"] if not each["goes"]}
    assert reasons == {20: "a milestone: before the anneal", 30: "the newest that verifies", 50: "among the newest"}
    assert run.home.steps() == [20, 30, 50]


def test_retention_keeps_milestones(run: SavedRun) -> None:
    assert main(["checkpoints", "keep", run.path, "--step", "10"]) == 0
    run.save(30)
    run.home.retain(keep_last=1)
    assert run.home.steps() == [10, 30]
    (run.home.folder / MILESTONES).write_text("{")
    run.save(40)
    assert run.home.retain(keep_last=1) == [], "nothing is removed where nobody knows what is to stay"


def test_nothing_goes_where_nothing_verifies(run: SavedRun, capsys: Capture) -> None:
    for step in (10, 20):
        flip(run.home.step_folder(step) / "rank-00000.safetensors")
    assert main(["checkpoints", "prune", run.path, "--keep-last", "1", "--yes"]) == 2
    assert "no checkpoint here verifies" in capsys.readouterr().err
    assert run.home.steps() == [10, 20]


def test_an_archive_is_pruned_by_age_and_of_what_died_on_its_way(run: SavedRun, archive: Path, capsys: Capture) -> None:
    copied(run, archive, "--all")
    place = archive / run.spec.lineage
    for step, days in ((30, 3), (40, 1)):
        (place / f"step-{step:08d}").mkdir()
        stray = place / f"step-{step:08d}" / "rank-00000.0123456789abcdef.safetensors"
        stray.write_bytes(b"half")
        os.utime(stray, (time.time() - days * 86400,) * 2)
    capsys.readouterr()
    document = asked(capsys, "prune", archive, "--older-than", "1h", "--yes")
    assert [each["summary"]["step"] for each in document["checkpoints"] if each["goes"]] == [30]
    assert sorted(path.name for path in place.glob("step-*")) == [f"step-{step:08d}" for step in (10, 20, 40)]


def test_what_no_other_place_has_stays(tmp_path: Path, archive: Path, capsys: Capture) -> None:
    run = SavedRun(tmp_path / "run", storage={"name": "local", "save_every": 10, "archives": [str(archive)]})
    run.save(10, 20, 30)
    assert main(["ship", run.path]) == 0
    run.save(40, 50)
    capsys.readouterr()
    document = asked(capsys, "prune", run.path, "--keep-last", "1", "--yes")
    assert [each["summary"]["step"] for each in document["checkpoints"] if each["goes"]] == [10, 20, 30]
    assert run.home.steps() == [40, 50]


def test_two_copies_stay_two(tmp_path: Path, archive: Path, capsys: Capture) -> None:
    (tmp_path / "second").mkdir()
    places = [str(archive), str(tmp_path / "second")]
    storage = {"name": "local", "save_every": 10, "archives": places}
    run = SavedRun(tmp_path / "run", storage=storage, policy={"name": "two", "copies": 2})
    run.save(10, 20, 30)
    copied(run, archive, "--all")
    copied(run, tmp_path / "second", "--step", "10")
    capsys.readouterr()
    document = asked(capsys, "prune", archive, "--keep-last", "1")
    assert [each["summary"]["step"] for each in document["checkpoints"] if each["goes"]] == [10]


def test_for_programs_in_another_folder(run: SavedRun, tmp_path: Path) -> None:
    done = aiftrain("checkpoints", "list", "run", "--json", cwd=tmp_path, blocked=True)
    assert [each["step"] for each in json.loads(done.stdout)["checkpoints"]] == [10, 20], done.stderr
    assert RunFolder(tmp_path / "run").read_spec() == run.spec
    assert np.isfinite(run.weights["embed.weight"]).all()
