"""Every error that a person may see, and the exit code it ends the program with.

    AiftrainError          1   something failed
    +-- UserError          2   the user asked for something impossible
    |   +-- ConfigError    2   a configuration with one or more problems, all of them listed
    +-- MachineError       1   the machine's fault: a full disk, a read-only folder, a dead rank
    |   +-- DamagedError   1   a stored file is not what was written
    +-- StoppedEarly      75   the run was asked to stop, has saved, and wants to be resumed

A message says what was found, where, and what would fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USER = 2
EXIT_RESUME = 75  # EX_TEMPFAIL of sysexits.h: what schedulers and our own chains take as "queue me again"


class AiftrainError(Exception):
    """Anything that ends the program with a message instead of a traceback."""

    exit_code = EXIT_FAILED


class UserError(AiftrainError):
    """The user asked for something that cannot be done."""

    exit_code = EXIT_USER


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration: `where` (a dotted key), `found`, and what would fit."""

    where: str
    found: str
    fits: str = ""

    def __str__(self) -> str:
        advice = f"\n      {self.fits}" if self.fits else ""
        return f"{self.where}: {self.found}{advice}"


class ConfigError(UserError):
    """All problems of one configuration, shown together so that they can be mended together."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        super().__init__(f"{head} in the configuration\n" + "\n".join(f"  - {p}" for p in self.problems))


class MachineError(AiftrainError):
    """The configuration is fine; the machine could not do it."""


class DamagedError(MachineError):
    """A stored file does not hold what was written to it."""


class StoppedEarly(AiftrainError):
    """The run saved its state and left before its end; starting it again goes on."""

    exit_code = EXIT_RESUME
