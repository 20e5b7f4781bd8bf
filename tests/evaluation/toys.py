"""An untrained model and a cell store, as the stages publish them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from pianolm import PianoTokenizer, Piece
from pianolm.data.cell_store import CellStoreWriter, PieceRow
from pianolm.lm.checkpoint import without_progress_bars
from pianolm.lm.model import build_llama
from pianolm.music.notes import make_notes
from pianolm.tokenizer.codebook import Codebook, Patterns
from pianolm.tokenizer.codebook_fit import complete
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Vocabulary
from tests.tokenizer.velocity.test_segment import random_segment_codec
from tests.toy_tokens import MODEL, VOCABULARY

CONTEXT = 48


def toy_model(context: int, vocabulary: Vocabulary = VOCABULARY, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    model = build_llama(MODEL, vocabulary.size, vocabulary.pad, vocabulary.bos, vocabulary.eos, context)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that the context matters
    return model.eval()


def model_directory(path: Path, velocity: bool, context: int = CONTEXT) -> Path:
    """An untrained model with its tokenizer."""
    codec = random_segment_codec(64) if velocity else None
    PianoTokenizer(_codebook(), TempoBins(), codec).save_pretrained(path / "tokenizer")
    with without_progress_bars():
        toy_model(context, Vocabulary()).save_pretrained(path)
    return path


@functools.cache
def _codebook() -> Codebook:
    none = np.zeros(0, np.uint64)
    return complete([Patterns(none, none)] * 3, Vocabulary())


def cell_store(path: Path, flat: tuple[bool, ...] = (False, False), kind: str = "performance") -> Path:
    """Pieces of 24 held and struck notes each, all for validation."""
    with CellStoreWriter(path) as store:
        for number, is_flat in enumerate(flat):
            piece = toy_piece(number).with_flat(is_flat)
            cells = piece.cells
            row = PieceRow(
                id=f"piece {number}",
                source="toy",
                composition="toy",
                split="validation",
                kind=kind,
                flat=is_flat,
                licence="",
                path=f"{number}.mid",
                notes=cells.struck_notes,
                cells=len(cells),
                beats=piece.n_beats,
                segments=cells.segment_velocity.size,
            )
            store.add(row, cells, piece.beats_sec, np.full(piece.beats_sec.size, -1, np.int8))
    return path


def toy_piece(seed: int) -> Piece:
    rng = np.random.default_rng(seed)
    onset = np.sort(rng.uniform(0, 8, 24))
    notes = make_notes(
        onset, onset + rng.uniform(0.1, 1.5, 24), rng.integers(40, 80, 24), rng.integers(1, 128, 24)
    )
    return Piece.from_notes(notes, np.arange(17) * 0.5)
