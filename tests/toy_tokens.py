"""Small token stores of well-formed sequences, without music behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pianolm.data.token_store import TokenStore, TokenStoreWriter
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.vocabulary import Kind, Vocabulary

VOCABULARY = Vocabulary(l1=16, l2=8, l3=4, velocity=8, reserved=377, tempo=5)
TUNED = replace(VOCABULARY, reserved=481)
"""With ids for tunings."""


@dataclass(frozen=True)
class ToyTokenizer:
    mode: str = "velocity"
    vocabulary: Vocabulary = VOCABULARY
    hashes: dict[str, str] = field(default_factory=lambda: {"vocabulary": "v", "codebook": "c", "tempo": "t"})


@dataclass(frozen=True)
class ToyPiece:
    ids: np.ndarray
    split: str = "train"
    kind: str = "performance"
    flat: bool = False
    id: str = "piece"
    source: str = "toy"
    composition: str = "toy"
    notes: int = 0


def sequence(
    seed: int, beats: int = 12, mode: str = "velocity", most_cells: int = 4, tuned: bool = False
) -> np.ndarray:
    """A piece of random tokens that the grammar accepts; a tuned one has the ids of `TUNED`."""
    rng, vocabulary = np.random.default_rng(seed), TUNED if tuned else VOCABULARY
    ids = [vocabulary.bos]

    def draw(kind: Kind) -> int:
        return vocabulary.offset(kind) + int(rng.integers(vocabulary.count(kind)))

    if tuned:
        ids.append(draw(Kind.TUNING))

    for _ in range(beats):
        ids.append(draw(Kind.TEMPO))
        pitches = np.sort(rng.choice(128, int(rng.integers(0, most_cells + 1)), replace=False))
        for pitch in pitches.tolist():
            layout = [[Kind.L1], [Kind.L2, Kind.L3, Kind.L3], [Kind.L3, Kind.L4, Kind.L4, Kind.L2]]
            codes = [draw(kind) for kind in layout[int(rng.integers(3))]]
            ids += [vocabulary.offset(Kind.PITCH) + pitch, *codes]
            if mode == "velocity":
                ids.append(draw(Kind.VELOCITY))
    ids = np.array([*ids, vocabulary.eos])
    silent = np.zeros(vocabulary.size, bool)
    assert Grammar(vocabulary, mode == "velocity", silent, tuned=tuned).is_complete(ids)
    return ids


def write_store(
    directory: Path, pieces: Sequence[ToyPiece], mode: str = "velocity", vocabulary: Vocabulary = VOCABULARY
) -> TokenStore:
    with TokenStoreWriter(directory, ToyTokenizer(mode, vocabulary)) as writer:
        for piece in pieces:
            writer.add(piece, piece.ids)
    return TokenStore.open(directory)


def settings(**changes: object) -> dict[str, object]:
    """Options of trainer, optimizer, loader and loss for toys, in one dict."""
    plain: dict[str, object] = {
        "context": 32,
        "batch_tokens": 128,
        "micro_batch_tokens": None,
        "max_steps": 8,
        "transpose": 0,
        "source_weights": {},
        "fill_share": 0.0,
        "control_share": 0.0,
        "val_tokens": None,
        "name": "adamw",
        "val_check_interval": 4,
        "lr": 1e-2,
        "adamw_lr": 1e-2,
        "schedule": "cosine",
        "decay_fraction": 0.25,
        "min_lr_fraction": 0.1,
        "warmup_steps": 2,
        "weight_decay": 0.1,
        "betas": [0.9, 0.95],
        "options": {},
        "gradient_clip_val": 1.0,
        "constrained": False,
    }
    return {**plain, **changes}


MODEL = {
    "width": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "ffn": 32,
    "rope_theta": 10000.0,
    "dropout": 0.0,
    "embedding": "table",
    "init": "induction",
}

EMBEDDINGS = ("codebook", "table")
"""Values of `model.embedding`."""
