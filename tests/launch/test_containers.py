"""What job.sh makes of containers: the words of Singularity and Apptainer, Pyxis' options, packed environments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiftrain.errors import UserError
from aiftrain.launch.script import render
from aiftrain.run.folder import RunFolder
from tests.launch.test_script import MI250X, execute, layout, lumi_spec


def test_packages_of_the_host_are_not_for_the_python_of_an_image(run_folder: RunFolder, tmp_path: Path) -> None:
    spec = lumi_spec({"modules": ["export PYTHONPATH=/site/of/the/host"]})
    ran = execute(render(spec, layout(spec), run_folder), tmp_path)
    assert "PYTHONPATH" not in ran["environment"] and ran["environment"]["PYTHONNOUSERSITE"] == "1"
    image = ran["arguments"].index("/images/multi torch.sif")
    inside = [*ran["arguments"][image + 1 : -4], "sh", "-c", "echo $PYTHONPATH"]
    for own, expected in (("/opt/venv", ":/opt/venv"), ("", "")):  # what the image sets stays, behind this package
        seen = subprocess.run(inside, env={"PATH": "/bin", "PYTHONPATH": own}, capture_output=True, text=True)
        assert seen.stdout == f"{Path(__file__).parents[2]}{expected}\n"


def test_a_folder_that_no_container_can_bind_is_refused(tmp_path: Path) -> None:
    spec = lumi_spec()
    with pytest.raises(UserError, match="comma or a colon"):
        render(spec, layout(spec), RunFolder(tmp_path / "a,b"))
    enroot = lumi_spec({"container": {"runtime": "enroot", "image": "/i.sqsh"}})
    with pytest.raises(UserError, match="a comma, a colon or a blank"):
        render(enroot, layout(enroot), RunFolder(tmp_path / "a b"))


def test_where_data_and_checkpoints_lie_is_bound_too(run_folder: RunFolder, tmp_path: Path) -> None:
    for name in ("cache", "checkpoints", "tokens"):
        (tmp_path / name).mkdir()
    data = {
        "cache_dir": str(tmp_path / "cache"),
        "sources": {"en": {"kind": "tokens", "path": f"{tmp_path}/tokens/en"}},
    }
    storage = {"name": "local", "save_every": 10, "path": str(tmp_path / "checkpoints")}
    spec = lumi_spec(data={"name": "ours", **data}, storage=storage)
    arguments = execute(render(spec, layout(spec), run_folder), tmp_path)["arguments"]
    assert {f"--bind={tmp_path / name}" for name in ("cache", "checkpoints", "tokens")} <= set(arguments)


def test_a_packed_environment_is_mounted_in_a_container(run_folder: RunFolder, tmp_path: Path) -> None:
    spec = lumi_spec(launcher={"name": "slurm", "env_archive": str(tmp_path / "my env.sqsh")})
    script = render(spec, layout(spec), run_folder)
    arguments = execute(script, tmp_path)["arguments"]
    assert f"--bind={tmp_path / 'my env.sqsh'}:/user-software:image-src=/" in arguments
    assert arguments[-4] == "/user-software/bin/python" and "sbcast" not in script


@pytest.mark.parametrize(
    ("factory", "launcher", "said"),
    [
        ({}, {"env_archive": "/e.tar"}, "mounts a squashfs file"),
        ({"container": None}, {"env_archive": "/e.sqsh"}, "unpacked on each node"),
        ({"container": {"runtime": "enroot", "image": "/i.sqsh"}}, {"env_archive": "/e.sqsh"}, "put the packages into"),
        ({"container": None}, {"name": "mpi", "env_archive": "/e.tar"}, "launcher=mpi unpacks no"),
        ({"container": None}, {"env_archive": "/e.tar", "python": "/python"}, "leave launcher.python out"),
    ],
)
def test_a_packed_environment_that_cannot_be_used_is_refused(
    factory: dict[str, Any], launcher: dict[str, str], said: str, run_folder: RunFolder
) -> None:
    spec = lumi_spec(factory, launcher={"name": "slurm"} | launcher)
    with pytest.raises(UserError, match=said):
        render(spec, layout(spec), run_folder)


def test_without_an_image_there_is_no_container_and_the_script_says_so(run_folder: RunFolder, tmp_path: Path) -> None:
    spec = lumi_spec({"container": {"runtime": "singularity"}})
    script = render(spec, layout(spec), run_folder)
    assert "# No container, because no image is named" in script
    arguments = execute(script, tmp_path)["arguments"]
    assert "singularity" not in arguments and sys.executable in arguments
    other = lumi_spec({"container": None}, launcher={"name": "slurm", "python": "/my env/bin/python"})
    assert "/my env/bin/python" in execute(render(other, layout(other), run_folder), tmp_path)["arguments"]


def test_an_nvidia_container_gets_nv_once(run_folder: RunFolder, tmp_path: Path) -> None:
    for flags in ([], ["--nv"]):
        container = {"runtime": "apptainer", "image": "/i.sif", "flags": flags}
        spec = lumi_spec({"container": container}, hardware=MI250X | {"kind": "cuda"})
        assert execute(render(spec, layout(spec), run_folder), tmp_path)["arguments"].count("--nv") == 1


def test_enroot_goes_through_options_of_srun(tmp_path: Path) -> None:
    run_folder = RunFolder(tmp_path / "läuf")  # without a blank
    run_folder.write(run_folder.run_json, "{}")
    spec = lumi_spec({"container": {"runtime": "enroot", "image": "/i.sqsh", "binds": ["/data"]}})
    arguments = execute(render(spec, layout(spec), run_folder), tmp_path)["arguments"]
    mounts = next(word for word in arguments if word.startswith("--container-mounts="))
    assert {"--container-image=/i.sqsh", f"--container-workdir={Path.cwd()}"} <= set(arguments)
    assert f"/data:/data,{run_folder.path}:{run_folder.path}" in mounts
    kept = next(word for word in arguments if word.startswith("--container-env="))
    assert {"OMP_NUM_THREADS", "NCCL_SOCKET_IFNAME", "WANDB_MODE"} <= set(kept.partition("=")[2].split(","))
