"""Calibration on runs of one site: later plans there meet them, and others like them."""

from __future__ import annotations

from typing import Any

import pytest

from aiftrain.errors import UserError
from aiftrain.plan.throughput.calibrate import Observed, calibrate
from aiftrain.plan.throughput.constants import Calibration, shipped
from aiftrain.plan.throughput.own import OwnCalibration, with_own
from tests.plan.throughput.observations import NODE_TFLOPS, observed, predicted, spec_of


def laid_over(own: OwnCalibration) -> Calibration:
    return with_own(shipped(), own)


@pytest.mark.parametrize("factor", [0.3, 0.8, 1.0, 1.7])
def test_the_run_itself_is_met_afterwards(factor: float) -> None:
    run = observed(spec_of(), factor)
    own = calibrate([run])
    assert predicted(run.spec, laid_over(own)) == pytest.approx(run.tokens_per_s, rel=0.05)


@pytest.mark.parametrize("changes", [{"hidden_size": 512}, {"sequence_length": 512}, {"ranks": 2}])
def test_other_runs_of_the_site_are_met_too(changes: dict[str, Any]) -> None:
    own = calibrate([observed(spec_of(), 0.6)])
    other = observed(spec_of(**changes), 0.6)
    assert predicted(other.spec, laid_over(own)) == pytest.approx(other.tokens_per_s, rel=0.15)


def test_ranks_of_one_node_share_its_rate() -> None:
    """Two ranks that each measured half of the node's rate say the same as one that measured all of it."""
    alone, shared = (calibrate([observed(spec_of(ranks=ranks), 1.0)]) for ranks in (1, 2))
    assert alone.matmul_tflops == shared.matmul_tflops == {"cpu": {"fp32": NODE_TFLOPS}}


def test_the_median_of_several_measurements_counts() -> None:
    runs = [observed(spec_of(), 1.0, tflops=rate) for rate in (0.1, 0.2, 0.9, None)]
    assert calibrate(runs).matmul_tflops == {"cpu": {"fp32": 0.2}}


def test_few_runs_leave_the_spread_near_the_shipped_one() -> None:
    one = calibrate([observed(spec_of(), 1.0)]).spread
    many = calibrate([observed(spec_of(), 1.0)] * 12).spread
    assert 0 < many < one / 1.5
    assert one < shipped().constants.unseen_spread


def test_runs_that_disagree_widen_it() -> None:
    agreeing, arguing = (
        calibrate([observed(spec_of(), factor) for factor in (1 - off, 1, 1 + off)]).spread for off in (0.0, 0.3)
    )
    assert arguing > 1.3 * agreeing


def test_only_what_was_measured_is_kept() -> None:
    own = calibrate([observed(spec_of(), 0.5)])
    assert set(own.hardware) == {"cpu"}
    assert set(own.stacks) <= {"aiftrain"}
    assert own.talks == {}
    assert own.runs == ("/runs/one",)


def test_runs_of_two_sites_are_refused() -> None:
    here = observed(spec_of(), 1.0)
    there = observed(spec_of(factory={"name": "elsewhere", "title": "Elsewhere"}), 1.0)
    with pytest.raises(UserError, match="one site at a time; these are of elsewhere, local"):
        calibrate([here, there])


def test_a_machine_of_which_nothing_is_known_is_refused_with_advice() -> None:
    run = observed(spec_of(), 1.0)
    unmeasured = Observed(run.name, run.spec, run.execution, run.tokens_per_s, None)
    with pytest.raises(UserError, match=r"matmul_bf16_tflops of cpu; a run with train\.measure_matmul=true"):
        calibrate([unmeasured])
