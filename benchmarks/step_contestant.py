"""One contestant of benchmarks/step.py, `step_contestant.py NAME SIZE VOCABULARY`: it times steps on request."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aiftrain.data.batches import Batch
from aiftrain.run.corpus import DataSpec
from aiftrain.run.layout import Execution, ParallelLayout, make_layout
from aiftrain.run.machine import Factory, Hardware
from aiftrain.run.model import ModelSpec
from aiftrain.run.rank import Rank
from aiftrain.run.spec import (
    LauncherSpec,
    OptimizerSpec,
    ParallelSpec,
    RunSpec,
    StorageSpec,
    TrackingSpec,
    TrainSpec,
)

THREADS = len(os.sched_getaffinity(0))
LENGTH, BATCH, LR = 512, 4, 3e-4
SHAPES = {
    "10m": {"hidden_size": 320, "intermediate_size": 864, "num_layers": 6, "num_heads": 5, "num_kv_heads": 5},
    "60m": {"hidden_size": 640, "intermediate_size": 1728, "num_layers": 10, "num_heads": 10, "num_kv_heads": 10},
}
Steps = Callable[[int], None]


def shape(size: str, vocabulary: int) -> ModelSpec:
    return ModelSpec.model_validate({"name": size, "vocab_size": vocabulary} | SHAPES[size])


def tokens_of(step: int) -> NDArray[np.int64]:
    """A batch [BATCH, LENGTH + 1] of random tokens, the same for every contestant."""
    return np.random.default_rng(step).integers(0, 8192, (BATCH, LENGTH + 1))


def aiftrain_steps(model: ModelSpec, compiled: bool) -> Steps:
    """Our engine, on batches with three documents a row."""
    from aiftrain.plan.engine_config import deepspeed_config
    from aiftrain.train.engine import Engine
    from aiftrain.train.mesh import ALONE
    from aiftrain.train.rendezvous import join

    spec = run_spec(model, compiled)
    layout = make_layout(spec)
    assert isinstance(layout, ParallelLayout)
    device = join(Rank(), spec.hardware, torch.distributed.HashStore())  # type: ignore[attr-defined]
    execution = Execution(layout=layout, precision="fp32")
    engine = Engine(spec, execution, deepspeed_config(spec, layout, "fp32"), device, ALONE)
    batches = (our_batch(step) for step in range(sys.maxsize))

    def run(count: int) -> None:
        for _ in range(count):
            batch = next(batches)
            engine.step([batch], LR, batch.valid_tokens)

    return run


def our_batch(step: int) -> Batch:
    tokens = tokens_of(step)
    documents = np.broadcast_to(np.arange(LENGTH, dtype=np.int32) * 3 // LENGTH, (BATCH, LENGTH)).copy()
    return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), documents, np.zeros(BATCH, dtype=np.int64))


def run_spec(model: ModelSpec, compiled: bool) -> RunSpec:
    return RunSpec(
        recipe="benchmark",
        factory=Factory(name="local", title="here"),
        hardware=Hardware(name="cpu", title="CPU", kind="cpu"),
        parallelism=ParallelSpec(name="zero1", zero_stage=1),
        model=model,
        data=DataSpec.model_validate({"name": "none", "sources": {"none": {"kind": "python-docs"}}}),
        optimizer=OptimizerSpec(name="adamw", lr=LR),
        train=TrainSpec(steps=1, sequence_length=LENGTH, global_batch=BATCH, micro_batch=BATCH, compile=compiled),
        storage=StorageSpec(name="local", save_every=1),
        tracking=TrackingSpec(name="none"),
        launcher=LauncherSpec(name="local"),
    )


def deepspeed_section() -> dict[str, Any]:
    """What a user of DeepSpeed writes down: ZeRO 1, clipping, torch's AdamW."""
    return {
        "train_micro_batch_size_per_gpu": BATCH,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 1},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31 - 1,
    }


def llama(ours: ModelSpec) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=ours.vocab_size,
            hidden_size=ours.hidden_size,
            intermediate_size=ours.intermediate_size,
            num_hidden_layers=ours.num_layers,
            num_attention_heads=ours.num_heads,
            num_key_value_heads=ours.num_kv_heads,
            max_position_embeddings=LENGTH,
            use_cache=False,
        )
    )


def transformers_steps(shape: ModelSpec) -> Steps:
    """The loop of DeepSpeed's own getting-started page around transformers' Llama."""
    import deepspeed

    model = llama(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.1)
    engine: Any = deepspeed.initialize(model=model, optimizer=optimizer, config=deepspeed_section())[0]
    batches = (torch.from_numpy(tokens_of(step)[:, :-1].copy()) for step in range(sys.maxsize))

    def run(count: int) -> None:
        for _ in range(count):
            tokens = next(batches)
            loss = engine(input_ids=tokens, labels=tokens).loss
            engine.backward(loss)
            engine.step()

    return run


def serve_trainer(shape: ModelSpec) -> None:
    """The Hugging Face Trainer owns its loop, so a callback waits for our word between two steps."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Steps(torch.utils.data.IterableDataset[dict[str, NDArray[np.int64]]]):
        def __iter__(self) -> Iterator[dict[str, NDArray[np.int64]]]:
            for step in range(sys.maxsize):
                for row in tokens_of(step)[:, :-1]:
                    yield {"input_ids": row, "labels": row}

    class Turns(TrainerCallback):
        left, started = 0, 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if self.left == 0:
                self.left = int(sys.stdin.readline())
                self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.left -= 1
            if self.left == 0:
                answer({"seconds": time.perf_counter() - self.started})

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        deepspeed=deepspeed_section(),
        per_device_train_batch_size=BATCH,
        max_steps=10**6,
        learning_rate=LR,
        adam_beta2=0.95,
        weight_decay=0.1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    answer({})
    Trainer(model=llama(shape), args=arguments, train_dataset=Steps(), callbacks=[Turns()]).train()


def facts(model: ModelSpec) -> dict[str, float]:
    from aiftrain.train.measure import matmul_flops

    return {
        "parameters": model.parameters,
        "tokens": BATCH * LENGTH,
        "threads": THREADS,
        "flops": model.flops_per_token(LENGTH) * BATCH * LENGTH,
        "matmul_flops": matmul_flops(torch.device("cpu"), "fp32"),
    }


def answer(document: dict[str, float]) -> None:
    print(json.dumps(document), flush=True)


def serve(run: Steps, known: dict[str, float]) -> None:
    answer(known)
    for line in sys.stdin:
        started = time.perf_counter()
        run(int(line))
        answer({"seconds": time.perf_counter() - started})


def main() -> None:
    name, size, vocabulary = sys.argv[1:]
    model = shape(size, int(vocabulary))
    torch.set_num_threads(THREADS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    if name == "trainer":
        serve_trainer(model)
    elif name.startswith("transformers"):
        serve(transformers_steps(model), {})
    else:
        serve(aiftrain_steps(model, compiled=name.endswith("compiled")), facts(model))


if __name__ == "__main__":
    main()
