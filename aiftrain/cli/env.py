"""`env`: the software of the ranks, locked, compared, fetched as wheels, packed into one file."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiftrain.cli import output
from aiftrain.errors import EXIT_FAILED, EXIT_OK, UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec

if TYPE_CHECKING:
    from rich.progress import Progress

    from aiftrain.run.env_lock import EnvLock, Software

_HELP = """\
lock RUN|OVERRIDE ...    write RUN/env.lock.json: what the ranks' own Python finds here, behind the
                         site's modules and in the container, and the SHA-256 of the image. From
                         then on ranks refuse to start with anything else; `lock` again accepts it
  --as-started           take what the ranks of the newest start found, where only nodes can run it
diff RUN [RUN]           a lock against what is here now, or against another run's (exit code 1: they differ)
wheelhouse FOLDER        fetch every wheel that a node needs, at the tested versions, and write
                         FOLDER/install.sh, which installs them where there is no network
  --extra NAME           train, mpi, parquet, sentencepiece; may be repeated
  --arch ARCH            x86_64 or aarch64 (default: this machine's)
  -- ARGUMENT ...        for pip: -- --index-url https://...
pack ARCHIVE             a virtual environment as one file, for launcher.env_archive=ARCHIVE:
                         .tar or .tar.zst is unpacked on a disk of each node by a Slurm job,
                         .sqsh is mounted in a Singularity or Apptainer container as /user-software
  --venv FOLDER          which environment (default: the one that runs this)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _HELP
    parser.add_argument("action", choices=["lock", "diff", "wheelhouse", "pack"], help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--as-started", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--extra", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--arch", choices=["x86_64", "aarch64"], default=platform.machine(), help=argparse.SUPPRESS)
    parser.add_argument("--venv", type=Path, default=Path(sys.prefix), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    if not options.words:
        raise UserError(f"env {options.action} of what? python -m aiftrain env --help says")
    actions = {"lock": _lock, "diff": _diff, "wheelhouse": _wheelhouse, "pack": _pack}
    return actions[options.action](options)


def _lock(options: argparse.Namespace) -> int:
    from aiftrain.launch.env_lock import ask_software, files, make_lock
    from aiftrain.run.env_lock import differences, read_environment, read_lock

    spec, folder = _run_of(options.words)
    software = read_environment(folder) if options.as_started else ask_software(spec, folder)
    total = sum(file.stat().st_size for file in files(spec).values())
    with _progress("reading", total, as_json=options.json) as read:
        lock = make_lock(spec, software, read)
    before = read_lock(folder)
    folder.write_json(folder.env_lock, lock.model_dump(mode="json"))
    changes = list(differences(before.software, software)) if before else []
    if options.json:
        output.print_json({"file": str(folder.env_lock), "changes": changes} | lock.model_dump(mode="json"))
        return EXIT_OK
    output.show(output.facts(_rows(lock)), output.console())
    _say(*(f"accepted: {change}" for change in changes), f"written to {folder.env_lock}")
    return EXIT_OK


def _diff(options: argparse.Namespace) -> int:
    from aiftrain.launch.env_lock import ask_software
    from aiftrain.run.env_lock import changed_files, differences

    folder, *others = map(RunFolder, options.words)
    locked = _locked(folder)
    if others:
        found = list(differences(locked.software, _locked(others[0]).software))
    else:
        found = [*differences(locked.software, ask_software(folder.read_spec(), folder)), *changed_files(locked)]
    if options.json:
        output.print_json({"run": str(folder.path), "differences": found})
    else:
        _say(*found or ["no difference"])
    return EXIT_FAILED if found else EXIT_OK


def _wheelhouse(options: argparse.Namespace) -> int:
    from aiftrain.launch.wheelhouse import make_wheelhouse

    folder = Path(options.words[0])
    wheels = make_wheelhouse(folder, options.arch, options.extra, options.words[1:])
    octets = sum(wheel.stat().st_size for wheel in wheels)
    if options.json:
        names = [wheel.name for wheel in wheels]
        output.print_json({"folder": str(folder), "arch": options.arch, "wheels": names, "bytes": octets})
    else:
        _say(f"{len(wheels)} wheels for {options.arch}, {output.size(octets)}. Bring {folder} to the site; there:")
        _say(f"  sh {folder.name}/install.sh VENV   (it needs Python 3.11 and no network)")
    return EXIT_OK


def _pack(options: argparse.Namespace) -> int:
    from aiftrain.launch.packing import check_venv, pack, ties

    archive = Path(options.words[0])
    check_venv(options.venv)
    total = sum(file.lstat().st_size for file in options.venv.rglob("*") if file.is_file() and not file.is_symlink())
    with _progress("packing", total, as_json=options.json) as packed:
        pack(options.venv, archive, packed)
    notes = list(ties(options.venv))
    if options.json:
        document = {"archive": str(archive), "venv": str(options.venv), "bytes": archive.stat().st_size}
        output.print_json(document | {"needs": notes})
    else:
        _say(
            f"{archive}: {options.venv} in {output.size(archive.stat().st_size)}", *(f"note: {note}" for note in notes)
        )
    return EXIT_OK


def _run_of(words: list[str]) -> tuple[RunSpec, RunFolder]:
    """A run folder as it is, or the run that overrides describe."""
    if len(words) == 1 and "=" not in words[0]:
        folder = RunFolder(words[0])
        return folder.read_spec(), folder
    from aiftrain.plan.spec import resolve

    spec = resolve(words)
    return spec, RunFolder(spec.run_folder)


def _locked(folder: RunFolder) -> EnvLock:
    from aiftrain.run.env_lock import read_lock

    lock = read_lock(folder)
    if lock is None:
        raise UserError(f"{folder.path} has no lock: python -m aiftrain env lock {folder.path} writes one")
    return lock


def _rows(lock: EnvLock) -> Iterator[tuple[str, str]]:
    software: Software = lock.software
    yield "Python", f"{software.python} ({software.implementation}, {software.machine}, glibc {software.glibc})"
    build = (f"{name} {value}" for name, value in software.torch.items() if name != "git_version")
    yield "torch", ", ".join(build).removeprefix("version ") or "none"
    yield "packages", f"{len(software.packages)}"
    yield "aiftrain", f"{software.aiftrain}, {_origin(lock)}"
    for what, file in lock.files.items():
        yield what, f"{file.path}, {output.size(file.bytes)}, SHA-256 {file.sha256}"


def _origin(lock: EnvLock) -> str:
    if lock.commit is None:
        return "from a wheel"
    return f"commit {lock.commit[:12]}{', with changes that are in no commit' if lock.changed else ''}"


def _say(*lines: str) -> None:
    for line in lines:
        output.console().print(line, markup=False, soft_wrap=True)


@contextmanager
def _progress(what: str, total: int, *, as_json: bool) -> Iterator[Any]:
    """A bar on a terminal; gives what is called with bytes that are done."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = output.console(as_json=as_json)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    bar: Progress
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda octets: bar.advance(task, octets)
