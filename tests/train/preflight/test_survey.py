"""What is read of /sys, from a tree as the kernel has it; and this very machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from aiftrain.run.machine import Hardware
from aiftrain.run.rank import Rank
from aiftrain.train.preflight.cores import parse_cores
from aiftrain.train.preflight.survey import Sight, cards, device_identity, device_numa, interfaces, look, numa_domains

TREE = {
    "devices/system/node/node0/cpulist": "0-3,8-11",
    "devices/system/node/node1/cpulist": "4-7",
    "devices/system/node/node4/cpulist": "",  # a GPU's memory
    "bus/pci/devices/0000:c1:00.0/numa_node": "1",
    "bus/pci/devices/0000:c2:00.0/numa_node": "-1",
    "class/net/lo/operstate": "unknown",
    "class/net/hsn0/operstate": "up",
    "class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE",
    "class/infiniband/mlx5_1/ports/1/state": "1: DOWN",
    "class/infiniband/mlx5_2/ports/1/state": "1: DOWN",
    "class/infiniband/mlx5_2/ports/2/state": "4: ACTIVE",
}


def test_the_kernels_tree(tmp_path: Path) -> None:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert numa_domains(tmp_path) == {"0": "0-3,8-11", "1": "4-7"}
    assert [device_numa(tmp_path, f"0000:{bus}:00.0") for bus in ("c1", "c2", "c3")] == [1, None, None]
    assert interfaces(tmp_path, ["lo", "hsn0", "veth"]) == {"lo": "unknown", "hsn0": "up", "veth": "unknown"}
    assert cards(tmp_path) == {"mlx5_0": "ACTIVE", "mlx5_1": "DOWN", "mlx5_2": "ACTIVE"}


def test_this_machine_as_a_rank_sees_it(tmp_path: Path) -> None:
    hardware = Hardware(name="cpu", title="A CPU node", kind="cpu")
    sight = look(Rank(), hardware, [tmp_path / "not yet" / "there"], {"NCCL_IB_HCA": "mlx5", "SECRET": "1"})
    assert Sight.read(json.loads(json.dumps(asdict(sight)))) == sight
    assert parse_cores(sight.cores) == os.sched_getaffinity(0) <= parse_cores(sight.online)
    assert "lo" in sight.interfaces
    assert sight.variables == {"NCCL_IB_HCA": "mlx5"}
    assert sight.memory_gib and sight.memory_gib > 0.1
    assert sight.folders[0].path == str(tmp_path)
    assert sight.folders[0].free > 0 and sight.folders[0].writable
    assert look(Rank(1, 2, 1, 2), hardware, [tmp_path]).folders == [], "one look a node"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"pci_bus_id": 0xC1}, {"pci_bus_id": 0xC6}, id="halves of a card with one UUID"),
        pytest.param({"uuid": "a part"}, {"uuid": "another"}, id="parts of a device"),
    ],
)
def test_devices_of_their_own_are_told_apart(one: dict[str, object], other: dict[str, object]) -> None:
    alike = {"uuid": "00000000-0000", "pci_domain_id": 0, "pci_bus_id": 0xC1, "pci_device_id": 0}
    identities = {device_identity(SimpleNamespace(**alike | own)) for own in (one, other, one)}
    assert len(identities) == 2
    assert device_identity(SimpleNamespace()) == "", "this torch tells nothing"
