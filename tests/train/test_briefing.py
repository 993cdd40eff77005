"""Rank 0's briefing, told over a real store: it arrives whole, and so does an error."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed

from aiftrain.cli.run_folder import write_run
from aiftrain.data.corpus import PreparedCorpus, PreparedTokenizer
from aiftrain.errors import AiftrainError, ConfigError, DamagedError, MachineError, Problem, UserError
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder
from aiftrain.train.briefing import Briefing, hear, pack, tell, unpack


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder as `launch` leaves it."""
    folder, spec = RunFolder(tmp_path), resolve(["recipe=smoke", f"run_dir={tmp_path}", "seed=4"])
    tokenizer = PreparedTokenizer(path=tmp_path, digest="", vocab_size=8, eos_id=0)
    corpus = PreparedCorpus(name="größe", tokenizer=tokenizer, sources={}, unigram_loss=1 / 3, digest="")
    folder.write_json(folder.data_json, corpus.model_dump(mode="json"))
    write_run(folder, spec, make_plan(spec))
    return folder


def test_a_briefing_arrives_as_it_was_read(folder: RunFolder) -> None:
    briefing = Briefing.read(folder)
    assert briefing.spec == folder.read_spec()
    assert briefing.deepspeed == json.loads(folder.deepspeed_json.read_text(encoding="utf-8"))
    told = unpack(pack(briefing))
    assert told == briefing
    assert isinstance(told, Briefing) and told.spec.digest == briefing.spec.digest


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UserError("größer als erlaubt\nzwei Zeilen"), UserError),
        (ConfigError([Problem("seed", "is 4")]), UserError),
        (DamagedError("damaged"), MachineError),
    ],
)
def test_rank_0_waits_until_all_have_heard_of_its_error(error: AiftrainError, kind: type[AiftrainError]) -> None:
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(4) as threads:
        teller = threads.submit(tell, store, error)
        assert not teller.done()
        listeners = [threads.submit(hear, store, 3) for _ in range(3)]
        for listener in listeners:
            with pytest.raises(kind) as heard:
                listener.result(30)
            assert (str(heard.value), heard.value.exit_code) == (str(error), error.exit_code)
        with pytest.raises(type(error)) as told:
            teller.result(30)
    assert told.value is error


@pytest.mark.parametrize("missing", ["plan_json", "data_json", "deepspeed_json"])
def test_a_missing_file_is_named(folder: RunFolder, missing: str) -> None:
    getattr(folder, missing).unlink()
    with pytest.raises(UserError, match=f"{missing.replace('_', '.')} is missing"):
        Briefing.read(folder)


def test_a_plan_of_another_version_is_told(folder: RunFolder) -> None:
    folder.write_json(folder.plan_json, {"execution": {"precision": "fp8"}})
    with pytest.raises(UserError, match=f"{folder.path} holds a plan or data of another aiftrain"):
        Briefing.read(folder)
