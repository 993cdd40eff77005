"""Which factory this machine belongs to, and what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.plan.groups import Groups
from aiftrain.plan.here import find_factory, this_node


@pytest.mark.parametrize(
    ("environ", "host", "slurm_conf", "factory"),
    [
        ({}, "laptop", "", "local"),
        ({"SLURM_CLUSTER_NAME": "lumi"}, "nid005001", "", "lumi"),
        ({"SLURM_CLUSTER_NAME": "elsewhere"}, "node1", "", "local"),
        ({}, "uan02", "", "lumi"),
        ({}, "uan02-of-mine", "", "local"),
        ({}, "login1", "# comment\nClusterName=lumi\n", "lumi"),
        ({}, "login1", "clustername = lumi\n", "lumi"),
        ({"SLURM_CLUSTER_NAME": "elsewhere"}, "login1", "ClusterName=lumi\n", "local"),
    ],
)
def test_a_machine_is_recognised(
    environ: dict[str, str], host: str, slurm_conf: str, factory: str, tmp_path: Path
) -> None:
    file = tmp_path / "slurm.conf"
    if slurm_conf:
        file.write_text(slurm_conf, encoding="utf-8")
    assert find_factory(Groups(), environ, host=host, slurm_conf=file) == factory


def test_a_site_of_ones_own_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "factory").mkdir()
    (tmp_path / "factory" / "ours.yaml").write_text("name: ours\nhost_patterns: ['^box-']\n", encoding="utf-8")
    found = find_factory(Groups((tmp_path,)), {}, host="box-7", slurm_conf=tmp_path / "none")
    assert found == "ours"


def test_this_machine_has_cores_and_memory() -> None:
    node = this_node()
    assert node.cores >= 1
    assert node.memory_gib is None or node.memory_gib > 0.1
    assert node.arch
