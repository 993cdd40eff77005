"""`env lock` asks the ranks' own Python: behind modules, in a container, packed; and hashes what it comes from."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiftrain.errors import UserError
from aiftrain.launch.before import check_before_queue
from aiftrain.launch.env_lock import ask_software, files, make_lock
from aiftrain.launch.packing import pack
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.env_lock import Software
from aiftrain.run.folder import RunFolder
from aiftrain.run.software import software
from tests.conftest import small_spec

# `module` as a site has it: a function that a login shell defines, which puts a Python on the path.
MODULE = """
module() {
    [[ $1 == load && $2 == python-site ]] || { echo "no module $2" >&2; return 1; }
    echo "loading $2"
    export PATH=%s:$PATH PYTHONPATH=%s
}
"""
# A container runtime, as far as it is one: options, an image, and a command that runs.
SINGULARITY = """#!/bin/bash
[[ $1 == exec ]] || exit 1
while shift && [[ $1 == --* ]]; do
    if [[ $1 == --bind=* && ! -e ${1#--bind=} ]]; then echo "FATAL: $1 is not there" >&2; exit 255; fi
done
shift
exec env PATH=%s:$PATH "$@"
"""


@pytest.fixture
def site_python(tmp_path: Path) -> Path:
    """The bin folder of a Python of its own, with a package that no other has."""
    venv = tmp_path / "site python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (next(venv.glob("lib/python3*/site-packages")) / "only_here-1.0.dist-info").mkdir()
    return venv / "bin"


def spec_of(tmp_path: Path, factory: dict[str, Any], **launcher: Any) -> Any:
    site = {"name": "site", "title": "A site", "scheduler": "slurm"} | factory
    return small_spec(factory=site, launcher={"name": "slurm"} | launcher, run_dir=str(tmp_path / "run"))


def packages(spec: Any) -> dict[str, str]:
    return ask_software(spec, RunFolder(spec.run_folder)).packages


def test_without_anything_else_it_is_this_python(tmp_path: Path) -> None:
    found = ask_software(spec_of(tmp_path, {}), RunFolder(tmp_path / "run"))
    assert found == Software.model_validate(software())


def test_a_python_that_modules_bring_is_asked_behind_them(site_python: Path, tmp_path: Path) -> None:
    (tmp_path / "from module" / "of_module-2.0.dist-info").mkdir(parents=True)
    (tmp_path / "modules.sh").write_text(MODULE % (f"'{site_python}'", f"'{tmp_path}/from module'"))
    modules = [f"source '{tmp_path}/modules.sh'", "module load python-site"]
    found = packages(spec_of(tmp_path, {"modules": modules}, python="python3"))
    assert found == {"only-here": "1.0", "of-module": "2.0"}


def test_the_python_of_an_image_is_asked_in_it(
    site_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "bin" / "singularity"
    runtime.parent.mkdir()
    runtime.write_text(SINGULARITY % f"'{site_python}'")
    runtime.chmod(0o755)
    monkeypatch.setenv("PATH", f"{runtime.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}/of the host")
    (tmp_path / "of the host" / "host-1.0.dist-info").mkdir(parents=True)
    container = {"runtime": "singularity", "image": "/image.sif", "binds": ["/only/on/nodes"]}
    assert packages(spec_of(tmp_path, {"container": container})) == {"only-here": "1.0"}


def test_a_packed_environment_is_asked(site_python: Path, tmp_path: Path) -> None:
    pack(site_python.parent, tmp_path / "env.tar.zst")
    assert packages(spec_of(tmp_path, {}, env_archive=str(tmp_path / "env.tar.zst"))) == {"only-here": "1.0"}


def test_a_python_that_does_not_run_here_is_said_with_a_way_out(tmp_path: Path) -> None:
    for python, words in (("/bin/false", "exit code 1"), ("/no/python", "No such file"), ("/bin/true", "answers ''")):
        with pytest.raises(UserError, match=f"{words}(.|\n)*--as-started {tmp_path}/run"):
            packages(spec_of(tmp_path, {}, python=python))


def test_image_and_packed_environment_are_hashed(tmp_path: Path) -> None:
    image, archive, link = tmp_path / "image.sif", tmp_path / "env.sqsh", tmp_path / "latest.sif"
    image.write_bytes(b"image" * 3_000_000)
    archive.write_bytes(b"packed")
    link.symlink_to(image)
    spec = spec_of(tmp_path, {"container": {"runtime": "apptainer", "image": str(link)}}, env_archive=str(archive))
    octets: list[int] = []
    lock = make_lock(spec, Software.model_validate(software()), octets.append)
    assert {what: file.path for what, file in lock.files.items()} == {
        "container image": str(image),
        "packed environment": str(archive),
    }
    assert lock.files["container image"].sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
    assert sum(octets) == image.stat().st_size + 6
    assert lock.commit is None or len(lock.commit) == 40
    image.unlink()
    with pytest.raises(UserError, match=f"there is no {link} here"):
        files(spec)


def test_an_image_that_changed_since_is_refused_before_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # no Slurm to ask
    image, folder = tmp_path / "image.sif", RunFolder(tmp_path / "run")
    image.touch()
    words = ["recipe=eu-llm-1b", "factory=lumi", "account=project_465000001", "data.root=/corpus"]
    spec = resolve([*words, f"factory.container.image={image}"])
    lock = make_lock(spec, Software.model_validate(software()))
    folder.write_json(folder.env_lock, lock.model_dump(mode="json"))
    plan = make_plan(spec, to_launch=True)
    check_before_queue(spec, plan, folder)
    image.write_text("another")
    with pytest.raises(UserError, match=r"env\.lock\.json: container image: .* is no longer the file"):
        check_before_queue(spec, plan, folder)
