"""The main job as its user types it: train, interrupt, go on, sample, verify, export, and load elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.data.tokenizer import load_tokenizer
from aiftrain.report.metrics import read_metrics
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.train.sample import load_model

ROOT = Path(__file__).resolve().parent.parent
SHORT = (
    "train.steps=60",
    "model.hidden_size=64",
    "model.intermediate_size=128",
    "model.num_layers=2",
    "train.evaluate_every=30",
    "storage.save_every=20",
    "parallelism=zero2",
    "launcher.ranks_per_node=2",
    "train.micro_batch=2",
)


def aiftrain(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "aiftrain", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate(timeout=840)
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def trained(work: Path) -> RunFolder:
    """A short smoke run on two ranks, interrupted once as Ctrl-C does it, then gone on with to its end."""
    folder = RunFolder(work / "first")
    command = ("recipe=smoke", "run_dir=first", *SHORT)
    process = aiftrain(work, *command)
    deadline = time.monotonic() + 120
    while not any(record["step"] >= 5 for record in read_lines(folder.metrics)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process, code=75)
    assert "python -m aiftrain recipe=smoke" in output
    saved = Catalog(folder.checkpoints).latest()
    assert saved is not None and 5 <= saved.step < 60
    finish(aiftrain(work, *command))
    (resumed,) = [event for event in read_lines(folder.events) if event["event"] == "resume"]
    assert resumed["step"] == saved.step
    return folder


def test_the_loss_falls_below_that_of_a_unigram_model_of_what_it_reads(trained: RunFolder) -> None:
    steps = [record for record in read_lines(trained.metrics) if "loss" in record]
    assert [record["step"] for record in steps] == list(range(1, 61))
    assert steps[-1]["loss"] < steps[0]["loss"] - 1
    assert trained.picture.stat().st_size > 10_000
    assert any(trained.wandb.glob("offline-run-*"))


def test_a_finished_run_is_not_started_again(trained: RunFolder, work: Path) -> None:
    output = finish(aiftrain(work, "recipe=smoke", "run_dir=first", *SHORT))
    assert "finished" in output
    assert trained.last_attempt() == 2


def test_another_run_is_refused_in_the_same_folder(trained: RunFolder, work: Path) -> None:
    output = finish(aiftrain(work, "recipe=smoke", "run_dir=first", *SHORT, "optimizer.lr=1"), code=2)
    assert "optimizer.lr" in output and "run_dir" in output
    assert trained.last_attempt() == 2


def test_sample_continues_a_prompt(trained: RunFolder, work: Path) -> None:
    output = finish(aiftrain(work, "sample", "first", "The function returns", "--json"))
    answer = json.loads(output)
    assert answer["prompt"] == "The function returns"
    assert answer["continuation"].strip()


def test_verify_finds_a_flipped_byte_and_names_the_file(trained: RunFolder, work: Path) -> None:
    finish(aiftrain(work, "checkpoints", "verify", "first"))
    shard = trained.checkpoints / "step-00000060" / "rank-00001.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
    try:
        output = finish(aiftrain(work, "checkpoints", "verify", "first"), code=1)
        assert "rank-00001.safetensors" in output
        assert "rank-00001.safetensors" in finish(aiftrain(work, "sample", "first", "The"), code=1)
    finally:
        shard.write_bytes(whole)


def test_the_export_gives_the_same_logits_in_transformers(trained: RunFolder, work: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    finish(aiftrain(work, "checkpoints", "export", "first", "--out", "exported"))
    theirs = AutoModelForCausalLM.from_pretrained(work / "exported", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(work / "exported")
    corpus = json.loads(trained.data_json.read_text(encoding="utf-8"))
    own = load_tokenizer(Path(corpus["tokenizer"]["path"]))
    text = "def größer(a, b):\n    return a > b  # plus grand, większy"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == own.encode(text)
    tokens = torch.tensor([own.encode(text)])
    entry = Catalog(trained.checkpoints).latest()
    assert entry is not None
    with torch.no_grad():
        ours = load_model(trained.read_spec(), entry)(tokens)
        torch.testing.assert_close(theirs(tokens).logits, ours, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_smoke_recipe_beats_a_unigram_model_in_three_minutes(tmp_path: Path) -> None:
    started = time.monotonic()
    finish(aiftrain(tmp_path, "recipe=smoke", "run_dir=smoke"))
    seconds = time.monotonic() - started
    folder = RunFolder(tmp_path / "smoke")
    unigram = json.loads(folder.data_json.read_text(encoding="utf-8"))["sources"]
    (validation,) = [r["validation"] for r in read_lines(folder.metrics) if "validation" in r][-1:]
    assert {name: validation[name] < unigram[name]["unigram_loss"] - 1 for name in unigram} == dict.fromkeys(
        unigram, True
    )
    assert seconds < 180
    assert read_metrics(folder)
