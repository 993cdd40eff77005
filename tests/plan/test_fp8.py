"""train.fp8: refused with the reason where it cannot be had, and faster where it can."""

from __future__ import annotations

import pytest

from aiftrain.errors import ConfigError
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve

RUN = ("recipe=eu-llm-7b", "nodes=4", "train.compile=true", "train.fp8=tensorwise")


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (("factory=lumi",), "tensorwise, but mi250x has no 8-bit products"),
        (("factory=leonardo",), "tensorwise, but a100-64 has no 8-bit products"),
        (("factory=jupiter", "train.precision=fp32"), "tensorwise, but the run is fp32"),
        (("factory=jupiter", "train.precision=fp16"), "tensorwise, but the run is fp16"),
        (("factory=jupiter", "train.compile=false"), "tensorwise without train.compile"),
        (("factory=jupiter", "model.intermediate_size=11000"), "a rank has MLP 11000"),
    ],
)
def test_is_refused_where_it_cannot_be_had(overrides: tuple[str, ...], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        make_plan(resolve([*RUN, *overrides]))


@pytest.mark.parametrize("factory", ["jupiter", "marenostrum5", "hunter"])
def test_is_planned_where_hardware_has_it(factory: str) -> None:
    rates = []
    for fp8 in ("none", "tensorwise"):
        rate = make_plan(resolve([*RUN, f"factory={factory}", f"train.fp8={fp8}"])).prediction.rate
        assert rate is not None
        rates.append(rate.tokens_per_s)
    assert rates[1] > rates[0] if factory != "marenostrum5" else rates[1] == rates[0], "no rate is documented there"
