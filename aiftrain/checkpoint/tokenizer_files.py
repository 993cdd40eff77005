"""The tokenizer of an exported model: the run's own file, and the tokenizer_config.json that transformers reads.

A SentencePiece file is read by transformers as Llama's kind: byte fallback and no normalization. A file that
normalizes text gives the run's tokens with the package sentencepiece only.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer

from aiftrain.data.corpus import PreparedTokenizer
from aiftrain.data.files import optional_module
from aiftrain.errors import UserError
from aiftrain.run.durable import replace_text


def write_tokenizer(out: Path, tokenizer: PreparedTokenizer, sequence_length: int) -> None:
    """Copy the tokenizer's file under the name transformers knows, and describe it. UserError where it is gone."""
    if not tokenizer.path.is_file():
        raise UserError(f"the tokenizer of the run, {tokenizer.path}, is not there any more: put it back to export")
    is_json = tokenizer.path.suffix == ".json"
    shutil.copyfile(tokenizer.path, out / ("tokenizer.json" if is_json else "tokenizer.model"))
    document = _of_json(tokenizer) if is_json else _of_sentencepiece(tokenizer)
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
