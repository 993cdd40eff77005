"""Where conf/, recipes/, launchers/ and constraints.txt lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    for parent in (_PACKAGE / "shipped_files", _PACKAGE.parent):
        if (parent / name).exists():
            return parent / name
    raise FileNotFoundError(f"this installation of aiftrain lacks its {name}: install it again")


def conf_dir() -> Path:
    """The Hydra groups."""
    return _shipped("conf")


def recipes_dir() -> Path:
    """The recipes, one YAML file a run."""
    return _shipped("recipes")


def launchers_dir() -> Path:
    """The shell bodies of the launchers."""
    return _shipped("launchers")


def constraints_file() -> Path:
    """Every version that the tests ran with, as pip's -c takes it."""
    return _shipped("constraints.txt")


def checkout() -> Path | None:
    """The root of the checkout that this package comes from; None where it comes from a wheel."""
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "conf").is_dir() else None
