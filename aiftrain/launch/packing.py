"""`env pack`: a virtual environment as one file, which a job unpacks on its nodes or mounts in a container.

An environment moves to another folder as long as its Python is started as `bin/python -m`: the other programs in
`bin/` name the folder that they were made in, and ranks need none of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from aiftrain.errors import MachineError, UserError
from aiftrain.launch.archive import IMAGES, TARS


def pack(venv: Path, archive: Path, packed: Callable[[int], None] = lambda octets: None) -> None:
    """Write `archive` whole or not at all; its ending says what it is. `packed` hears of each file's bytes (of a tar).

    UserError for an ending that is none of TARS and IMAGES, or a folder that is no virtual environment; MachineError
    where it cannot be written.
    """
    check_venv(venv)
    if archive.resolve().is_relative_to(venv.resolve()):
        raise UserError(f"{archive} would lie in the environment that it is to hold")
    part = archive.with_name(f"{archive.name}.part")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        if archive.name.endswith(TARS):
            _tar(venv, part, packed, compressed=archive.name.endswith(".zst"))
        elif archive.name.endswith(IMAGES):
            _squashfs(venv, part)
        else:
            raise UserError(f"{archive}: name it {', '.join(f'NAME{ending}' for ending in TARS + IMAGES)}")
        part.replace(archive)
    except OSError as error:
        raise MachineError(f"cannot write {archive}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar of ours into an empty folder. UserError where it is none."""
    try:
        with archive.open("rb") as file:
            stream = zstandard.ZstdDecompressor().stream_reader(file) if archive.name.endswith(".zst") else file
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                # With links that lead out of it: Python's, to /usr. There are no filters before 3.11.4.
                tar.extractall(folder)
    except (OSError, tarfile.TarError, zstandard.ZstdError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}") from error


def check_venv(venv: Path) -> None:
    if not (venv / "pyvenv.cfg").is_file():
        raise UserError(f"{venv} is no virtual environment: it has no pyvenv.cfg. Name one with --venv")


def ties(venv: Path) -> Iterator[str]:
    """What a virtual environment needs from outside of itself, in words: a copy elsewhere needs it too."""
    settings = dict(_settings((venv / "pyvenv.cfg").read_text(encoding="utf-8")))
    yield f"its Python is that of {settings.get('home', 'nowhere')}, which every node or the image must have"
    if settings.get("include-system-site-packages") == "true":
        yield "packages that it lacks are those of that Python"
    for site in sorted(venv.glob("lib/python3*/site-packages")):
        yield from _editables(site)
        yield from _leads(venv, site)


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition("=")
        yield name.strip(), value.strip()


def _editables(site: Path) -> Iterator[str]:
    for file in sorted(site.glob("*.dist-info/direct_url.json")):
        origin = json.loads(file.read_text(encoding="utf-8"))
        if origin.get("dir_info", {}).get("editable"):
            name = file.parent.name.partition("-")[0]
            yield f"{name} is installed in place (pip install -e) and stays in {origin['url'].removeprefix('file://')}"


def _leads(venv: Path, site: Path) -> Iterator[str]:
    """The folders outside that .pth files name."""
    for file in sorted(site.glob("*.pth")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            folder = site / line.strip()
            is_code = line.startswith(("import ", "import\t", "#")) or not line.strip()
            if not is_code and not folder.resolve().is_relative_to(venv.resolve()):
                yield f"{file.name} leads to {folder}"


def _tar(venv: Path, part: Path, packed: Callable[[int], None], *, compressed: bool) -> None:
    def anyone(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        packed(member.size)
        return member

    with part.open("wb") as file:
        compressor = zstandard.ZstdCompressor(level=3, threads=-1)
        stream = compressor.stream_writer(file, closefd=False) if compressed else file
        with tarfile.open(fileobj=stream, mode="w|") as tar:
            for entry in sorted(venv.iterdir()):
                tar.add(entry, entry.name, filter=anyone)
        if compressed:
            stream.close()


def _squashfs(venv: Path, part: Path) -> None:
    if shutil.which("mksquashfs") is None:
        raise UserError("there is no mksquashfs here: install squashfs-tools, or pack where it is")
    command = ["mksquashfs", str(venv), str(part), "-noappend", "-no-xattrs", "-all-root", "-no-progress"]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        raise MachineError(f"mksquashfs: {(made.stderr or made.stdout).strip()}")
