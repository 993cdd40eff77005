"""What is refused on the login node, before a job waits in a queue: missing software, files, room; hopeless times."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aiftrain.data.corpus import PreparedCorpus, token_files
from aiftrain.data.prepare import prepare
from aiftrain.errors import ConfigError, UserError
from aiftrain.launch.before import check_before_queue
from aiftrain.plan.plan import LaunchPlan, make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.corpus import DataSpec, SourceSpec
from aiftrain.run.folder import RunFolder, append_line
from aiftrain.run.machine import Container
from aiftrain.run.spec import RunSpec


@pytest.fixture(autouse=True)
def _no_slurm_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands may be installed where the tests run, without a Slurm that they could ask."""
    monkeypatch.setenv("PATH", "")


def planned(*overrides: str) -> tuple[RunSpec, LaunchPlan]:
    """The 1B recipe on LUMI, with a container that is there."""
    spec = resolve(["recipe=eu-llm-1b", "factory=lumi", "account=project_465000001", "data.root=/corpus", *overrides])
    return spec, make_plan(spec, to_launch=True)


def changed(spec: RunSpec, part: str, **values: Any) -> RunSpec:
    return spec.model_copy(update={part: getattr(spec, part).model_copy(update=values)})


@contextmanager
def without_root() -> Iterator[None]:
    """As a user without root's power over file modes, which `access` would tell of."""
    real = os.access

    def access(path: str | Path, mode: int) -> bool:
        return real(path, mode) and (Path(path).stat().st_mode >> 6) & mode == mode

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", access)
        yield


def test_a_container_that_is_not_here_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"factory\.container\.image: there is no /appl/local"):
        check_before_queue(*planned(), folder)
    image = tmp_path / "image.sif"
    image.touch()
    check_before_queue(*planned(f"factory.container.image={image}"), folder)
    check_before_queue(*planned("factory.container.image=docker://some/image"), folder)


def test_a_python_for_other_processors_is_refused(tmp_path: Path) -> None:
    spec, plan = planned("factory.container=null")
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    with pytest.raises(ConfigError, match=f"launcher.python: .* and the nodes are {other}"):
        check_before_queue(changed(spec, "hardware", arch=other), plan, RunFolder(tmp_path))
    elsewhere = changed(changed(spec, "hardware", arch=other), "launcher", python="/usr/bin/env")
    check_before_queue(elsewhere, plan, RunFolder(tmp_path))
    with pytest.raises(ConfigError, match="there is no /no/python here"):
        check_before_queue(changed(spec, "launcher", python="/no/python"), plan, RunFolder(tmp_path))


def test_a_python_that_modules_bring_is_not_looked_for_here(tmp_path: Path) -> None:
    modules = "factory.modules=['module use /site/modules', 'module load pytorch']"
    spec, plan = planned("factory.container=null", "launcher.python=python-of-module", modules)
    check_before_queue(spec, plan, RunFolder(tmp_path))
    with pytest.raises(ConfigError, match="there is no python-of-module here"):
        check_before_queue(changed(spec, "factory", modules=()), plan, RunFolder(tmp_path))


def test_files_that_software_comes_from_must_be_here(tmp_path: Path) -> None:
    image = tmp_path / "image.sif"
    image.touch()
    archive, overlay = f"launcher.env_archive={tmp_path}/env.sqsh", "factory.container.flags=['--overlay=/o.sqsh:ro']"
    spec, plan = planned(f"factory.container.image={image}", archive, overlay)
    with pytest.raises(ConfigError) as refusal:
        check_before_queue(spec, plan, RunFolder(tmp_path))
    assert f"launcher.env_archive: there is no {tmp_path}/env.sqsh here" in str(refusal.value)
    assert "factory.container.flags: there is no /o.sqsh here" in str(refusal.value)


@pytest.mark.parametrize(
    ("container", "advice"),
    [
        ({"runtime": "apptainer", "image": "docker://i"}, "apptainer pull image.sif docker://i"),
        ({"runtime": "enroot", "image": "nvcr.io#nvidia/pytorch:25.10-py3"}, "enroot import -o image.sqsh docker://nv"),
    ],
)
def test_an_image_in_a_registry_is_refused_where_nodes_have_no_network(
    container: dict[str, str], advice: str, tmp_path: Path
) -> None:
    spec, plan = planned()
    spec = changed(spec, "factory", container=Container.model_validate(container))
    check_before_queue(spec, plan, RunFolder(tmp_path))
    with pytest.raises(ConfigError, match=f"in a registry, which the nodes here cannot reach(.|\n)*{advice}"):
        check_before_queue(changed(spec, "factory", internet_on_compute=False), plan, RunFolder(tmp_path))


def test_a_job_too_short_for_its_first_checkpoint_is_refused_with_an_interval_that_fits(tmp_path: Path) -> None:
    spec, plan = planned("factory.container.image=docker://i", "nodes=1", "time=01:00:00", "storage.save_every=100000")
    with pytest.raises(ConfigError, match=r"storage\.save_every: a job of 01:00:00 ends before") as refusal:
        check_before_queue(spec, plan, RunFolder(tmp_path))
    possible = int(str(refusal.value).rpartition("storage.save_every=")[2])
    check_before_queue(changed(spec, "storage", save_every=possible), plan, RunFolder(tmp_path))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"run_dir: .*/file cannot be written"):
        check_before_queue(*planned("factory.container.image=docker://i"), RunFolder(tmp_path / "file" / "run"))


@pytest.fixture
def corpus(tmp_path: Path) -> PreparedCorpus:
    """A prepared text; the tests damage what lies in its folder."""
    (tmp_path / "text.txt").write_text("".join(f"Satz {i}.\n" for i in range(400)), encoding="utf-8")
    sources = {"de": SourceSpec(path=str(tmp_path / "text.txt"), split="line")}
    data = DataSpec(name="x", cache_dir=str(tmp_path / "cache"), sources=sources)
    return prepare(data, vocab_size=300, seed=0)


def test_token_files_that_are_not_there_are_refused_and_all_named(tmp_path: Path, corpus: PreparedCorpus) -> None:
    site, folder = planned("factory.container.image=docker://i"), RunFolder(tmp_path / "run")
    check_before_queue(*site, folder, corpus)
    files = token_files(corpus)
    assert len(files) == 4 and {file.suffix for file in files} == {".bin", ".idx"}
    files[1].unlink()
    files[3].unlink()
    with pytest.raises(ConfigError, match=r"there is no .* here") as refusal:
        check_before_queue(*site, folder, corpus)
    assert [str(file) in str(refusal.value) for file in files] == [False, True, False, True]


def test_token_files_that_this_user_may_not_read_are_refused(tmp_path: Path, corpus: PreparedCorpus) -> None:
    token_files(corpus)[0].chmod(0)
    with without_root(), pytest.raises(ConfigError, match="data: you may not read "):
        check_before_queue(*planned("factory.container.image=docker://i"), RunFolder(tmp_path / "run"), corpus)


def test_checkpoints_go_where_this_user_may_write(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    site = planned("factory.container.image=docker://i", f"storage.path={closed}")
    with without_root(), pytest.raises(ConfigError, match=r"storage\.path: .*/closed cannot be written"):
        check_before_queue(*site, RunFolder(tmp_path / "run"))


def test_a_job_that_is_still_queued_is_not_submitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/bash\necho '4711|PENDING|Priority|'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    folder = RunFolder(tmp_path)
    append_line(folder.jobs, {"job": "4711"})
    with pytest.raises(UserError, match="job 4711 of this run is pending"):
        check_before_queue(*planned("factory.container.image=docker://i"), folder)
