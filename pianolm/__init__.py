"""pianolm: an experiment framework for piano language models.

The three public names are imported on first use, so that tokenizing needs no torch:

    from pianolm import Piece, PianoTokenizer, PianoLM
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pianolm.generation.piano_lm import PianoLM
    from pianolm.music.piece import Piece
    from pianolm.tokenizer.tokenizer import PianoTokenizer

__version__ = "0.2.0"
__all__ = ["PianoLM", "PianoTokenizer", "Piece"]

_HOME = {
    "Piece": "pianolm.music.piece",
    "PianoTokenizer": "pianolm.tokenizer.tokenizer",
    "PianoLM": "pianolm.generation.piano_lm",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'pianolm' has no attribute {name!r}")
