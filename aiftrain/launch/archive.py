"""`launcher.env_archive`: where a packed environment is used, and the Python that it brings."""

from __future__ import annotations

from aiftrain.errors import UserError
from aiftrain.launch.containers import used_container
from aiftrain.run.spec import RunSpec

TARS, IMAGES = (".tar", ".tar.zst"), (".sqsh", ".squashfs")  # unpacked on nodes, and mounted in containers
# In shell quotes already: which folder of a node it is, launchers/stage.sh finds on the node.
STAGED_PYTHON = '"$AIFTRAIN_STAGED"/bin/python'


def is_staged(spec: RunSpec) -> bool:
    """Whether the job unpacks the archive on its nodes.

    UserError where the archive does not go with the launcher or the container.
    """
    archive = spec.launcher.env_archive
    if archive is None:
        return False
    if spec.launcher.python:
        raise UserError("launcher.env_archive brings its own Python: leave launcher.python out")
    container = used_container(spec)
    if container is None:
        _want(archive, TARS, "ranks without a container run from an archive that is unpacked on each node")
        if spec.launcher.name != "slurm":
            raise UserError(f"launcher={spec.launcher.name} unpacks no launcher.env_archive; launcher=slurm does")
        return True
    if container[0].runtime == "enroot":
        raise UserError("enroot mounts no launcher.env_archive: put the packages into the image")
    _want(archive, IMAGES, f"{container[0].runtime} mounts a squashfs file")
    return False


def _want(archive: str, endings: tuple[str, ...], why: str) -> None:
    if not archive.endswith(endings):
        fits = " or ".join(endings)
        raise UserError(f"launcher.env_archive={archive}: {why}, {fits}: python -m aiftrain env pack NAME{endings[0]}")
