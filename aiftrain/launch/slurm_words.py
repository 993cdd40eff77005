"""What Slurm's words mean: whose fault a refusal is, and what can be done about it."""

from __future__ import annotations

import getpass
import re
import shutil

from aiftrain.errors import AiftrainError, MachineError, UserError
from aiftrain.run.asking import ask

_PATIENCE = 5  # seconds that a question may take which is asked only to say more
_PROGRAM = re.compile(r"^(sbatch|srun|squeue|sinfo|scancel|scontrol|sacctmgr|sacct): (error: |fatal: )?")
_MACHINES_FAULT = (  # as clients of Slurm say it
    *("Unable to contact slurm controller", "Socket timed out", "Connection refused", "authentication", "Munge"),
    *("Unable to process configuration file", "configuration source", "Zero Bytes were transmitted"),
)


def plain(words: str) -> str:
    """Without the name of the program before each line, and each line once."""
    return "\n  ".join(dict.fromkeys(_PROGRAM.sub("", line.strip()) for line in words.splitlines() if line.strip()))


def why_silent(words: str) -> str | None:
    """Where these words say that Slurm does not work: why, in one line. None where they are its answer."""
    if not any(fault in words for fault in _MACHINES_FAULT):
        return None
    lines = [line.strip() for line in plain(words).splitlines()]
    munge = [line for line in lines if line.startswith("Munge")]
    if munge:
        return f"munge, by which Slurm knows who asks, does not work on this host: {munge[0]}"
    return f"Slurm does not answer: {lines[-1]}"


def silence(words: str) -> MachineError | None:
    """The error to raise in a launch, where these words say that Slurm does not work."""
    why = why_silent(words)
    later = "when Slurm answers again, the same command submits the job, or finds it if it came through"
    return MachineError(f"{why}\n      {later}") if why else None


def refusal(words: str) -> AiftrainError:
    """The error to raise for what sbatch said."""
    known = _accounts() if "account" in words.lower() else ""
    return silence(words) or UserError(f"sbatch refused the job: {plain(words)}{known}")


def _accounts() -> str:
    """The accounts that this user may name; nothing where Slurm does not tell."""
    words = ("sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={getpass.getuser()}")
    if shutil.which("sacctmgr") is None:
        return ""
    try:
        answer = ask((*words, "format=account"), patience=_PATIENCE)
    except MachineError:
        return ""
    names = sorted(set(answer.stdout.split())) if answer.returncode == 0 else []
    return f"\n      Slurm knows these accounts of yours: {', '.join(names)}" if names else ""
