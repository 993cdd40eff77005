"""What a team was granted: the access mode, its sizes as the calls publish them, and what the team really got."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from aiftrain.run.base import Provenance, Strict

DAYS_A_MONTH = 365.25 / 12


class AccessSize(Strict):
    """The least and the most that one project may ask for, in the mode's unit."""

    minimum: float | None = Field(None, ge=0)
    maximum: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> AccessSize:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:,.0f} is more than maximum {self.maximum:,.0f}")
        return self


class AccessSpec(AccessSize):
    """An access mode. With `sites` it is offered at those factories only; a size given there is that site's own."""

    name: str
    title: str = ""
    unit: Literal["GPU-hour", "node-hour"] | None = None
    months: tuple[int, ...] = ()  # how long an allocation may last: one of these
    sites: dict[str, AccessSize] = {}
    granted: float | None = Field(None, gt=0)  # what this team was given, in the site's own billing unit
    gpu_hours_per_node_hour: float | None = Field(None, gt=0)  # as the grant counts them; None: as the site bills
    start: date | None = None
    end: date | None = None
    provenance: dict[str, Provenance] = {}

    @model_validator(mode="after")
    def _ends_after_start(self) -> AccessSpec:
        if self.start and self.end and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self

    def size_at(self, factory: str) -> AccessSize | None:
        """What one project may ask for at `factory`; None where the mode is not offered there."""
        if not self.sites:
            return self
        site = self.sites.get(factory)
        if site is None:
            return None
        return AccessSize(
            minimum=self.minimum if site.minimum is None else site.minimum,
            maximum=self.maximum if site.maximum is None else site.maximum,
        )

    @property
    def days(self) -> float | None:
        """How long the allocation lasts: from `start` to `end` where both are given, else the longest duration."""
        if self.start and self.end:
            return float((self.end - self.start).days)
        return max(self.months) * DAYS_A_MONTH if self.months else None
