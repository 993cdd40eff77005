"""Commands of a scheduler: asked with a time limit, so that one that hangs never hangs us."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from aiftrain.errors import MachineError

Answer = subprocess.CompletedProcess[str]


def ask(
    command: Sequence[str], *, patience: float, folder: Path | None = None, reads: str = "", then: str = ""
) -> Answer:
    """What `command` said and its exit code, called in `folder`, with the text that it `reads`.

    Raises MachineError where it cannot be started, or gives no answer in `patience` seconds; `then` is what to do in
    that case.
    """
    try:
        return subprocess.run(
            command,
            cwd=folder,
            input=reads,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=patience,
        )
    except subprocess.TimeoutExpired as error:
        what_now = f"; {then}" if then else ""
        raise MachineError(f"{command[0]} gave no answer in {patience} s{what_now}") from error
    except OSError as error:
        raise MachineError(f"{command[0]} cannot be started: {error.strerror}") from error
