"""The command line as a whole: verbs, exit codes, --json, and that no mistake ends in a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aiftrain import __version__
from aiftrain.cli.main import main
from aiftrain.cli.verbs import VERBS
from tests.cli.program import ROOT, aiftrain

WRONG = {
    "unknown verb": (["plna", "recipe=smoke"], "did you mean plan?"),
    "unknown option": (["plan", "recipe=smoke", "--jsno"], "unrecognized arguments: --jsno"),
    "option without its value": (["recipe=smoke", "--cfg"], "--cfg"),
    "resolve alone": (["recipe=smoke", "--resolve"], "--resolve goes with --cfg job"),
    "cfg of a sweep": (["recipe=smoke", "-m", "seed=1,2", "--cfg", "job"], "leave out -m"),
    "no recipe": (["launch"], "no recipe is chosen"),
    "misspelt key": (["recipe=smoke", "train.step=1"], "did you mean train.steps?"),
    "no account": (["recipe=eu-llm-1b", "factory=lumi"], "account: lumi takes no job without one"),
    "no data": (["data", "prepare", "recipe=eu-llm-1b", "factory=lumi"], "data.root: not set"),
    "data does what": (["data", "erase", "recipe=smoke"], "invalid choice: 'erase'"),
    "no such run": (["checkpoints", "list", "nowhere"], "there is no folder nowhere"),
    "no such run to sample": (["sample", "nowhere", "text"], "nowhere is no run folder"),
    "no text to sample": (["sample", "nowhere"], "required: text"),
    "no tokens to sample": (["sample", "nowhere", "text", "--tokens", "0"], "--tokens and --top-k are at least 1"),
    "no number to sample with": (["sample", "nowhere", "text", "--temperature", "nan"], "--temperature is a number"),
    "no seed to sample with": (["sample", "nowhere", "text", "--seed", str(2**64)], "--seed is at least 0"),
    "out without export": (["checkpoints", "list", "nowhere", "--out", "x"], "--out goes with export"),
    "average without export": (["checkpoints", "verify", "nowhere", "--ema"], "--ema goes with export"),
    "no such factory": (["factories", "show", "lumy"], "did you mean lumi?"),
    "show what": (["factories", "lumi"], "`show NAME`"),
    "override of a table": (["recipes", "seed=1"], "hydra.searchpath"),
    "more digits than a number has": (["plan", "recipe=smoke", "train.micro_batch=1e40"], "must be a whole number of"),
    "archive from here": (
        ["plan", "recipe=smoke", "storage.archives=[copies]"],
        "'copies' does not begin with a slash",
    ),
    "shell": (["--completion", "tcsh"], "bash, zsh"),
    "too large": (["recipe=eu-llm-7b", "hardware.node_memory_gib=16", "factory=local"], "cannot run here"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_message_and_exit_code_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words, phrase = WRONG[case]
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.err.startswith("aiftrain: ")
    assert phrase in told.err
    assert told.out == ""
    assert list(tmp_path.iterdir()) == [], "a mistake leaves nothing behind"


def test_with_json_an_error_is_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "recipe=smoke", "seed=a", "nodes=0", "--json"]) == 2
    told = capsys.readouterr()
    error = json.loads(told.out)["error"]
    assert (error["kind"], error["exit_code"]) == ("ConfigError", 2)
    assert {problem["where"] for problem in error["problems"]} == {"seed", "nodes"}
    assert "2 problems" in told.err


def test_nothing_and_help_print_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert all(f"  {verb.name} " in out for verb in VERBS)
        assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_has_its_own_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([verb, "--help"])
    assert leaving.value.code == 0
    out = capsys.readouterr().out
    assert f"python -m aiftrain {verb}" in out
    assert "--json" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"aiftrain {__version__}\n"


def test_options_may_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--json", "plan", "recipe=smoke", "seed=3"], ["plan", "recipe=smoke", "--json", "seed=3"]):
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["recipe"] == "smoke"


def test_cfg_job_shows_the_configuration_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--cfg", "job", "recipe=smoke", "seed=5"]) == 0
    assert "\nseed: 5\n" in capsys.readouterr().out
    assert main(["recipe=smoke", "seed=5", "--cfg", "job", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 5
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_early_is_told_nothing(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m aiftrain hardware show mi250x | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout in ("0\n", "141\n"), "141 is how a shell counts a closed pipe"


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["plan", "recipe=smoke"],
        ["script", "recipe=eu-llm-7b", "factory=lumi", "account=a", "data.root=/x"],
        ["factories"],
        ["hardware", "show", "h100"],
        ["recipes"],
        ["data", "inspect", "recipe=smoke", "data.sources.python-docs.path=docs", "data.cache_dir=none"],
        ["checkpoints", "list", "nowhere"],
        ["doctor", "--json"],
        ["sample", "nowhere", "text"],
        ["recipe=smoke", "train.steps=x"],
        ["--completion", "words", "aiftrain pl"],
    ],
)
def test_everything_but_training_works_without_torch(words: list[str], tmp_path: Path) -> None:
    done = aiftrain(*words, cwd=tmp_path, blocked=True)
    assert "Traceback" not in done.stderr
    fails = {"doctor": 1, "checkpoints": 2, "sample": 2, "data": 2, "recipe=smoke": 2}
    assert done.returncode == fails.get(words[0], 0), done.stderr


def test_training_without_torch_says_what_to_install(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(8):
        (texts / f"{number}.txt").write_text(f"Guten Tag, Welt Nummer {number}! " * 50, encoding="utf-8")
    source = "~data.sources.python-source", "~data.sources.python-docs", f"+data.sources.de={{path: {texts}}}"
    done = aiftrain("recipe=smoke", *source, "model.vocab_size=300", cwd=tmp_path, blocked=True)
    assert "training needs torch and deepspeed" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_python_without_the_packages_says_what_to_do(options: list[str]) -> None:
    """As a stranger meets it who runs a fresh clone before installing anything."""
    bare = [sys.executable, "-S", "-m", "aiftrain", "plan", "recipe=smoke", *options]  # -S: no site-packages
    done = subprocess.run(bare, cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "lacks the package" in done.stderr and "make smoke" in done.stderr
    assert "Traceback" not in done.stderr
    assert not options or json.loads(done.stdout)["error"]["exit_code"] == 2
