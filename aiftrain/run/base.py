"""The base of every model in a spec: frozen, and closed to unknown keys."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Confidence = Literal["documented", "documented-3rd-party", "user-config", "announced", "inferred", "measured"]


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Provenance(Strict):
    """Where a figure comes from: `source` (page, paper or file), `date` it was read (ISO), how sure it is."""

    source: str
    date: str
    confidence: Confidence
    note: str = ""
