"""`env wheelhouse`: every wheel that a node needs, fetched where there is a network and installed where there is none.

Nodes run another system than the machine that fetches, so wheels are chosen for a processor and a C library, not for
this machine. What exists as source only is built here first: it must be plain Python.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiftrain
from aiftrain.errors import MachineError, UserError
from aiftrain.shipped import checkout, constraints_file

_PYTHON = "3.11"
_GLIBC = range(28, 16, -1)  # of 2.x: RHEL 8 has 2.28, SLES 15 2.31, RHEL 9 2.34
_INSTALL = """\
#!/bin/sh
# Makes a virtual environment from the wheels beside this file; needs Python {python}, and no network.
# usage: sh install.sh FOLDER [PYTHON]
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)
"${{2:-python{python}}}" -m venv "$1"
"$1/bin/python" -m pip install --no-index --find-links "$here" -c "$here/constraints.txt" {wanted}
"""


def make_wheelhouse(folder: Path, arch: str, extras: Sequence[str], pip_arguments: Sequence[str]) -> list[Path]:
    """Fill `folder` with wheels for `arch` (x86_64, aarch64), constraints.txt and install.sh; gives the wheels.

    `pip_arguments` go to each pip that fetches: an index, further requirements. UserError or MachineError with pip's
    words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(constraints_file(), folder / "constraints.txt")
    wanted = f"aiftrain[{','.join(extras)}]" if extras else "aiftrain"
    own = _own_wheel(folder)
    requirement = f"{wanted} @ {own.resolve().as_uri()}"
    common = ["-c", str(folder / "constraints.txt"), "--find-links", str(folder), *pip_arguments, requirement]
    _build_sources(folder, common, pip_arguments)
    platforms = [f"--platform=manylinux_2_{minor}_{arch}" for minor in _GLIBC] + [f"--platform=manylinux2014_{arch}"]
    target = [*platforms, f"--python-version={_PYTHON}", "--implementation=cp", "--only-binary=:all:"]
    _pip("download", *target, "--dest", str(folder), *common)
    install = folder / "install.sh"
    install.write_text(_INSTALL.format(python=_PYTHON, wanted=shlex.quote(wanted)), encoding="utf-8")
    install.chmod(0o755)
    return sorted(folder.glob("*.whl"))


def _own_wheel(folder: Path) -> Path:
    """aiftrain's wheel: built of the checkout, or put there by hand."""
    root = checkout()
    if root is not None:
        for old in folder.glob("aiftrain-*.whl"):
            old.unlink()
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(root))
    found = sorted(folder.glob(f"aiftrain-{aiftrain.__version__}-*.whl"))
    if not found:
        raise UserError(
            f"this aiftrain is no checkout, to build a wheel of: copy the wheel of aiftrain {aiftrain.__version__} "
            f"that it was installed from into {folder} first"
        )
    return found[0]


def _build_sources(folder: Path, common: Sequence[str], pip_arguments: Sequence[str]) -> None:
    """Wheels of all that is to be had as source only. UserError where one is not plain Python."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "report.json")
        _pip("install", "--dry-run", "--ignore-installed", "--report", str(report), *common)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
        sources = [entry["metadata"] for entry in found if not entry["download_info"]["url"].endswith(".whl")]
        if not sources:
            return
        pinned = [f"{source['name']}=={source['version']}" for source in sources]
        _pip("wheel", "--no-deps", "--wheel-dir", temporary, *pip_arguments, *pinned)
        for wheel in Path(temporary).glob("*.whl"):
            if not wheel.name.endswith("-none-any.whl"):
                raise UserError(f"{wheel.name} was built for this machine: make the wheelhouse on a node of the site")
            shutil.copyfile(wheel, folder / wheel.name)


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-5:]
    raise MachineError("\n".join([f"pip {words[0]} failed", *errors]))
