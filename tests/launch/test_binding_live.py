"""What a site's job says of cores, on a live Slurm that has them: sbatch takes it, and srun then starts its tasks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiftrain.launch.script import render
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder
from aiftrain.run.machine import Partition
from tests.rigs.binding import BindingRig, missing_for_binding
from tests.rigs.shape import Shape

MISSING = missing_for_binding()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.skipif(os.getuid() != 0, reason="nodes in namespaces of their own need root"),
]
# Stands for the Python of the ranks: each task notes the cores that Slurm gives its step, and its place. After them it
# says that all is done.
TASK = """#!/bin/bash
if [[ $2 != aiftrain.train ]]; then echo 0 end; exit; fi
scontrol show step "$SLURM_JOB_ID.$SLURM_STEP_ID" >"{folder}/task-$SLURM_PROCID"
"""


# Cores, threads a core and partition of a node, from the sites' documentation as tests/rigs/sites has it.
@pytest.mark.parametrize(
    ("site", "cores", "threads", "partition", "step"),
    [
        ("lumi", 56, 2, "standard-g", "CPUs=224"),  # masks: the step has all cores of two nodes
        ("marenostrum5", 80, 2, "acc", "CPUs=320"),
        ("deucalion", 128, 1, "normal-a100-80", "CPUs=256"),
        ("jupiter", 288, 1, "booster", "CPUs=576"),  # --cpu-bind=cores
        ("meluxina", 64, 2, "gpu", "CPUs=256"),  # --hint=nomultithread
    ],
)
def test_the_tasks_of_a_job_start_on_the_cores_named(
    site: str, cores: int, threads: int, partition: str, step: str, tmp_path: Path
) -> None:
    gpus = 8 if site == "lumi" else 4
    limits = {partition: Partition(exclusive=site in ("lumi", "jupiter", "meluxina"))}
    shape = Shape(site, 2, cores, 880_000, threads, gpus, partitions=limits)
    python = tmp_path / "python"
    python.write_text(TASK.format(folder=tmp_path))
    python.chmod(0o755)
    with BindingRig(shape) as rig:
        submitted = rig.call("sbatch", "--parsable", str(job(site, gpus, python, tmp_path)), cwd=tmp_path)
        assert submitted.returncode == 0, submitted.stderr
        number = submitted.stdout.strip()
        rig.wait_for_job(number, "COMPLETED", "FAILED")
        output = "\n".join(file.read_text() for file in tmp_path.glob("slurm-*.out"))
        assert rig.job_state(number) == "COMPLETED", output
    steps = [file.read_text() for file in tmp_path.glob("task-*")]
    assert len(steps) == 2 * gpus
    assert all(step in text for text in steps), steps[0]


def job(site: str, gpus: int, python: Path, folder: Path) -> Path:
    """job.sh of a run on two nodes without a container, which this machine may not have."""
    words = [f"factory={site}", "account=anaccount", "nodes=2", f"launcher.python={python}", "factory.container=null"]
    spec = resolve(["recipe=smoke", "train.micro_batch=1", f"train.global_batch={2 * gpus}", *words])
    run = RunFolder(folder / "run")
    run.write(run.run_json, spec.model_dump_json())
    run.write(run.job_sh, render(spec, make_plan(spec, to_launch=True).execution.layout, run))
    return run.job_sh
