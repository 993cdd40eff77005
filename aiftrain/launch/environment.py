"""What the ranks' environment holds: threads shared out, nothing that phones home, this very package."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import aiftrain
from aiftrain.run import quiet
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec

# A training step frees and takes the same large tensors again and again. glibc would give them back to the kernel each
# time and fault every page in anew: 100,000 faults a step, a fifth of the time and more (benchmarks/step.py).
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
}
_SAVE_SECONDS = "300"  # between torchrun's SIGTERM and SIGKILL; its default of 30 s may cut a large save short
_WANDB_MODE = {"off": "disabled", "offline": "offline", "online": "online"}


def run_environment(spec: RunSpec) -> dict[str, str]:
    """What every launcher sets, on any machine."""
    variables = quiet.VARIABLES | {
        "WANDB_MODE": _WANDB_MODE[spec.tracking.wandb],
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # a folder aiftrain/ in the working directory is not this package
        "PYDANTIC_DISABLE_PLUGINS": "__all__",  # to look for some it reads the metadata of every installed package
    }
    if spec.factory.container and spec.factory.container.image and spec.launcher.name != "local":
        variables["PYTHONNOUSERSITE"] = "1"  # packages in a person's home are for another Python than the image's
    if not spec.train.compile:
        # DeepSpeed compiles an optimizer that is not used here, as soon as it looks whether it is: that loads torch's
        # whole compiler on every rank, which is 1.5 s and a fifth of all files that a rank opens (docs/scale.md).
        variables["TORCHDYNAMO_DISABLE"] = "1"
    if spec.tracking.base_url:
        variables["WANDB_BASE_URL"] = spec.tracking.base_url
    if spec.hardware.is_cpu:
        variables |= {"DS_ACCELERATOR": "cpu"} | KEEP_MEMORY
    return variables | spec.factory.env


def local_environment(
    spec: RunSpec, layout: ParallelLayout, attempt: int, cores: int, environ: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of ranks that are started here: `environ` with our variables over it."""
    threads = str(max(1, cores // layout.ranks_per_node))
    ours = run_environment(spec) | {
        "AIFTRAIN_ATTEMPT": str(attempt),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": _SAVE_SECONDS,
    }
    if layout.nodes == 1 and not spec.launcher.hostfile:
        ours["GLOO_SOCKET_IFNAME"] = "lo"
    return {**environ, **ours, **_import_path(environ)}


def package_root() -> Path:
    """The folder that this very package is imported from."""
    return Path(aiftrain.__file__).resolve().parents[1]


def installed() -> bool:
    """Whether Python finds this package by itself: it lies among the installed ones."""
    return str(package_root()) in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


def _import_path(environ: Mapping[str, str]) -> dict[str, str]:
    """PYTHONPATH with this package first, unless Python finds it anyway."""
    if installed():
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(package_root()), environ.get("PYTHONPATH"))))}
