"""Seeds, deterministic mode, and the state of every random generator as arrays that a checkpoint can hold."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_ROUND = 8192  # bytes: more than a state of Python's or numpy's generator takes

Arrays = dict[str, NDArray[Any]]


def seed_everything(seed: int, rank: int, deterministic: bool) -> None:
    """Seed Python, numpy and torch differently on each rank; `deterministic` refuses operations that are not."""
    own = (seed * 1_000_003 + rank) % 2**32
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)
    if deterministic:  # even to say no costs seconds: torch then loads its compiler
        torch.use_deterministic_algorithms(True)


def random_states() -> Arrays:
    """The states of this process's generators, each as bytes."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    numpy_state = [kind, np.asarray(keys).tolist(), position, has_gauss, gauss]
    states = {
        "random.python": _to_bytes(random.getstate()),
        "random.numpy": _to_bytes(numpy_state),
        "random.torch": torch.get_rng_state().numpy(),
    }
    if torch.cuda.is_initialized():
        states["random.device"] = torch.cuda.get_rng_state().numpy()
    return states


def restore_random_states(states: Arrays) -> None:
    """What `random_states` gave, put back."""
    version, internal, gauss = _from_bytes(states["random.python"])
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(_from_bytes(states["random.numpy"])))
    torch.set_rng_state(torch.from_numpy(states["random.torch"].copy()))
    if "random.device" in states and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(torch.from_numpy(states["random.device"].copy()))


def _to_bytes(value: object) -> NDArray[np.uint8]:
    """As many bytes every time: the header of a shard, and with it the digest of its weights, then stays the same."""
    text = json.dumps(value).encode()
    return np.frombuffer(text.ljust(-(-len(text) // _ROUND) * _ROUND), dtype=np.uint8)


def _from_bytes(array: NDArray[Any]) -> Any:
    return json.loads(array.tobytes())
