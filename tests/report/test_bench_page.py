"""bench.html stands alone, shows every figure, and says what is missing and what the profile promised."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from aiftrain.report.bench import best_products, duration, line, links, size, step_share
from aiftrain.report.bench_page import draw, promises
from aiftrain.run.bench import Bench, Missing
from aiftrain.run.folder import RunFolder
from aiftrain.run.machine import Hardware
from tests.benches import bench, product, step, stream, transfer

GPU = Hardware(
    name="gpu",
    title="",
    kind="cuda",
    devices_per_node=4,
    matmul_bf16_tflops=400,
    memory_gb_per_s=2000,
    intra_node_gb_per_s=200,
)


@pytest.fixture
def measured() -> Bench:
    return bench(
        complete=True,
        products=(product(300.0), product(250.0, side=512), product(290.0, name="mlp in", side=800)),
        streams=(stream(1500.0),),
        transfers=(
            transfer("all-reduce", gb_per_s=0.5, size=1024, us=30.0),
            transfer("all-reduce", gb_per_s=150.0, size=2**20, us=800.0),
        ),
        steps=(step("ddp", precision="bf16"), step("zero3", precision="bf16")),
        missing=(Missing(what="fp16 <products>", why="no time"),),
    )


class Reader(HTMLParser):
    """What would be fetched, and what does not close."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "path", "use", "rect", "defs", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_stands_alone(run_folder: RunFolder, measured: Bench) -> None:
    page = draw(run_folder, measured)
    assert page == run_folder.bench_html
    text = page.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert all(reference.startswith("#") for reference in reader.references), "nothing is fetched"
    assert "<script" not in text
    assert text.count("<svg") == 3


def test_the_page_has_what_was_measured_and_what_was_not(run_folder: RunFolder, measured: Bench) -> None:
    text = draw(run_folder, measured).read_text(encoding="utf-8")
    words = re.sub(r"<svg.*?</svg>|<[^>]+>", " ", text, flags=re.S)
    for figure in (
        "300",
        "1,500",
        "150",
        "30 us",
        "zero3",
        "A &lt;fast&gt; device",
        "fp16 &lt;products&gt;",
        "no time",
    ):
        assert figure in words
    assert "stopped before the end" not in words
    stopped = draw(run_folder, measured.model_copy(update={"complete": False})).read_text(encoding="utf-8")
    assert "stopped before the end" in stopped


def test_a_bench_that_was_stopped_at_once_has_a_page(run_folder: RunFolder) -> None:
    assert "How it was measured" in draw(run_folder, bench()).read_text(encoding="utf-8")


def test_the_same_bench_is_the_same_page(run_folder: RunFolder, measured: Bench) -> None:
    assert draw(run_folder, measured).read_bytes() == draw(run_folder, measured).read_bytes()


def test_what_the_profile_promises(measured: Bench) -> None:
    found = {each.name: each.measured / each.promised for each in promises(measured, GPU)}
    assert found == {"bf16 products": 0.75, "memory": 0.75, "links inside a node": 0.75}


def test_figures_in_sum(measured: Bench) -> None:
    assert best_products(measured)["bf16"].tflops == 300.0
    [link] = links(measured)
    assert (link.latency_us, link.gb_per_s) == pytest.approx((30.0, 150.0))
    share = step_share(measured, measured.steps[0])
    assert share == pytest.approx(1000.0 * 1e9 / (4 * 300e12))


@pytest.mark.parametrize(
    ("value", "words"), [(0.0000123, "12.3 us"), (0.0456, "45.6 ms"), (2.5, "2.5 s"), (0.001, "1 ms")]
)
def test_durations(value: float, words: str) -> None:
    assert duration(value) == words


@pytest.mark.parametrize(("value", "words"), [(512, "512 B"), (1024, "1 KiB"), (2**25, "32 MiB"), (2**30, "1 GiB")])
def test_sizes(value: int, words: str) -> None:
    assert size(value) == words


def test_every_kind_of_figure_has_its_line(measured: Bench) -> None:
    first = (measured.products[0], measured.streams[0], measured.transfers[0], measured.steps[0], measured.missing[0])
    assert [line(each).split()[0] for each in first] == ["product", "memory", "link", "step", "not"]
