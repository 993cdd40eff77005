"""What ranks tell DeepSpeed of themselves."""

from __future__ import annotations

import pytest
import torch

from aiftrain.run.rank import Rank
from aiftrain.train.rendezvous import words_to_deepspeed


@pytest.mark.parametrize(
    ("device", "number"),
    [
        (torch.device("cuda", 3), "3"),
        pytest.param(torch.device("cuda", 0), "0", id="a job that shows each rank its own GPU alone"),
        (torch.device("cpu"), "3"),
    ],
)
def test_deepspeed_takes_the_gpu_that_the_rank_has_taken(device: torch.device, number: str) -> None:
    rank = Rank(rank=7, world_size=8, local_rank=3, local_size=4, launcher="slurm")
    words = words_to_deepspeed(rank, device)
    assert words == {"RANK": "7", "WORLD_SIZE": "8", "LOCAL_RANK": number, "LOCAL_WORLD_SIZE": "4"}
