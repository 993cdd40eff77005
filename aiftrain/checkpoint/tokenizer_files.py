"""The tokenizer of an exported model: the run's own file, and the tokenizer_config.json that transformers reads.

A SentencePiece file is read by transformers as Llama's kind: byte fallback and no normalization. A file that
normalizes text gives the run's tokens with the package sentencepiece only.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from aiftrain.data.corpus import PreparedTokenizer
from aiftrain.data.files import optional_module
from aiftrain.run.durable import replace_text


def describe_tokenizer(out: Path, tokenizer: PreparedTokenizer, sequence_length: int) -> None:
    """Write tokenizer_config.json for a tokenizer's file, which is in the folder already."""
    document = _of_json(tokenizer) if tokenizer.path.suffix == ".json" else _of_sentencepiece(tokenizer)
    document |= {"model_max_length": sequence_length, "clean_up_tokenization_spaces": False}
    replace_text(out / "tokenizer_config.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _of_json(tokenizer: PreparedTokenizer) -> dict[str, object]:
    end = Tokenizer.from_file(str(tokenizer.path)).id_to_token(tokenizer.eos_id)
    return {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "pad_token": end}


def _of_sentencepiece(tokenizer: PreparedTokenizer) -> dict[str, object]:
    library = optional_module("sentencepiece", "sentencepiece", f"the tokenizer {tokenizer.path.name}")
    pieces = library.SentencePieceProcessor(model_file=str(tokenizer.path))
    end = pieces.id_to_piece(tokenizer.eos_id)
    return {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "unk_token": pieces.id_to_piece(pieces.unk_id()),
        "eos_token": end,
        "pad_token": end,
    }
