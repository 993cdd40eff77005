"""The software that a Python process runs with: its version, all installed packages, torch's build, our own code.

Standard library only, so that any Python can be asked, in a container too: `python -m aiftrain.run.software`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import aiftrain

_PACKAGE = Path(aiftrain.__file__).resolve().parent
_TORCH_FACTS = ("__version__", "cuda", "hip", "git_version")  # of torch/version.py


def software(*, code: bool = True) -> dict[str, object]:
    """What `aiftrain.run.env_lock.Software` holds. Without `code` no file of this package is read for its digest.

    Opens no file but torch/version.py otherwise: on a shared file system, packages cost a list of a folder each.
    """
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "machine": platform.machine(),
        "glibc": platform.libc_ver()[1] or None,
        "torch": torch_build(),
        "packages": installed_packages(),
        "aiftrain": aiftrain.__version__,
        "code": code_digest() if code else None,
    }


def installed_packages() -> dict[str, str]:
    """Normalized name -> version of all that stands on this process's path; where a name is twice, what it imports.

    From the names of .dist-info and .egg-info folders, which hold both: their METADATA is not read. This package is
    left out, which `code_digest` knows better.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        for name, version in _packages_in(Path(folder)):
            found.setdefault(name, version)
    found.pop("aiftrain", None)
    return dict(sorted(found.items()))


def torch_build() -> dict[str, str]:
    """Version, CUDA or HIP version and commit of torch, which is not imported; empty where there is none."""
    file = next((file for folder in sys.path if (file := Path(folder, "torch", "version.py")).is_file()), None)
    if file is None:
        return {}
    facts: dict[str, str] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id in _TORCH_FACTS and isinstance(value, ast.Constant):
            facts |= {target.id.strip("_"): str(value.value)} if value.value is not None else {}
    return facts


def code_digest() -> str:
    """SHA-256 of the names and texts of this package's Python files: the same in a checkout and in its wheel."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        text = file.read_bytes()
        digest.update(f"{file.relative_to(_PACKAGE).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def _packages_in(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".dist-info", ".egg-info"))
    except OSError:  # a zip file, or a folder that is not there
        return
    for name in names:
        package, _, version = re.sub(r"(-py3\.\d+)?\.[a-z]+-info$", "", name).partition("-")
        if version:
            yield re.sub(r"[-_.]+", "-", package).lower(), version


if __name__ == "__main__":
    print(json.dumps(software()))
