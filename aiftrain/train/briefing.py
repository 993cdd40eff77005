"""What a rank must know before it begins. Rank 0 reads it in the run folder and tells the others.

Thousands of ranks that open the same four files at the same moment are a burden on the metadata server of a shared file
system. They have to find rank 0 anyway, at the store where the process group comes together: the briefing goes over
that store, as compressed JSON. Where rank 0 cannot read it, its error goes there instead, and ends every rank alike.
"""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch.distributed import DistError
from torch.distributed.distributed_c10d import Store

from aiftrain.checkpoint.digested import first_fault
from aiftrain.data.corpus import PreparedCorpus
from aiftrain.errors import AiftrainError, MachineError, UserError
from aiftrain.run.base import Strict
from aiftrain.run.env_lock import EnvLock, read_lock
from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import Execution
from aiftrain.run.spec import RunSpec

_BRIEFING, _HEARD, _ALL_HEARD = "aiftrain/briefing", "aiftrain/heard", "aiftrain/all-heard"
_PATIENCE = timedelta(seconds=60)  # rank 0 stays so long for the others to hear of its error: the store ends with it


class Briefing(Strict):
    """What run.json, plan.json, data.json, deepspeed.json and, where there is one, env.lock.json say to a rank.

    `corpus` is None where the ranks do not train.
    """

    spec: RunSpec
    execution: Execution
    corpus: PreparedCorpus | None
    deepspeed: dict[str, Any]
    env_lock: EnvLock | None = None

    @classmethod
    def read(cls, folder: RunFolder) -> Briefing:
        """From a run folder. UserError where one of its files is missing or cannot be understood."""
        spec = folder.read_spec()
        plan, corpus, engine = map(_read, (folder.plan_json, folder.data_json, folder.deepspeed_json))
        try:
            return cls(
                spec=spec,
                execution=Execution.model_validate(plan.get("execution")),
                corpus=PreparedCorpus.model_validate(corpus) if spec.purpose == "train" else None,
                deepspeed=engine,
                env_lock=read_lock(folder),
            )
        except ValidationError as error:
            reason = first_fault(error)
            raise UserError(f"{folder.path} holds a plan or data of another aiftrain than this: {reason}") from error


def tell(store: Store, outcome: Briefing | AiftrainError) -> Briefing:
    """Rank 0's part: tell the others what was read, or raise what went wrong once they have heard of it."""
    store.set(_BRIEFING, pack(outcome))  # type: ignore[arg-type]  # it takes bytes, and `get` gives them
    if isinstance(outcome, AiftrainError):
        with suppress(DistError):  # who has not come by then learns nothing more from waiting
            store.wait([_ALL_HEARD], _PATIENCE)
        raise outcome
    return outcome


def hear(store: Store, listeners: int) -> Briefing:
    """The part of each of the `listeners` other ranks: the briefing, or rank 0's error raised."""
    try:
        outcome = unpack(store.get(_BRIEFING))
    except DistError as error:
        reason = str(error).partition("\n")[0]
        raise MachineError(f"waited in vain for another rank: 0 has not said what the run is: {reason}") from error
    if isinstance(outcome, AiftrainError):
        if store.add(_HEARD, 1) == listeners:
            store.set(_ALL_HEARD, "")
        raise outcome
    return outcome


def pack(outcome: Briefing | AiftrainError) -> bytes:
    """Compressed JSON. Of an error its exit code and its message."""
    if isinstance(outcome, AiftrainError):
        return zlib.compress(json.dumps({"exit_code": outcome.exit_code, "message": str(outcome)}).encode())
    return zlib.compress(outcome.model_dump_json().encode())


def unpack(told: bytes) -> Briefing | AiftrainError:
    """What `pack` was given; an error as a UserError or a MachineError."""
    document = json.loads(zlib.decompress(told))
    if "exit_code" in document:
        kind = UserError if document["exit_code"] == UserError.exit_code else MachineError
        return kind(document["message"])
    return Briefing.model_validate(document)


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing: start the run with `python -m aiftrain`, which writes it") from error
    except OSError as error:
        raise MachineError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{file} is no valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise UserError(f"{file} holds no JSON object")
    return document
