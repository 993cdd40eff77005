"""Where a checkpoint comes from, as its manifest tells: who held what, which data, and what it was written to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from aiftrain.data.corpus import PreparedCorpus
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.mounts import file_system


class LayoutRecord(Strict):
    """How the ranks shared out the model: the strategy by its name, and how many ranks stand on each axis."""

    strategy: str
    zero_stage: int = Field(ge=0, le=3)
    axes: dict[str, int]

    @classmethod
    def of(cls, strategy: str, layout: ParallelLayout) -> LayoutRecord:
        axes = {
            "data": layout.data_parallel,
            "tensor": layout.tensor_parallel,
            "pipeline": layout.pipeline_parallel,
            "sequence": layout.context_parallel,
            "expert": layout.expert_parallel,
        }
        return cls(strategy=strategy, zero_stage=layout.zero_stage, axes=axes)


class DataRecord(Strict):
    """The prepared corpus by its digest, each of its sources by theirs, and how many samples were taken before."""

    corpus: str
    sources: dict[str, str]
    samples: int = Field(ge=0)

    @classmethod
    def of(cls, corpus: PreparedCorpus, samples: int) -> DataRecord:
        digests = {name: source.digest for name, source in corpus.sources.items()}
        return cls(corpus=corpus.digest, sources=digests, samples=samples)


class StorageRecord(Strict):
    """What the checkpoint was first written to: a folder, on a file system of this kind (`unknown`: nobody told)."""

    kind: Literal["folder"] = "folder"
    file_system: str

    @classmethod
    def of(cls, folder: Path) -> StorageRecord:
        """Of a folder that exists."""
        try:
            return cls(file_system=file_system(folder)[1])
        except (OSError, ValueError):
            return cls(file_system="unknown")
