"""The egress record, as it is written by many and read as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.errors import MachineError
from aiftrain.run.contacts import Contact, Record, read_contacts

STORE = Contact("python", "tcp", "store.example.eu", "192.0.2.5", 443, "policy.checkpoints")
STRANGER = Contact("native", "tcp", None, "192.0.2.6", 443, None, "forbidden")


def test_each_contact_is_two_lines_however_often_it_is_seen(tmp_path: Path) -> None:
    record = Record(tmp_path / "rank-00000.egress.jsonl")
    for _ in range(1000):
        record.note(STORE)
    assert len(record.file.read_text().splitlines()) == 1
    record.close()
    assert len(record.file.read_text().splitlines()) == 2
    [seen] = read_contacts([record.file])
    assert seen.contact == STORE and seen.first < seen.last


def test_the_records_of_all_ranks_are_one_with_what_is_forbidden_first(tmp_path: Path) -> None:
    records = [Record(tmp_path / f"rank-0000{rank}.egress.jsonl") for rank in range(2)]
    for record in records:
        record.note(STORE)
    records[1].note(STRANGER)
    with records[0].file.open("a") as stream:
        stream.write('{"process": "of another version", "first": 1, "last": 2}\n{"proc')  # killed as it wrote
    found = read_contacts([*(record.file for record in records), tmp_path / "ship.egress.jsonl"])
    assert [seen.contact for seen in found] == [STRANGER, STORE]
    assert found[1].writers == {"rank-00000", "rank-00001"}


def test_what_could_not_be_written_is_tried_again(tmp_path: Path) -> None:
    record = Record(tmp_path / "not" / "there.jsonl")
    for _ in range(2):
        with pytest.raises(MachineError, match="cannot write"):
            record.note(STORE)
    record.file.parent.mkdir()
    record.note(STORE)
    assert [seen.contact for seen in read_contacts([record.file])] == [STORE]
