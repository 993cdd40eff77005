"""What all tests share: a small run, its folder, and the switch that lets no test skip."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import Execution, ParallelLayout
from aiftrain.run.spec import RunSpec

if TYPE_CHECKING:
    from tests.rigs.ceph import CephRig

# Files that take minutes and cannot be shared out. They come first: whoever got one last would leave the others idle.
LONG = ("test_docs.py", "test_strategies.py", "test_swapping.py", "test_elastic.py", "test_faults_live.py")
FULL_MATRIX = os.environ.get("AIFTRAIN_FULL_MATRIX") == "1"  # all combinations, where CI has some that meet each part
NO_SKIP = os.environ.get("AIFTRAIN_NO_SKIP") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With AIFTRAIN_NO_SKIP=1 a skipped test is a failed one: CI has every service that a test could miss."""
    report = yield
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", _no_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole files that skip themselves."""
    report = yield
    if NO_SKIP and report.skipped:
        report.outcome, report.longrepr = "failed", _no_skip(report)
    return report


def _no_skip(report: pytest.TestReport | pytest.CollectReport) -> str:
    return f"{report.nodeid} skips, and AIFTRAIN_NO_SKIP=1 lets none: {report.longrepr}"


SMALL_MODEL = {
    "name": "small",
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
}


def small_spec(**changes: Any) -> RunSpec:
    """A run that two CPU ranks finish in seconds; `changes` replace whole top-level keys."""
    document: dict[str, Any] = {
        "recipe": "small",
        "factory": {"name": "local", "title": "This machine"},
        "hardware": {"name": "cpu", "title": "A CPU node", "kind": "cpu", "bf16": False},
        "parallelism": {"name": "zero1", "zero_stage": 1},
        "model": SMALL_MODEL,
        "data": {"name": "docs", "sources": {"en": {"kind": "python-docs"}}},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "train": {"steps": 20, "sequence_length": 32, "global_batch": 4},
        "storage": {"name": "local", "save_every": 10},
        "tracking": {"name": "none"},
        "launcher": {"name": "local", "ranks_per_node": 2},
    }
    return RunSpec.model_validate(document | changes)


def small_execution(ranks: int = 2) -> Execution:
    """The layout of `small_spec` on `ranks` ranks of one node."""
    layout = ParallelLayout(
        nodes=1,
        ranks_per_node=ranks,
        world_size=ranks,
        data_parallel=ranks,
        zero_stage=1,
        micro_batch=1,
        accumulation=4 // ranks,
    )
    return Execution(layout=layout, precision="fp32")


@pytest.fixture(scope="session")
def ceph() -> Iterator[CephRig]:
    """A real object store. A test that stops, freezes or throttles one takes `rig`."""
    yield from _new_ceph()


@pytest.fixture(scope="module")
def rig() -> Iterator[CephRig]:
    """The same for one file alone."""
    yield from _new_ceph()


def _new_ceph() -> Iterator[CephRig]:
    from tests.rigs import ceph

    if missing := ceph.missing_packages():
        pytest.skip(missing)
    with ceph.CephRig() as rig:
        yield rig


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    """A folder with the run.json of `small_spec`, in a path with a blank and a non-ASCII letter."""
    folder = RunFolder(tmp_path / "ein läuf")
    folder.write(folder.run_json, small_spec().model_dump_json())
    return folder
