"""Untrained language models over the tokenizer of `tests/golden`, small enough to generate within a second."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pianolm import PianoTokenizer
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Vocabulary

CONTEXT = 48
GOLDEN = Path(__file__).parent / "golden"
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"bars": True},
    {"ties": "implicit"},
    {"ties": "implicit", "bars": True},
    {"ties": "explicit"},
    {"ties": "explicit", "bars": True},
    {"exact": False},
    {"ties": "explicit", "bars": True, "tempo": "log50_tuned"},
    {"tempo": "log50_tuned"},
]
"""Options of tokenizers with different grammars."""


_golden = functools.cache(PianoTokenizer.from_pretrained)


def toy_tokenizer(mode: str = "velocity", tempo: str = "log50", **options: Any) -> PianoTokenizer:
    golden = _golden(GOLDEN / "tokenizer")
    codec = golden.codec if mode == "velocity" else None
    return PianoTokenizer(golden.codebook, TempoBins(tempo), codec, **options)


def toy_llama(vocabulary: Vocabulary, seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """Llama of width 32 whose logits differ enough to notice a mistake."""
    settings = {
        "vocab_size": vocabulary.size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "pad_token_id": vocabulary.pad,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
    }
    torch.manual_seed(seed)
    llama = LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()
    with torch.no_grad():
        for parameter in llama.parameters():
            parameter.mul_(3).add_(torch.randn_like(parameter), alpha=0.05)
    return llama
