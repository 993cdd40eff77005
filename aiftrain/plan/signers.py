"""The keys in policy.signed_by: a person names their files, and run.json holds their text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiftrain.errors import ConfigError, Problem, UserError


def with_keys(policy: Mapping[str, Any]) -> dict[str, Any]:
    """A composed `policy` with the text of its keys. ConfigError for one that is none, or cannot be read."""
    named = policy.get("signed_by")
    words = [named] if isinstance(named, str) else named
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return dict(policy)  # pydantic says what is wrong with it
    try:
        return dict(policy) | {"signed_by": [_text(word) for word in words]}
    except UserError as error:
        fits = "policy.signed_by=[FILE.pub], as `python -m aiftrain keys new FILE --for signing` writes one"
        raise ConfigError([Problem("policy.signed_by", str(error), fits)]) from error


def _text(word: str) -> str:
    from aiftrain.checkpoint.signing.keys import PublicKey

    given = word.lstrip().startswith("-----")
    key = PublicKey.parse(word.encode(), "what is given here") if given else PublicKey.read(Path(word))
    return key.pem.decode()
