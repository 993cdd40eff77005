"""The nodes of a site: the profile of its hardware, with what the factory's `node` block says differs there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

Document = Mapping[str, Any]


def at_site(hardware: Document, factory: Document, kept: Collection[str] = ()) -> dict[str, Any]:
    """`hardware` as `factory` has it, its figures with the factory's sources; both as their files read.

    Figures that the block leaves null or empty stay those of the hardware, and so do the ones named in `kept`.
    """
    stated = {
        key: value for key, value in (factory.get("node") or {}).items() if value not in (None, []) and key not in kept
    }
    sources = {key: source for key, source in (hardware.get("provenance") or {}).items() if key not in stated}
    sources |= {key: source for key in stated if (source := _source(factory, key))}
    return {**hardware, **stated, "provenance": sources}


def _source(factory: Document, key: str) -> Any:
    sources = factory.get("provenance") or {}
    return sources.get(f"node.{key}") or sources.get("node")
