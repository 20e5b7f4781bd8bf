"""`evaluate=lm`: how many bits per note a language model needs for the performances of a data source.

Every token but BOS is scored once (see `pianolm.evaluation.bits`), unconstrained and constrained to the ids that the
grammar allows there, which is how pianolm generates. A model trained with the constrained loss never learned what the
grammar forbids, so both figures are the constrained one.

Each token sees at least half of the model's context. The model's own tokenizer makes the tokens, so the music need not
be what it was trained on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pianolm.csv_file import write_csv
from pianolm.data.cell_store import CellStore, PieceRow
from pianolm.data.token_store import beat_positions
from pianolm.errors import UserError
from pianolm.evaluation.measure import Measure, report_progress
from pianolm.evaluation.selection import performances
from pianolm.stage import Metrics, StageContext
from pianolm.tokenizer.token_mask import token_masks
from pianolm.tokenizer.vocabulary import KIND_GROUPS, Kind

if TYPE_CHECKING:  # a plan reads `MEASURE` without importing torch
    from pianolm.evaluation.bits import TokenizedPiece
    from pianolm.generation.piano_lm import PianoLM
    from pianolm.tokenizer.tokenizer import PianoTokenizer

_CONSTRAINED = "constrained"


@dataclass(frozen=True)
class PieceBits:
    """Bits of one performance.

    Attributes:
        row: Its row in the cell store.
        seconds: From the first beat of its grid to the end of the last.
        tokens: Number of ids, BOS and EOS included.
        bits: By group of tokens; constrained ones if the model was trained with the constrained loss.
        constrained_bits: By group of tokens, each token among the ids that the grammar allows.
    """

    row: PieceRow
    seconds: float
    tokens: int
    bits: dict[str, float]
    constrained_bits: dict[str, float]


def run(ctx: StageContext) -> Metrics:
    """Measures, and writes `pieces.csv` to the run directory.

    Raises:
        UserError: The model, the cells or a setting cannot be used, or there is nothing to measure.
    """
    from pianolm.generation.piano_lm import PianoLM
    from pianolm.training.hardware import keep_freed_memory, require, resolve_hardware, set_threads

    set_threads(ctx.cfg, 1)
    keep_freed_memory()
    hardware = resolve_hardware(ctx.cfg["hardware"])
    require(hardware)
    lm = PianoLM.from_pretrained(ctx.upstream["model"], "cuda" if hardware.accelerator == "gpu" else "cpu")
    context = int(lm.model.config.max_position_embeddings)
    store = CellStore.open(ctx.upstream["cells"])
    indices, flat = _select(store, ctx, lm.tokenizer)
    if _trained_constrained(lm):
        print(
            "evaluate: the model was trained with the constrained loss: all bits are constrained", flush=True
        )
    results = list(
        report_progress(score_performances(lm, store, indices, hardware.precision), len(indices), _so_far)
    )
    _write_pieces(ctx.run_dir / "pieces.csv", results)
    return {
        **_metrics(results),
        "flat_pieces_left_out": flat,
        "context": context,
        "least_context": context + 1 - max(context // 2, 1),
    }


MEASURE = Measure("lm", needs=("model", "cells"), run=run)


def score_performances(
    lm: PianoLM, store: CellStore, indices: Iterable[int], precision: str = "32-true"
) -> Iterator[PieceBits]:
    """Scores pieces of a store.

    Args:
        lm: The model and its tokenizer.
        store: The music.
        indices: Pieces of the store.
        precision: Lightning's name of the precision in which matrices are multiplied.
    """
    import torch

    from pianolm.evaluation.bits import UNCONSTRAINED, TokenizedPiece, score_pieces

    tokenizer, constrained_only = lm.tokenizer, _trained_constrained(lm)
    pending: deque[tuple[int, TokenizedPiece]] = deque()

    def tokenized() -> Iterator[TokenizedPiece]:
        for index in indices:
            beats_sec = np.asarray(store.beats_sec(index))
            ids = tokenizer.encode_cells(store.cells(index), beats_sec, store.bar_starts(index))
            masks = {_CONSTRAINED: token_masks(tokenizer.grammar, ids)}
            tuning = next(iter(tokenizer.vocabulary.tuning_id(ids)), None)
            piece = TokenizedPiece(ids, beat_positions(ids, tokenizer.vocabulary), masks, tuning)
            pending.append((index, piece))
            yield pending[-1][1]

    autocast = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "16-mixed": torch.float16}
    dtype = autocast.get(precision)
    with torch.autocast(lm.model.device.type, dtype, enabled=dtype is not None):
        for bits in score_pieces(lm.model, tokenized()):
            index, piece = pending.popleft()
            unconstrained, constrained = (
                _by_group(tokenizer, piece.ids, bits[name]) for name in (UNCONSTRAINED, _CONSTRAINED)
            )
            beats_sec = store.beats_sec(index)
            yield PieceBits(
                row=store.pieces[index],
                seconds=float(beats_sec[-1] - beats_sec[0]),
                tokens=piece.ids.size,
                bits=constrained if constrained_only else unconstrained,
                constrained_bits=constrained,
            )


def _trained_constrained(lm: PianoLM) -> bool:
    from pianolm.lm.llama import CONSTRAINED_LOSS

    return bool(getattr(lm.model.config, CONSTRAINED_LOSS, False))


def _by_group(
    tokenizer: PianoTokenizer, ids: NDArray[np.int64], bits_T: NDArray[np.float64]
) -> dict[str, float]:
    """Bits of a piece by the groups of tokens that the tokenizer has."""
    bits_by_kind = np.bincount(tokenizer.vocabulary.kind_of[ids], bits_T, len(Kind))
    absent = {
        "velocity": tokenizer.codec is None,
        "bar": not tokenizer.bars,
        "duration": tokenizer.ties != "explicit",
    }
    return {
        name: float(bits_by_kind[list(kinds)].sum())
        for name, kinds in KIND_GROUPS.items()
        if not absent.get(name, False)
    }


def _select(store: CellStore, ctx: StageContext, tokenizer: PianoTokenizer) -> tuple[list[int], int]:
    """Performances of the split to score, and how many are left out because their velocities are flat.

    The velocities of a flat piece are meaningless, and without their bits its notes cannot be compared with others.
    """
    in_split = performances(store.pieces, ctx.cfg)
    indices = [index for index in in_split if tokenizer.codec is None or not store.flat(index)]
    if not indices:
        raise UserError(
            f"evaluate.split={ctx.cfg['evaluate']['split']}: all {len(in_split)} performances have flat velocities, "
            "on which a model with velocities cannot be measured; give other data, or a model of stage=base"
        )
    return indices, len(in_split) - len(indices)


def _so_far(results: Sequence[PieceBits]) -> str:
    bits = sum(sum(result.bits.values()) for result in results)
    return f"{bits / sum(result.row.notes for result in results):.3f} bits per note"


def _metrics(results: list[PieceBits]) -> Metrics:
    notes = sum(result.row.notes for result in results)
    tokens = sum(result.tokens for result in results)
    metrics: Metrics = {
        "pieces": len(results),
        "notes": notes,
        "tokens": tokens,
        "tokens_per_note": tokens / notes,
    }
    for prefix, pieces in (
        ("", [result.bits for result in results]),
        ("constrained_", [result.constrained_bits for result in results]),
    ):
        total = {name: sum(piece[name] for piece in pieces) for name in pieces[0]}
        metrics[f"{prefix}bits_per_note"] = sum(total.values()) / notes
        metrics |= {f"{prefix}bits_per_note_{name}": bits / notes for name, bits in total.items()}
    bits = sum(sum(result.bits.values()) for result in results)
    return {**metrics, "bits_per_second": bits / sum(result.seconds for result in results)}


def _write_pieces(path: Path, results: list[PieceBits]) -> None:
    groups = list(results[0].bits)
    columns = ("id", "path", "notes", "seconds", "tokens", "bits", "bits_per_note", "constrained_bits")
    rows = []
    for result in results:
        row, bits = result.row, sum(result.bits.values())
        values = (bits, bits / row.notes, sum(result.constrained_bits.values()), *result.bits.values())
        sizes = (row.notes, round(result.seconds, 3), result.tokens)
        rows.append((row.id, row.path, *sizes, *(round(value, 3) for value in values)))
    write_csv(path, (*columns, *(f"bits_{name}" for name in groups)), rows)
