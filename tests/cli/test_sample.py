"""`sample` where torch is installed and broken."""

from __future__ import annotations

import sys

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder


class _Broken:
    """A finder to which importing the sampler fails as a broken torch makes it fail: not as if it were absent."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "aiftrain.train.sample":
            raise ImportError("libtorch.so: cannot open shared object file")


def test_a_torch_that_cannot_be_imported_is_a_message(
    run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "aiftrain.train.sample", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Broken, *sys.meta_path])
    assert main(["sample", str(run_folder.path), "text"]) == 2
    assert "sampling needs torch" in capsys.readouterr().err
