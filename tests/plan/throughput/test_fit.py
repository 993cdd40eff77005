"""Fitting finds the constants that made the runs, in spite of noise, and leaves alone what nothing says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from aiftrain.plan.throughput.constants import Constants
from aiftrain.plan.throughput.fit import FACTORS, Measured, error, fit, spread
from aiftrain.plan.throughput.step import Setting, step_time
from tests.plan.throughput.settings import MODEL, setting

TRUTH = Constants(matmul_share=0.75, net_share=0.45, flash_share=0.7, data_overlap=1.0, hardware={"gpu": 1.1})
PRIORS = {"matmul_share": 0.3, "net_share": 0.5, "flash_share": 0.5}
SMALL = MODEL.model_copy(update={"hidden_size": 1024, "intermediate_size": 2752, "num_layers": 12, "num_heads": 8})


def some_settings() -> list[Setting]:
    """Runs that products rule, attention rules, and the network rules."""
    return [
        setting(model, length=length, data_parallel=ranks, micro_batch=max(1, 4096 // length), zero_stage=stage)
        for model in (MODEL, SMALL)
        for length in (1024, 16384)
        for ranks, stage in ((1, 0), (8, 3), (64, 3))
    ]


def made_by(truth: Constants, settings: Sequence[Setting], noise: float = 0.0, odd: float = 1.0) -> list[Measured]:
    """What runs would measure if `truth` were true; of the first the rate is off by the factor `odd`."""
    dice = random.Random(1)
    rates = [step_time(replace(one, constants=truth)).tokens_per_s_per_device for one in settings]
    rates = [rate * (1 + dice.gauss(0, noise)) for rate in rates]
    rates[0] *= odd
    return [Measured(one, rate) for one, rate in zip(settings, rates, strict=True)]


def test_an_error_is_the_logarithm_of_measured_over_predicted() -> None:
    one = made_by(TRUTH, some_settings())[0]
    assert error(one, TRUTH) == pytest.approx(0)
    twice = replace(one, tokens_per_s_per_device=2 * one.tokens_per_s_per_device)
    assert error(twice, TRUTH) == pytest.approx(math.log(2))


def test_known_constants_are_found_again() -> None:
    runs = made_by(TRUTH, some_settings(), noise=0.02)
    start = TRUTH.model_copy(update={"matmul_share": 0.9, "net_share": 0.7, "flash_share": 0.5})
    found = fit(runs, start, PRIORS, {})
    assert found.matmul_share == pytest.approx(0.75, rel=0.05)
    assert found.net_share == pytest.approx(0.45, rel=0.1)
    assert found.flash_share == pytest.approx(0.7, rel=0.1)
    assert found.hardware == TRUTH.hardware


def test_the_factors_of_machine_and_software_are_found() -> None:
    start = TRUTH.model_copy(update={"hardware": {}})
    found = fit(made_by(TRUTH, some_settings()), start, {}, FACTORS | {"stacks": 0.01})
    assert found.hardware["gpu"] == pytest.approx(1.1, rel=0.03)
    assert found.stacks["some"] == pytest.approx(1.0, abs=0.02)
    assert found.matmul_share == start.matmul_share


def test_one_odd_run_does_not_rule() -> None:
    start = TRUTH.model_copy(update={"matmul_share": 0.9})
    straight = fit(made_by(TRUTH, some_settings()), start, {"matmul_share": 0.3}, {})
    crooked = fit(made_by(TRUTH, some_settings(), odd=0.3), start, {"matmul_share": 0.3}, {})
    assert crooked.matmul_share == pytest.approx(straight.matmul_share, rel=0.05)


def test_what_nothing_was_measured_of_stays() -> None:
    found = fit(made_by(TRUTH, some_settings()[:1]), TRUTH, {"net_share": 0.5, "expert_share": 0.5}, {})
    assert found.net_share == pytest.approx(TRUTH.net_share)
    assert found.expert_share == pytest.approx(TRUTH.expert_share)


def test_shares_stay_inside_what_is_physical() -> None:
    fast = TRUTH.model_copy(update={"net_share": 5.0})
    found = fit(made_by(fast, some_settings()), TRUTH, {"net_share": 3.0, "data_overlap": 1.0}, {})
    assert found.net_share <= 1.0
    assert found.data_overlap >= 1.0


def test_the_spread_is_that_of_the_middle_two_thirds() -> None:
    runs = made_by(TRUTH, some_settings() * 20, noise=0.05, odd=10)
    assert spread(runs, TRUTH) == pytest.approx(0.05, rel=0.25)
