"""storage.seal takes public keys without typing errors, and never repeats a secret one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from aiftrain.run.seal import SealSpec, check_recipient
from aiftrain.run.spec import RunSpec
from tests.conftest import small_spec

KEY = "age1s9jzt4en27zf446958sg3473d0tcvns95pva7l7rwy0kwwzt9v3q5nslek"


def message(values: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as refusal:
        SealSpec.model_validate(values)
    return refusal.value.errors()[0]["msg"]


def test_one_key_or_several() -> None:
    assert SealSpec.model_validate({"where": "archives", "recipients": KEY}).recipients == (KEY,)
    assert SealSpec().where == "none"
    assert "twice" in message({"recipients": [KEY, KEY]})


def test_a_seal_that_nobody_could_open_is_refused() -> None:
    assert "nobody could open it" in message({"where": "archives"})


def test_every_single_wrong_letter_is_found() -> None:
    for place in range(4, len(KEY)):
        wrong = "q" if KEY[place] != "q" else "p"
        with pytest.raises(ValueError, match="typing error"):
            check_recipient(KEY[:place] + wrong + KEY[place + 1 :])


@pytest.mark.parametrize("word", ["", "age1", KEY[:-1], KEY + "q", KEY.upper(), "ssh-ed25519 AAAA"])
def test_other_words_are_no_keys(word: str) -> None:
    with pytest.raises(ValueError, match="is no age public key"):
        check_recipient(word)


def test_a_secret_key_is_refused_and_not_repeated() -> None:
    secret = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQ"
    for given in (secret, [secret], [secret.lower()]):
        told = message({"recipients": given})
        assert "this is a secret key" in told
        assert "QQQQ" not in told.upper()


def test_one_recipient_is_warned_of() -> None:
    other = "age1" + "q" * 58
    assert "when it is lost, all is" in (SealSpec(where="archives", recipients=(KEY,)).warning or "")
    assert SealSpec().warning is None and SealSpec(recipients=(KEY,)).warning is None
    assert SealSpec.model_construct(where="archives", recipients=(KEY, other)).warning is None


def test_it_is_a_part_of_storage_and_decides_no_number() -> None:
    plain = small_spec()
    assert plain.storage.seal == SealSpec()
    storage = plain.storage.model_copy(update={"seal": SealSpec(where="archives", recipients=(KEY,))})
    sealed = plain.model_copy(update={"storage": storage})
    assert (sealed.digest, sealed.lineage) == (plain.digest, plain.lineage)
    assert RunSpec.model_validate_json(sealed.model_dump_json()) == sealed
