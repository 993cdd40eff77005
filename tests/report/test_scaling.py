"""Pictures of plans: whole, labelled, in both formats, and refused before anything is worked out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from aiftrain.errors import MachineError, UserError
from aiftrain.report.comparison import Bar, Span, draw_comparison
from aiftrain.report.picture import check
from aiftrain.report.scaling import Limit, Point, draw_scaling

POINTS = [Point(nodes, 1e5 * nodes**0.95, 0.9e5 * nodes**0.95, 1.1e5 * nodes**0.95) for nodes in (1, 2, 4, 8, 16)]
LIMITS = [Limit("large", 16), Limit("the machine", 40), Limit("far away", 5000)]
BARS = [
    Bar("slow, 2 x 4", Span(300, 350, 410), None, "35 k node-hours", measured=False),
    Bar("fast, 64 x 4", Span(9, 10, 11), Span(70, 80, 95), "1.2 M core-hours", measured=True),
]


def scaling(file: Path, points: list[Point] = POINTS) -> str:
    draw_scaling(points, LIMITS, chosen=8, title="seven on Somewhere", file=file)
    return file.read_text() if file.suffix == ".svg" else ""


def comparison(file: Path, bars: list[Bar] = BARS, deadline: float | None = 30.0) -> str:
    draw_comparison(bars, title="seven: 64 nodes", deadline=deadline, left_out=["dark"], file=file)
    return file.read_text() if file.suffix == ".svg" else ""


@pytest.mark.parametrize("draw", [scaling, comparison])
def test_png_is_drawn_whole(draw: object, tmp_path: Path) -> None:
    assert callable(draw)
    draw(tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["it.png"]


def test_scaling_names_its_axes_the_choice_and_the_limits_in_sight(tmp_path: Path) -> None:
    text = scaling(tmp_path / "it.svg")
    for label in ("seven on Somewhere", "tokens per second", "large: 16", "the machine: 40", "8 nodes: 721 k tokens/s"):
        assert f"<!-- {label} -->" in text
    assert "far away" not in text
    assert text == scaling(tmp_path / "it.svg"), "the same picture twice"


def test_a_single_number_of_nodes_can_be_drawn(tmp_path: Path) -> None:
    assert "efficiency, % of 1 node" in scaling(tmp_path / "it.svg", POINTS[:1])


def test_a_comparison_says_every_figure_and_what_is_unknown(tmp_path: Path) -> None:
    text = comparison(tmp_path / "it.svg")
    for label in ("fast, 64 x 4", "slow, 2 x 4", "350", "80", "unknown", "1.2 M core-hours", "MWh of the devices"):
        assert f"<!-- {label} -->" in text
    assert "pale" in text and "deadline of 30 days" in text and "dark" in text
    assert text.index("fast, 64 x 4") < text.index("slow, 2 x 4"), "the fastest comes first"


def test_sites_alike_share_a_scale_from_zero_and_nothing_needs_energy(tmp_path: Path) -> None:
    alike = [Bar(name, Span(9, 10, 11), None, "", measured=True) for name in ("a", "b")]
    text = comparison(tmp_path / "it.svg", alike, None)
    assert "<!-- 0 -->" in text
    assert "pale" not in text and "deadline" not in text


@pytest.mark.parametrize(("name", "message"), [("it.pdf", ".png or .svg"), ("it", ".png"), ("no/it.png", "no folder")])
def test_files_that_are_no_pictures_are_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        check(tmp_path / name)
    check(tmp_path / "IT.SVG")


def test_missing_matplotlib_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        check(tmp_path / "it.png")


def test_a_place_that_cannot_be_written_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "it.png").mkdir()
    with pytest.raises(MachineError, match="cannot write"):
        scaling(tmp_path / "it.png")
