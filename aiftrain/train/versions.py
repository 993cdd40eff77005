"""Which libraries made a checkpoint."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("aiftrain", "torch", "deepspeed", "numpy", "tokenizers")


@cache  # 34 ms, and every checkpoint names them
def library_versions() -> dict[str, str]:
    """Library -> version; a library that is not installed as a package is left out."""
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions
