"""The run folder: the one class that knows the file names in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aiftrain.errors import MachineError, UserError
from aiftrain.run.durable import replace_text
from aiftrain.run.spec import FORMAT, RunSpec


class RunFolder:
    """A run on disk. Files are replaced whole, never half-written."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.run_json = self.path / "run.json"
        self.plan_json = self.path / "plan.json"
        self.data_json = self.path / "data.json"
        self.deepspeed_json = self.path / "deepspeed.json"
        self.job_sh = self.path / "job.sh"
        self.jobs = self.path / "jobs.jsonl"
        self.metrics = self.path / "metrics.jsonl"
        self.events = self.path / "events.jsonl"
        self.logs = self.path / "logs"
        self.ship_egress = self.logs / "ship.egress.jsonl"
        self.lock = self.path / "lock"
        self.env_lock = self.path / "env.lock.json"
        self.picture = self.path / "loss.png"
        self.bench_cases = self.path / "bench.cases.json"
        self.bench_json = self.path / "bench.json"
        self.bench_html = self.path / "bench.html"
        self.profile = self.path / "profile"
        self.profile_json = self.profile / "profile.json"
        self.wandb = self.path / "wandb"
        self.checkpoints = self.path / "checkpoints"

    def attempt_logs(self, attempt: int) -> Path:
        """The folder of one start's logs."""
        return self.logs / f"attempt-{attempt:03d}"

    def egress(self, attempt: int, rank: int) -> Path:
        """Whom one rank spoke to in one start."""
        return self.attempt_logs(attempt) / f"rank-{rank:05d}.egress.jsonl"

    def egress_files(self) -> list[Path]:
        """Of all ranks in all starts, and of the shipper."""
        return [*sorted(self.logs.glob("attempt-*/*.egress.jsonl")), self.ship_egress]

    def environment(self, attempt: int) -> Path:
        """What one start's rank 0 ran with."""
        return self.attempt_logs(attempt) / "environment.json"

    def last_attempt(self) -> int:
        """The number of the newest start, 0 where there was none."""
        numbers = [path.name.removeprefix("attempt-") for path in self.logs.glob("attempt-[0-9]*")]
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    def read_spec(self) -> RunSpec:
        """The run's spec; UserError where the folder is none of ours or from another format."""
        try:
            if not self.run_json.is_file():
                raise UserError(f"{self.path} is no run folder: it has no run.json")
            document = json.loads(self.run_json.read_text(encoding="utf-8"))
            if document.get("format") != FORMAT:
                raise UserError(
                    f"{self.run_json} has format {document.get('format')}; this aiftrain reads format {FORMAT}"
                )
            return RunSpec.model_validate(document)
        except (ValueError, ValidationError) as error:
            raise UserError(f"{self.run_json} cannot be read as a run: {error}") from error
        except OSError as error:
            raise MachineError(f"cannot read {self.run_json}: {error.strerror}") from error

    def write(self, file: Path, text: str) -> None:
        """Replace `file` with `text`, durably and in one move."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_text(file, text)
        except OSError as error:
            raise MachineError(f"cannot write {file}: {error.strerror}") from error

    def write_json(self, file: Path, document: object) -> None:
        self.write(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def append_line(file: Path, record: dict[str, Any]) -> None:
    """Add one JSON line. A line that a crash left unfinished is closed off first, so that it spoils no other."""
    try:
        with file.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")
            stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise MachineError(f"cannot write {file}: {error.strerror}") from error


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a .jsonl file; lines that a crash cut short are passed over."""
    if not file.is_file():
        return
    with file.open("rb") as stream:
        for line in stream:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record
