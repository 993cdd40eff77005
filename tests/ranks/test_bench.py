"""`bench` with real ranks: every part is measured, inside nodes and across them, and stopping leaves what there is."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from aiftrain.cli.bench import write_bench
from aiftrain.cli.main import main
from aiftrain.plan.bench import bench_spec
from aiftrain.plan.throughput.own import calibration_for
from aiftrain.run.bench import Bench, read_bench, read_cases
from aiftrain.run.folder import RunFolder, read_lines
from tests.ranks.conftest import TINY, Nursery

pytestmark = pytest.mark.ranks
BENCH, ON_NODES = "aiftrain.train.bench.__main__", "tests.ranks.on_nodes"
NewBench = Callable[..., RunFolder]


@pytest.fixture(scope="module")
def new_bench(tmp_path_factory: pytest.TempPathFactory) -> NewBench:
    def make(*overrides: str, ranks: int = 2) -> RunFolder:
        here = ["factory=local", f"launcher.ranks_per_node={ranks}", "bench.seconds=2"]
        spec, cases = bench_spec([*TINY, *here, *overrides], str(tmp_path_factory.mktemp("bench")))
        folder = RunFolder(spec.run_folder)
        write_bench(folder, spec, cases)
        return folder

    return make


@pytest.fixture(scope="module")
def on_two_ranks(nursery: Nursery, new_bench: NewBench) -> RunFolder:
    """A bench of everything."""
    folder = new_bench("bench.seconds=6")  # on a busy machine, too, some repetitions of each
    measured(nursery, folder, 2)
    return folder


def measured(nursery: Nursery, folder: RunFolder, ranks: int, program: str = BENCH, **env: str) -> Bench:
    started = nursery.start(folder, ranks, program=program, **env)
    assert started.wait() == [0] * ranks, started.log()
    bench = read_bench(folder)
    assert bench.complete
    return bench


@pytest.mark.slow
def test_two_ranks_measure_everything(on_two_ranks: RunFolder) -> None:
    bench = read_bench(on_two_ranks)
    assert {product.precision for product in bench.products} >= {"fp32"}
    assert {product.name for product in bench.products} >= {"square", "mlp in", "head"}
    assert [stream.operation for stream in bench.streams] == ["copy", "triad"]
    operations = {transfer.operation for transfer in bench.transfers}
    assert operations == {"all-reduce", "all-gather", "reduce-scatter", "all-to-all", "exchange"}
    assert {transfer.scope for transfer in bench.transfers} == {"inside a node"}
    strategies = {step.strategy for step in bench.steps}
    assert strategies >= {"ddp", "hpz", "mics", "offload", "tp", "zero1", "zero2", "zero3"}
    left_out = {each.what for each in bench.missing if "step" in each.what}
    refused = {each.what for each in read_cases(on_two_ranks).missing}
    assert left_out == refused >= {"a step of nvme", "a step of 3d"}, "one has no folder, one needs more ranks"
    assert median(each.repetitions for each in bench.transfers) >= 3, (
        "on a busy machine a single call may take the time of all"
    )
    assert (bench.machine.ranks, bench.machine.nodes, bench.machine.backend) == (2, 1, "gloo")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="host names of one's own need root: sudo -E pytest ...")
def test_four_ranks_on_two_nodes_measure_inside_and_across(nursery: Nursery, new_bench: NewBench) -> None:
    folder = new_bench("bench.strategies=[]", ranks=4)
    bench = measured(nursery, folder, 4, ON_NODES, RANKS_PER_NODE="2", PROGRAM="aiftrain.train.bench")
    found = {(each.scope, each.ranks) for each in bench.transfers if each.operation == "all-reduce"}
    assert found == {("inside a node", 2), ("across nodes", 2), ("all ranks", 4)}
    assert {each.scope for each in bench.transfers if each.operation == "exchange"} == {"inside a node", "across nodes"}
    assert (bench.machine.nodes, bench.machine.ranks_per_node) == (2, 2)
    assert not bench.steps


def test_one_rank_has_no_links_and_says_so(nursery: Nursery, new_bench: NewBench) -> None:
    bench = measured(nursery, new_bench("bench.strategies=[ddp]", ranks=1), 1)
    assert not bench.transfers
    assert ("links between ranks", True) in [(each.what, "one rank" in each.why) for each in bench.missing]


def test_a_step_that_would_take_too_long_is_left_out(nursery: Nursery, new_bench: NewBench) -> None:
    folder = new_bench("bench.strategies=[ddp]", "bench.seconds=0.001", ranks=1)
    bench = measured(nursery, folder, 1)
    assert not bench.steps
    assert any(each.what == "a step of ddp" and "bench.layers" in each.why for each in bench.missing)


def test_stopping_leaves_what_was_measured_and_whom_ranks_spoke_to(
    nursery: Nursery, new_bench: NewBench, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_bench("bench.seconds=600")
    ranks = nursery.start(folder, 2, program=BENCH)
    ranks.until(lambda: folder.bench_json.exists() and len(read_bench(folder).products) >= 2)
    ranks.signal(signal.SIGTERM)
    assert ranks.wait() == [75, 75]
    bench = read_bench(folder)
    assert len(bench.products) >= 2
    assert not bench.complete and not bench.steps
    capsys.readouterr()
    assert main(["egress", str(folder.path), "--json"]) == 0
    contacts = json.loads(capsys.readouterr().out)["contacts"]
    assert {writer for contact in contacts for writer in contact["by"]} == {"rank-00000", "rank-00001"}
    assert {contact["rule"] for contact in contacts} == {"this machine"}


@pytest.mark.slow
def test_a_plan_after_it_comes_nearer_to_a_run(
    nursery: Nursery,
    on_two_ranks: RunFolder,
    new_run: Callable[..., RunFolder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a CPU the plan knows no rate before; rates alone are too good, and the steps of a bench mend that.

    The run has other rows and more layers than the bench.
    """
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    words = ["model.num_layers=6", "train.sequence_length=64"]
    run = new_run(*words, "train.steps=12", "train.evaluate_batches=0")
    assert nursery.start(run, 2).wait() == [0, 0]
    step = median(record["seconds"] for record in read_lines(run.metrics) if "seconds" in record)
    assert _predicted(*words, capsys=capsys) is None
    off = []
    bench = read_bench(on_two_ranks)
    for known in (bench.model_copy(update={"steps": ()}), bench):
        on_two_ranks.write_json(on_two_ranks.bench_json, known.model_dump(mode="json"))
        assert main(["plan", "--calibrate", str(on_two_ranks.path)]) == 0
        predicted = _predicted(*words, capsys=capsys)
        assert predicted is not None
        off.append(abs(math.log(predicted / step)))
    assert off[1] < off[0]


def _predicted(*words: str, capsys: pytest.CaptureFixture[str]) -> float | None:
    """Seconds of a step of that run on two ranks here."""
    calibration_for.cache_clear()
    capsys.readouterr()
    assert main(["plan", *TINY, *words, "factory=local", "launcher.ranks_per_node=2", "--json"]) == 0
    rate = json.loads(capsys.readouterr().out)["prediction"]["rate"]
    calibration_for.cache_clear()
    return rate and float(rate["seconds_per_step"])
