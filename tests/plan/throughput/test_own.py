"""The user's own calibration: kept in their folder, laid over the shipped one, refused where it is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aiftrain.errors import MachineError, UserError
from aiftrain.plan.throughput.constants import shipped
from aiftrain.plan.throughput.own import OwnCalibration, calibration_for, folder, read, with_own, write

OWN = OwnCalibration(
    runs=("/runs/one", "/runs/two"),
    date="2026-11-22",
    hardware={"h100": 0.9},
    talks={"aiftrain": 1.3},
    matmul_tflops={"cpu": {"fp32": 0.2, "bf16": 0.5}},
    spread=0.05,
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    calibration_for.cache_clear()
    yield
    calibration_for.cache_clear()


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = write("lumi", OWN)
    assert file == tmp_path / "aiftrain" / "throughput" / "lumi.yaml"
    assert read("lumi") == OWN


def test_without_a_file_the_shipped_calibration_counts() -> None:
    assert calibration_for("lumi") is shipped()


def test_the_users_factors_replace_the_shipped_ones() -> None:
    write("lumi", OWN)
    one = calibration_for("lumi")
    assert one.constants.hardware == shipped().constants.hardware | {"h100": 0.9}
    assert one.constants.talks["aiftrain"] == 1.3
    assert one.constants.spread == 0.05
    assert one.constants.matmul_share == shipped().constants.matmul_share
    assert one.own_runs == 2


def test_other_sites_stay_as_they_were() -> None:
    write("lumi", OWN)
    assert calibration_for("leonardo") is shipped()


def test_a_rate_counts_for_its_precision_on_processors() -> None:
    from aiftrain.run.machine import Hardware

    one = with_own(shipped(), OWN)
    cpu = Hardware(name="cpu", title="", kind="cpu")
    assert (one.measured_rate(cpu, "fp32"), one.measured_rate(cpu, "bf16")) == (0.2, 0.5)
    assert one.measured_rate(Hardware(name="other", title="", kind="cpu"), "fp32") is None
    old = with_own(shipped(), OWN.model_copy(update={"matmul_tflops": {"old": {"fp16": 60.0}}}))
    assert old.measured_rate(Hardware(name="old", title="", kind="cuda", bf16=False), "fp16") == 60.0


@pytest.mark.parametrize("text", ["runs: 3\n", "hardware: {h100: fast}\n", "[]\n", "a: [\n"])
def test_a_damaged_file_is_named(text: str) -> None:
    file = write("lumi", OWN)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"lumi\.yaml"):
        calibration_for("lumi")


def test_a_folder_that_cannot_be_written_is_the_machines_fault() -> None:
    folder().parent.parent.mkdir(exist_ok=True)
    folder().parent.write_text("a file where a folder should be", encoding="utf-8")
    with pytest.raises(MachineError, match="cannot write"):
        write("lumi", OWN)


def test_the_home_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".config" / "aiftrain" / "throughput"
