"""What a check found: a warning, or a reason not to train here; and whose fault a refusal is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiftrain.errors import AiftrainError, MachineError, UserError

_SWITCH = "train.preflight_seconds=0 starts without these checks"
_NAMED = 8  # nodes that a message names; events.jsonl has them all


@dataclass(frozen=True)
class Finding:
    """One thing on one node. `fault` says who is to blame where there is no other node to compare with."""

    about: str
    host: str
    ranks: tuple[int, ...]
    found: str
    expected: str
    refuses: bool = False
    fault: Literal["node", "settings"] = "node"

    @property
    def same(self) -> tuple[str, str, str, bool]:
        """What findings on other nodes share with this one where they are the same thing."""
        return self.about, self.found, self.expected, self.refuses


@dataclass(frozen=True)
class Refusal:
    """Why the run does not start. `bad_nodes` is host -> reason; empty where the settings are at fault."""

    message: str
    bad_nodes: dict[str, str]
    exit_code: int

    def error(self) -> AiftrainError:
        return (UserError if self.exit_code == UserError.exit_code else MachineError)(self.message)


def refusal(findings: Iterable[Finding], hosts: Sequence[str]) -> Refusal | None:
    """What the refusals among `findings` add up to, on a job of `hosts`; None where there are none.

    A node is bad only where it differs from what the profile says or from its peers: what all of several nodes have
    in common is the configuration's fault.
    """
    refused = [finding for finding in findings if finding.refuses]
    if not refused:
        return None
    to_blame = [finding for finding in refused if _is_the_nodes(finding, refused, hosts)]
    told = "; ".join(_words(group) for group in grouped(to_blame or refused))
    return Refusal(
        message=f"the checks at the start refuse to train here: {told}. {_SWITCH}",
        bad_nodes={finding.host: f"{finding.about}: {finding.found}" for finding in to_blame},
        exit_code=MachineError.exit_code if to_blame else UserError.exit_code,
    )


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings that are the same thing on several nodes, together."""
    groups: dict[tuple[str, str, str, bool], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.same].append(finding)
    return list(groups.values())


def as_event(group: Sequence[Finding]) -> dict[str, Any]:
    """The fields of an event that tells of findings that are the same thing."""
    first = group[0]
    return {
        "about": first.about,
        "hosts": _hosts(group),
        "ranks": sorted(rank for finding in group for rank in finding.ranks),
        "found": first.found,
        "expected": first.expected,
    }


def name_ranks(ranks: Iterable[int]) -> str:
    """`rank 3`, or `ranks 0-7, 9`."""
    numbers = sorted(ranks)
    return f"rank{'s' * (len(numbers) > 1)} {runs_of(numbers)}"


def runs_of(numbers: Iterable[int]) -> str:
    """Numbers as taskset writes them: 0-3,8."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _is_the_nodes(finding: Finding, refused: Sequence[Finding], hosts: Sequence[str]) -> bool:
    if len(set(hosts)) == 1:
        return finding.fault == "node"
    return {other.host for other in refused if other.about == finding.about} != set(hosts)


def _words(group: Sequence[Finding]) -> str:
    first, names = group[0], _hosts(group)
    where = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    ranks = name_ranks(rank for finding in group for rank in finding.ranks)
    return f"{where} ({ranks}): {first.found}, where {first.expected} was expected"


def _hosts(group: Iterable[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.host for finding in group))
