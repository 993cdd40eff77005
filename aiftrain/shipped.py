"""Where conf/, recipes/ and launchers/ lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    for parent in (_PACKAGE / "shipped_files", _PACKAGE.parent):
        if (parent / name).is_dir():
            return parent / name
    raise FileNotFoundError(f"this installation of aiftrain lacks its folder {name}/: install it again")


def conf_dir() -> Path:
    """The Hydra groups."""
    return _folder("conf")


def recipes_dir() -> Path:
    """The recipes, one YAML file a run."""
    return _folder("recipes")


def launchers_dir() -> Path:
    """The shell bodies of the launchers."""
    return _folder("launchers")
