"""A job shown to Slurm and not submitted: `sbatch --test-only` says when it would start, or why it never will."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from aiftrain.errors import MachineError, UserError
from aiftrain.launch.slurm_words import plain, refusal
from aiftrain.run.asking import ask

_PATIENCE = 15  # seconds


@dataclass(frozen=True)
class Trial:
    """Slurm's words; `refused` where sbatch would refuse the job."""

    words: str
    refused: bool = False


def try_job(command: Sequence[str], script: str) -> Trial | None:
    """What sbatch says of job.sh with the text `script`, whose last word in `command` is its name. None: no sbatch."""
    if shutil.which(command[0]) is None:
        return None
    try:
        answer = ask((*command[:-1], "--test-only"), patience=_PATIENCE, reads=script)
    except MachineError as error:
        return Trial(str(error))
    if answer.returncode == 0:
        return Trial(plain(answer.stderr))
    told = refusal(answer.stderr)
    return Trial(str(told), refused=isinstance(told, UserError))
