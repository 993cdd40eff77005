"""A rank that takes one step of two micro-batches and writes down the bytes of every tensor that it holds."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import read_rank
from aiftrain.run.spec import RunSpec
from aiftrain.train.briefing import Briefing
from aiftrain.train.engine import Engine
from aiftrain.train.mesh import Mesh
from aiftrain.train.process import RankProcess
from aiftrain.train.rendezvous import join, meet, part


def main(arguments: list[str]) -> int:
    """Leave held-RANK.json in the run folder: {"weights", "gradients", "optimizer"} in bytes."""
    gc.freeze()  # of the objects that are looked through later, 400,000 were there before: modules
    get_accelerator().is_fp16_supported = lambda: True  # on any CPU, if slowly
    folder = RunFolder(arguments[0])
    rank = read_rank(os.environ)
    RankProcess(folder, int(os.environ["AIFTRAIN_ATTEMPT"]), rank).begin()
    briefing, store = meet(rank, lambda: Briefing.read(folder))
    spec, execution = briefing.spec, briefing.execution
    device = join(rank, spec.hardware, store)
    engine = Engine(spec, execution, briefing.deepspeed, device, Mesh.of(execution.layout, rank.rank))
    held = _held(engine._engine, spec, execution.layout.accumulation)
    folder.write_json(folder.path / f"held-{rank.rank}.json", held)
    part()
    return 0


def _held(deepspeed: Any, spec: RunSpec, accumulation: int) -> dict[str, int]:
    """Gradients as they lie between micro-batches or before the step, whichever is more; the rest after the step."""
    gradients = []
    for _ in range(accumulation):
        tokens = torch.randint(0, spec.model.vocab_size, (1, spec.train.sequence_length))
        objective, _ = deepspeed(tokens, tokens, None)
        deepspeed.backward(objective)
        gradients.append(_settled(deepspeed))
        deepspeed.step()
    weights = list(_weights(deepspeed))
    return {
        "weights": _distinct(weights),
        "gradients": max(gradients),
        "optimizer": _distinct(_optimizer(deepspeed), but=weights),
    }


def _settled(deepspeed: Any) -> int:
    """Bytes of gradients that stay: on a busy machine a buffer of gloo's lives on for a moment after its collective."""
    looks = []
    for _ in range(4):
        looks.append(_distinct(_others(deepspeed), but=[*_weights(deepspeed), *_optimizer(deepspeed)]))
        time.sleep(0.1)
    return min(looks)


def _distinct(tensors: Iterable[Tensor], but: Iterable[Tensor] = ()) -> int:
    """Bytes of the tensors' memory, each piece once. Counters and losses (one element) are no model state."""
    left_out = {tensor.untyped_storage().data_ptr() for tensor in but}
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.device.type != "meta"]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes() > 8}
    return sum(size for address, size in sizes.items() if address not in left_out)


def _weights(deepspeed: Any) -> Iterator[Tensor]:
    for parameter in deepspeed.module.parameters():
        yield parameter.data
        if hasattr(parameter, "ds_tensor"):
            yield parameter.ds_tensor.data


def _optimizer(deepspeed: Any) -> Iterator[Tensor]:
    zero = deepspeed.optimizer
    inner = getattr(zero, "optimizer", zero)
    in_groups = [master for group in inner.param_groups for master in group["params"]]
    for master in getattr(zero, "fp32_partitioned_groups_flat", in_groups):
        yield master.data
        yield from inner.state[master].values()


def _others(deepspeed: Any) -> Iterator[Tensor]:
    """Every tensor alive that is neither a table of the model's nor a communication buffer."""
    gc.collect()
    buffers = {buffer.untyped_storage().data_ptr() for buffer in [*deepspeed.module.buffers(), *_buckets(deepspeed)]}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, torch.nn.Parameter):
            tensors = (thing, thing.grad if thing.is_leaf else None)
            yield from (tensor for tensor in tensors if tensor is not None and _is_held(tensor, buffers))


def _is_held(tensor: Tensor, buffers: set[int]) -> bool:
    real = tensor.is_floating_point() and tensor.device.type != "meta"
    return real and tensor.untyped_storage().data_ptr() not in buffers


def _buckets(deepspeed: Any) -> Iterator[Tensor]:
    for bucket in getattr(deepspeed.optimizer, "ipg_buckets", {}).values():
        held = bucket.buffer if isinstance(bucket.buffer, list) else [bucket.buffer]
        yield from (buffer for buffer in held if buffer is not None)
