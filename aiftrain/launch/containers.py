"""What starts a Python in a container: the words of Singularity and Apptainer, and srun's options for Pyxis.

Written from the runtimes' documentation; what they do with it is in docs/verification.md. Of the environment that
job.sh sets, a value that the image itself sets would win: Pyxis is told which to keep, and for the others the script
names them once more (`image_environment`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aiftrain.errors import UserError
from aiftrain.launch.environment import installed, package_root, run_environment
from aiftrain.run.machine import Container
from aiftrain.run.spec import RunSpec

PACKED = "/user-software"  # where a packed environment is mounted in a container
# An image may need a PYTHONPATH of its own, as LUMI's does: this package comes before it, not in its place.
_FIND_PACKAGE = 'export PYTHONPATH="$0${PYTHONPATH:+:$PYTHONPATH}"; exec "$@"'


def used_container(spec: RunSpec) -> tuple[Container, str] | None:
    """The container that ranks run in, and its image; None where no image is named, or torchrun starts them here."""
    container = None if spec.launcher.name == "local" else spec.factory.container
    return (container, container.image) if container and container.image else None


def image_file(container: Container) -> Path | None:
    """The image's file; None where it is the address of an image in a registry.

    Pyxis takes a path for one only where it begins with a dot or a slash.
    """
    image = container.image or ""
    is_file = image.startswith(("/", ".")) if container.runtime == "enroot" else "://" not in image
    return Path(image) if is_file else None


def image_environment(spec: RunSpec) -> list[str]:
    """The variables that a job sets, and an image may set too."""
    return sorted({*run_environment(spec), "OMP_NUM_THREADS"})


def image_prefix(spec: RunSpec) -> str | None:
    """What stands before a variable's name so that it wins over the image's; None without Singularity or Apptainer."""
    used = used_container(spec)
    return f"{used[0].runtime.upper()}ENV_" if used and used[0].runtime != "enroot" else None


def python_in_image(spec: RunSpec) -> list[str]:
    """The ranks' Python, once the container runs."""
    python = f"{PACKED}/bin/python" if spec.launcher.env_archive else spec.launcher.python or "python3"
    return [python] if installed() else ["sh", "-c", _FIND_PACKAGE, str(package_root()), python]


def singularity(spec: RunSpec, container: Container, run_folder: Path) -> Iterator[str]:
    """Images for AMD bring their own ROCm, and /dev is bound anyway: --rocm would mix the node's libraries in."""
    yield from (container.runtime, "exec")
    if spec.hardware.kind == "cuda" and "--nv" not in container.flags:
        yield "--nv"
    yield from container.flags
    yield f"--pwd={Path.cwd()}"  # or a folder that cannot be entered is silently another one
    yield from (f"--bind={folder}" for folder in _folders_to_bind(spec, container, run_folder))
    if spec.launcher.env_archive:
        yield f"--bind={_bindable(Path(spec.launcher.env_archive).resolve(), ',:')}:{PACKED}:image-src=/"
    yield str(container.image)


def pyxis(spec: RunSpec, container: Container, run_folder: Path) -> Iterator[str]:
    """Options of srun. Without a working directory it would be the image's."""
    folders = _folders_to_bind(spec, container, run_folder)
    mounts = ",".join(folder if ":" in folder else f"{folder}:{folder}" for folder in folders)
    yield from (f"--container-image={container.image}", f"--container-mounts={mounts}")
    yield from (f"--container-workdir={Path.cwd()}", f"--container-env={','.join(image_environment(spec))}")
    yield from container.flags


def _folders_to_bind(spec: RunSpec, container: Container, run_folder: Path) -> list[str]:
    """The site's, and those of the run that lie in none of them. UserError for a name that no option can hold."""
    folders = list(container.binds)
    unfit = ",: " if container.runtime == "enroot" else ",:"  # Pyxis stands blanks since April 2026 only
    for folder in (run_folder, Path.cwd(), package_root(), *_data_folders(spec)):
        if not any(folder.is_relative_to(bound) for bound in folders):
            folders.append(_bindable(folder, unfit))
    return folders


def _data_folders(spec: RunSpec) -> Iterator[Path]:
    """Where ranks read tokens and write checkpoints; of what is not there yet, the folder that it will come into."""
    named = [spec.data.cache_dir, spec.storage.path, spec.data.tokenizer.path]
    named += [source.path for source in spec.data.sources.values() if source.kind == "tokens"]
    for path in (Path(name).resolve() for name in named if name):
        yield next((each for each in (path, *path.parents[:-1]) if each.is_dir()), path)


def _bindable(path: Path, unfit: str) -> str:
    if any(character in str(path) for character in unfit):
        signs = "a comma or a colon" if " " not in unfit else "a comma, a colon or a blank"
        raise UserError(f"{path} cannot be bound into a container: its name holds {signs}")
    return str(path)
