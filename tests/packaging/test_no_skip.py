"""AIFTRAIN_NO_SKIP=1, which CI sets, turns every skip into a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SKIPS = (
    "import pytest\n\n@pytest.mark.skip(reason='no service')\ndef test_a(): ...\n\ndef test_b(): pytest.skip('late')\n"
)
FILE_SKIPS = "import pytest\npytest.importorskip('no_such_module')\n"


def summary(folder: Path, no_skip: str) -> str:
    (folder / "test_skips.py").write_text(SKIPS)
    (folder / "test_file_skips.py").write_text(FILE_SKIPS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "AIFTRAIN_NO_SKIP": no_skip}
    done = subprocess.run(
        [*command, "--continue-on-collection-errors"], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.stdout.splitlines()[-1]


def test_skips_fail_where_none_is_allowed(tmp_path: Path) -> None:
    assert summary(tmp_path, "1").startswith("1 failed, 2 errors")
    assert summary(tmp_path, "0").startswith("3 skipped")
