"""Their contestants: transformers' Llama in the loops that people write around it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aiftrain.run.model import ModelSpec
from benchmarks.step_task import BATCH, BETAS, LENGTH, LR, MAX_NORM, WEIGHT_DECAY, Steps, Turn, answer, tokens_of


def deepspeed_section() -> dict[str, Any]:
    """What a user of DeepSpeed writes down: ZeRO 1, clipping, torch's AdamW."""
    return {
        "train_micro_batch_size_per_gpu": BATCH,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": MAX_NORM,
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


def adamw(model: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY)


def batches() -> Iterator[torch.Tensor]:
    return (torch.from_numpy(tokens_of(step)[:, :-1].copy()) for step in range(sys.maxsize))


def deepspeed_steps(shape: ModelSpec) -> Steps:
    """The loop of DeepSpeed's own getting-started page around transformers' Llama."""
    import deepspeed

    model = llama(shape)
    engine: Any = deepspeed.initialize(model=model, optimizer=adamw(model), config=deepspeed_section())[0]
    rows = batches()

    def run(count: int) -> None:
        for _ in range(count):
            tokens = next(rows)
            loss = engine(input_ids=tokens, labels=tokens).loss
            engine.backward(loss)
            engine.step()

    return run


def fabric_steps(shape: ModelSpec) -> Steps:
    """The loop of Lightning Fabric's getting-started page. Its DeepSpeed strategy asks for a GPU: it does without."""
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    fabric.launch()
    model = llama(shape)
    wrapped: Any
    wrapped, optimizer = fabric.setup(model, adamw(model))
    rows = batches()

    def run(count: int) -> None:
        for _ in range(count):
            tokens = next(rows)
            loss = wrapped(input_ids=tokens, labels=tokens).loss
            fabric.backward(loss)
            fabric.clip_gradients(wrapped, optimizer, max_norm=MAX_NORM)
            optimizer.step()
            optimizer.zero_grad()

    return run


def serve_trainer(shape: ModelSpec) -> None:
    """The Hugging Face Trainer owns its loop, so a callback waits for our word between two steps."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Rows(torch.utils.data.IterableDataset[dict[str, NDArray[np.int64]]]):
        def __iter__(self) -> Iterator[dict[str, NDArray[np.int64]]]:
            for step in range(sys.maxsize):
                for row in tokens_of(step)[:, :-1]:
                    yield {"input_ids": row, "labels": row}

    class Turns(TrainerCallback):
        left, turn = 0, Turn()

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if self.left == 0:
                self.left = int(sys.stdin.readline())
                self.turn = Turn()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.left -= 1
            if self.left == 0:
                self.turn.end()

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        deepspeed=deepspeed_section(),
        per_device_train_batch_size=BATCH,
        max_steps=10**6,
        learning_rate=LR,
        adam_beta2=BETAS[1],
        weight_decay=WEIGHT_DECAY,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    answer()
    Trainer(model=llama(shape), args=arguments, train_dataset=Rows(), callbacks=[Turns()]).train()
