"""Writes job.sh: the scheduler's header, the site's modules, quoted exports, and the body of a launcher."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import aiftrain
from aiftrain.launch.archive import is_staged
from aiftrain.launch.containers import image_environment, image_prefix, used_container
from aiftrain.launch.deepspeed_runner import deepspeed_exports
from aiftrain.launch.environment import installed, package_root, run_environment
from aiftrain.launch.header import slurm_header
from aiftrain.launch.mpi import mpi_exports
from aiftrain.launch.pbs import pbs_exports, pbs_header
from aiftrain.launch.ranks import MODULES
from aiftrain.launch.step import native_python, slurm_exports
from aiftrain.plan.limits import is_queued
from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec
from aiftrain.shipped import launchers_dir


def render(spec: RunSpec, layout: ParallelLayout, folder: RunFolder) -> str:
    """The whole of job.sh for the run in `folder`, to be started from the present working directory.

    Raises UserError for a value that no header or container option can hold, such as a partition with a line
    break in it.
    """
    modules = spec.factory.modules if is_queued(spec) else ()
    parts = [
        "#!/bin/bash -l" if modules else "#!/bin/bash",  # `module` comes with a login shell of the node itself
        *_header(spec, layout, folder.path.resolve()),
        *_comments(spec),
        *modules,  # before the body's strict mode, which site scripts do not stand
        *_export_lines(spec, layout, folder.path.resolve()),
        *(_body(name) for name in (["stage"] if is_staged(spec) else []) + [spec.launcher.name]),
    ]
    return "\n".join(parts)


def _body(name: str) -> str:
    """A launcher's script without its own first line, which names the shell."""
    text = (launchers_dir() / f"{name}.sh").read_text(encoding="utf-8")
    return text.removeprefix("#!/bin/bash\n")


def _header(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> Iterable[str]:
    if spec.launcher.name == "slurm":
        return slurm_header(spec, layout, run_folder)
    return pbs_header(spec, layout) if spec.launcher.name == "pbs" else ()


def _comments(spec: RunSpec) -> Iterator[str]:
    yield f"# Written by aiftrain {aiftrain.__version__} for run {spec.digest}."
    if spec.launcher.name == "slurm" and spec.factory.container and spec.factory.container.image is None:
        yield "# No container, because no image is named: factory.container.image=... names one."


def _export_lines(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> Iterator[str]:
    ours = {"AIFTRAIN_RUN": str(run_folder), "AIFTRAIN_WORKDIR": str(Path.cwd())}
    if spec.purpose != "train":
        ours["AIFTRAIN_MODULE"] = MODULES[spec.purpose]
    ours |= _launcher_exports(spec, layout, run_folder)
    for name, value in (run_environment(spec) | ours).items():
        if "$" in value:
            yield "# shellcheck disable=SC2016 # a later shell expands it"
        yield f"export {name}={shlex.quote(value)}"
    yield from import_lines(spec)


def import_lines(spec: RunSpec) -> Iterator[str]:
    """What makes the ranks' Python find this package, and lets what a job sets win over what an image does."""
    if not used_container(spec):
        if not installed():  # what the site's modules put there comes after it
            yield f'export PYTHONPATH={shlex.quote(str(package_root()))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
        return
    yield "unset PYTHONPATH"  # the host's packages are not for an image's Python
    if prefix := image_prefix(spec):
        names = " ".join(image_environment(spec))
        yield f'for name in {names}; do if [[ -v $name ]]; then export "{prefix}$name=${{!name}}"; fi; done'


def _launcher_exports(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> dict[str, str]:
    """What the launcher's body reads besides the run and its folder."""
    if spec.launcher.name == "local":
        ranks = str(layout.ranks_per_node)
        return {"AIFTRAIN_PYTHON": native_python(spec), "AIFTRAIN_RANKS": ranks, "GLOO_SOCKET_IFNAME": "lo"}
    exports = {"slurm": slurm_exports, "pbs": pbs_exports, "mpi": mpi_exports, "deepspeed": deepspeed_exports}
    return exports[spec.launcher.name](spec, layout, run_folder)
