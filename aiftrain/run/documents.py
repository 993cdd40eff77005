"""Reading a JSON document that another part of aiftrain wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from aiftrain.errors import MachineError, UserError

T = TypeVar("T", bound=BaseModel)


def read_document(file: Path, model: type[T], lacking: str) -> T:
    """The model in `file`. UserError where it is not there, with the message `lacking`, or is another aiftrain's."""
    try:
        return model.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise UserError(lacking) from None
    except OSError as error:
        raise MachineError(f"cannot read {file}: {error.strerror}") from error
    except ValidationError as error:
        raise UserError(f"{file} is of another aiftrain, or damaged: {error}") from error
