"""`plan --search` and `plan --compare` as a person sees them, and what they refuse."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from aiftrain.cli.main import main
from aiftrain.cli.planning import amount, short, short_span
from aiftrain.plan.spec import resolve
from aiftrain.run.layout import ParallelLayout, make_layout

SEVEN = ["plan", "recipe=eu-llm-7b", "factory=lumi"]
COMPARE = ["plan", "recipe=eu-llm-7b", "--compare"]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "None" not in captured.out
    return captured.out


def document(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return parsed


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err


def test_a_search_shows_the_best_few_why_others_lose_what_matters_and_how_to_take_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = told([*SEVEN, "nodes=64", "--search"], capsys)
    for phrase in ("layouts tried", "strategy", "MFU", "GPU-hours", "why not", "what if", "no form fits", "% slower"):
        assert phrase in out
    assert "needs 95% of a rank's memory or less" in out


def test_the_command_it_ends_with_takes_the_best_layout(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SEVEN, "parallelism=zero3", "train.micro_batch=1", "train.global_batch=4096", "--search"]
    found = document([*words, "--deadline", "40"], capsys)
    command = shlex.split(found["command"])
    assert command[:3] == ["python", "-m", "aiftrain"]
    layout = make_layout(resolve(command[3:]))
    assert isinstance(layout, ParallelLayout)
    assert layout.model_dump(mode="json") == found["candidates"][0]["layout"]
    assert layout.nodes == found["nodes"]


def test_layers_between_are_no_part_of_the_command_where_nothing_is_computed_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["plan", "recipe=eu-llm-1b", "factory=lumi", "nodes=16", "train.recompute=full", "train.recompute_every=2"]
    found = document([*words, "--search"], capsys)
    layout = make_layout(resolve(shlex.split(found["command"])[3:]))
    assert isinstance(layout, ParallelLayout)
    assert (layout.recompute, layout.recompute_every) == ("none", 1)
    assert layout.model_dump(mode="json") == found["candidates"][0]["layout"]


def test_json_has_every_layout_and_every_number_of_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    found = document([*SEVEN, "--search", "--budget", "330_000"], capsys)
    others = {"zero1 tp2", "zero1 tp8 pp2", "zero3 sp2", "zero3 group8"}
    assert {one["strategy"] for one in found["candidates"]} >= {"ddp", "zero1", "zero2", "zero3"} | others
    assert found["front"][0]["prediction"]["cost"]["bill"]["units"] <= 330_000
    assert len(found["node_counts"]) == 16
    assert found["sensitivity"] and found["rivals"]


def test_a_goal_marks_the_chosen_nodes_and_warns_of_the_slow_end(capsys: pytest.CaptureFixture[str]) -> None:
    out = told([*SEVEN, "--search", "--deadline", "28"], capsys)
    (chosen,) = re.findall(r"^ *(\d+) .*<- chosen$", out, re.MULTILINE)
    assert f"on {chosen} nodes" in out
    safe = re.search(r"at the slow end of the range it takes [\d.]+ days; nodes=(\d+) is in time", out)
    assert safe and int(safe[1]) > int(chosen)
    assert "launcher.qos=boost_qos_bprod" in told(
        ["plan", "recipe=eu-llm-7b", "factory=leonardo", "--search", "--deadline", "20.5"], capsys
    )


def test_what_is_unknown_is_said_and_a_layout_offered_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(["plan", "recipe=smoke", "factory=local", "hardware.node_memory_gib=64", "--search"], capsys)
    assert "nobody documents" in out and "parallelism=ddp" in out


def test_a_comparison_is_one_table_with_reasons_below(capsys: pytest.CaptureFixture[str]) -> None:
    out = told([*COMPARE, "lumi,leonardo,jupiter,lumi-ai,deucalion", "access=large-scale"], capsys)
    lines = out.splitlines()
    order = [line.split()[0] for line in lines[3:7]]
    assert order == ["jupiter", "leonardo", "lumi", "deucalion"], "the fastest first"
    for phrase in ("GPU-hours", "core-hours", "Large Scale: jupiter, leonardo, lumi", "lumi-ai*: nobody documents"):
        assert phrase in out
    assert "not the 128 asked for" in out and "deucalion 4" in out


def test_a_comparison_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    sites = document([*COMPARE, "lumi,lumi-ai", "--deadline", "30"], capsys)["sites"]
    assert [site["name"] for site in sites] == ["lumi", "lumi-ai"]
    assert sites[0]["option"]["prediction"]["cost"]["calendar"]["days"] <= 30
    assert sites[1]["option"]["prediction"] is None and "nobody documents" in sites[1]["why"]


@pytest.mark.parametrize("words", [[*SEVEN, "--search"], [*COMPARE, "lumi,leonardo"]])
def test_pictures_are_drawn_and_leave_json_alone(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert document([*words, "--picture", str(tmp_path / "it.svg")], capsys)
    assert "<svg" in (tmp_path / "it.svg").read_text()
    assert f"picture: {tmp_path / 'it.png'}" in told([*words, "--picture", str(tmp_path / "it.png")], capsys)
    assert (tmp_path / "it.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*SEVEN, "--search", "--deadline", "0"], "'0' is no number of days"),
        ([*SEVEN, "--search", "--deadline", "soon"], "'soon' is no number of days"),
        ([*SEVEN, "--search", "--deadline", "nan"], "'nan' is no number of days"),
        ([*SEVEN, "--search", "--budget", "-5"], "no number of units"),
        ([*SEVEN, "--search", "--deadline", "3", "--budget", "5"], "a search has one goal"),
        ([*SEVEN, "--deadline", "3"], "--deadline goes with --search or --compare"),
        ([*SEVEN, "--picture", "it.png"], "--picture goes with --search or --compare"),
        ([*SEVEN, "--search", "-m"], "leave out -m"),
        ([*COMPARE, "lumi", "-m"], "leave out -m"),
        ([*COMPARE, "lumi", "--search"], "leave out --search"),
        ([*COMPARE, "lumi", "--cheapest"], "--cheapest goes with --search"),
        ([*COMPARE, "lumi,leonrado"], "did you mean leonardo"),
        ([*COMPARE, ","], "--compare takes factories"),
        ([*SEVEN, "--compare", "all"], "factory: holds at one site"),
        ([*SEVEN, "--search", "--picture", "it.pdf"], "ends in .png or .svg"),
        ([*SEVEN, "--search", "nodes=3072"], "gives a job at most 1024"),
        ([*SEVEN, "--search", "nodes=100"], "nodes=96 or nodes=128"),
        ([*SEVEN, "--search", "time=9-00:00:00", "--deadline", "30"], "longer than standard-g"),
        ([*SEVEN, "--search", "--deadline", "0.5"], "closest: nodes=384"),
        (["plan", "recipe=eu-llm-7b", "factory=jedi", "--search", "--budget", "9"], "nobody documents how jedi bills"),
        (["plan", "recipe=eu-llm-7b", "factory=lumi-ai", "--search", "--cheapest"], "nothing can be said"),
        ([*COMPARE, "lumi-ai", "--picture", "it.png"], "none of the factories can be priced"),
        (["plan", "recipe=eu-llm-70b", "factory=local", "--search"], "cannot run here"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_wrong_input_is_said_on_the_way_in(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if "none of the factories" in message:  # the table comes first, then that there is nothing to draw
        assert main(words) == 2
        assert message in capsys.readouterr().err
    else:
        assert message in refusal(words, capsys)
    assert not list(tmp_path.iterdir())


def test_figures_keep_three_places() -> None:
    assert [short(number) for number in (26.71, 999, 1e3, 328_373, 999_600, 1.79e6)] == [
        "26.7",
        "999",
        "1 k",
        "328 k",
        "1,000 k",
        "1.79 M",
    ]
    assert [amount(number) for number in (0.0412, 99.94, 328_373.4)] == ["0.0412", "99.9", "328,373"]
    assert [short_span(9e5, 1.2e6), short_span(1.54e6, 2.1e6)] == ["900 k-1.2 M", "1.54-2.1 M"]
