"""`plan --points`: one answer a row, as JSON and as a table; a file that is no table is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from tests.cli.program import aiftrain
from tests.plan.throughput.rows import ROW, row

NEEDED = {"id", "tokens_per_s_per_gpu", "tflops_per_gpu", "memory_gib", "fits", "why"}


def table(path: Path, rows: Sequence[dict[str, str]]) -> str:
    file = path / "table.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ROW)
        writer.writeheader()
        writer.writerows(rows)
    return str(file)


def test_programs_get_a_list_of_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = table(tmp_path, [row(id="a"), row(id="b", gpus="many"), row(id="a")])
    assert main(["plan", "--points", file, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["id"] for answer in answers] == ["a", "b", "a"]
    assert all(set(answer) >= NEEDED for answer in answers)
    assert answers[0] == answers[2]
    assert answers[0]["why"] is None
    assert answers[0]["tokens_per_s_per_gpu"] > 0
    assert answers[1]["why"] == "gpus is 'many': a number is expected"
    assert answers[1]["tokens_per_s_per_gpu"] is None
    assert answers[1]["fits"] is None


def test_people_get_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = table(tmp_path, [row(id="a"), row(id="b", seq=""), row(id="c", hardware="abacus")])
    assert main(["plan", "--points", file]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "2 of 3 rows predicted" in told
    assert "assumed: sequences of 4,096 tokens" in told
    assert "abacus" in told
    assert "None" not in told


def test_a_table_without_rows_has_no_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = table(tmp_path, [])
    assert main(["plan", "--points", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("name", ["nowhere.csv", "."])
def test_what_is_no_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["plan", "--points", str(tmp_path / name)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_it_stands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "recipe=smoke", "--points", table(tmp_path, [row()])]) == 2
    assert "stand alone" in capsys.readouterr().err


def test_it_needs_no_torch(tmp_path: Path) -> None:
    done = aiftrain("plan", "--points", table(tmp_path, [row()]), "--json", cwd=tmp_path, blocked=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["id"] == "one"
