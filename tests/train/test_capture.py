"""Saving on the second GPU of a node, as far as a machine without one can tell."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import get_ident
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aiftrain.train.capture import Capture
from aiftrain.train.pinning import Pinning


def test_the_thread_that_saves_takes_the_gpu_of_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread begins with the node's first GPU, and would make a context there, of half a GB."""
    taken: dict[int, torch.device] = {}
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: taken.update({get_ident(): device}))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(record_event=lambda: None))
    engine: Any = SimpleNamespace(device=torch.device("cuda", 1), fragments=lambda: iter(()))
    capture = Capture(engine, None, Pinning())
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(get_ident).result()
        pool.submit(capture.save, tmp_path / "shard").result()
    assert taken == {thread: torch.device("cuda", 1)}
