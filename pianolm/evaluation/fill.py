"""`evaluate=fill`: what a model writes into gaps of pieces, beside what stood there.

Of each piece one gap of `evaluate.gap_beats` beats is drawn by `seed`, from a bar line on where bars are known, with
`SIDE_BEATS` beats on either side. Of the human middle are counted the bits a note that the model needs given
both sides, and given the past alone; in both cases beats and bars are given, and each token is among the ids that the
grammar allows there. The model fills the gap once, sampled as `generate.*` says, and the statistics of
`evaluate=samples` compare both middles.

Shapes: M targets of a middle, T tokens, V ids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pianolm.csv_file import write_csv
from pianolm.data.cell_store import CellStore
from pianolm.errors import UserError
from pianolm.evaluation.excerpts import bar_length, cut, within
from pianolm.evaluation.measure import Measure
from pianolm.evaluation.music_statistics import key_of
from pianolm.evaluation.samples import Excerpt, compare, measured
from pianolm.evaluation.samples_report import write
from pianolm.evaluation.selection import evenly_spaced, pieces_to_continue
from pianolm.generation.config import GenerationConfig, planned_sampling, told_of_model
from pianolm.generation.prompts import check_what_is_learned
from pianolm.music.gap import Gap
from pianolm.music.piece import Piece
from pianolm.stage import Metrics, StageContext
from pianolm.tokenizer.vocabulary import Kind

if TYPE_CHECKING:  # a plan reads `MEASURE` without importing torch
    from pianolm.generation.piano_lm import PianoLM

BITS = "bits.csv"
SIDE_BEATS = 24
"""Beats on either side of a gap that the model sees: whole bars of two, three, four, six or eight beats."""


@dataclass(frozen=True)
class MiddleBits:
    """Bits of a human middle.

    Attributes:
        notes: Notes that it strikes.
        both_sides: Bits given both sides.
        past_only: Bits given the past.
    """

    notes: int
    both_sides: float
    past_only: float


def run(ctx: StageContext) -> Metrics:
    """Measures, and writes tables, pictures, MIDI and a page to the run directory.

    Raises:
        UserError: The model does not fill gaps, the cells or a setting cannot be used, or there is nothing to measure.
    """
    lm = _model(ctx)
    config = GenerationConfig.of_gaps(ctx.cfg["generate"])
    if told := told_of_model(config, lm.generation_defaults):
        _say(told)
    settings, seed = ctx.cfg["evaluate"], int(ctx.cfg["seed"])
    side, beats = SIDE_BEATS, int(settings["gap_beats"])
    excerpts, left_out = _excerpts(CellStore.open(ctx.upstream["cells"]), ctx.cfg, side, beats)
    gap, start = Gap(side, side + beats), time.perf_counter()
    bits = [human_bits(lm, one.piece, gap) for one in excerpts]
    filled = [lm.fill_pieces(one.piece, gap, config, seed=seed)[0].piece for one in excerpts]
    _say(f"{len(excerpts)} gaps measured and filled in {time.perf_counter() - start:.0f} s")
    pairs = [measured(one, piece, side, beats) for one, piece in zip(excerpts, filled, strict=True)]
    comparisons = compare(pairs, lm.tokenizer.codec is not None, seed)
    heading = (
        "Gaps beside what stood there",
        f"{beats} beats behind the first {side}, which are shaded, by the model and by the human, and the same beats "
        "after them",
    )
    write(ctx.run_dir, ctx.cfg, pairs, comparisons, side, heading)
    _write_bits(ctx, excerpts, bits)
    notes = sum(one.notes for one in bits)
    metrics: Metrics = {
        "pieces": len(pairs),
        "pieces_left_out": left_out,
        "bits_per_note_both_sides": sum(one.both_sides for one in bits) / notes,
        "bits_per_note_past_only": sum(one.past_only for one in bits) / notes,
    }
    metrics["sampling"] = config.over(lm.generation_defaults).words()
    for line in comparisons:
        metrics |= {name: estimate.value for name, estimate in line.named().items()}
    return metrics


def _model(ctx: StageContext) -> PianoLM:
    """The model that is measured, on the hardware of the configuration."""
    from pianolm.generation.piano_lm import PianoLM
    from pianolm.training.hardware import require, resolve_hardware, set_threads

    set_threads(ctx.cfg, 1)
    hardware = resolve_hardware(ctx.cfg["hardware"])
    require(hardware)
    lm = PianoLM.from_pretrained(ctx.upstream["model"], "cuda" if hardware.accelerator == "gpu" else "cpu")
    if not lm.fills:
        raise UserError(
            f"evaluate=fill: {ctx.upstream['model']} was not trained to fill gaps; give a model that was trained with "
            "loader.fill_share above 0"
        )
    return lm


def _check(cfg: Mapping[str, Any]) -> None:
    check_what_is_learned(cfg, "fill", "evaluate=fill")


MEASURE = Measure("fill", needs=("model", "cells"), run=run, describe=planned_sampling, check=_check)


def _excerpts(store: CellStore, cfg: Mapping[str, Any], side: int, beats: int) -> tuple[list[Excerpt], int]:
    """A drawn gap of each piece with its sides, and how many pieces are too short or silent."""
    indices = evenly_spaced(pieces_to_continue(store.pieces, cfg), cfg["evaluate"]["pieces"])
    found = [_excerpt(store, index, side, beats, [int(cfg["seed"]), index]) for index in indices]
    excerpts = [one for one in found if one is not None]
    if not excerpts:
        raise UserError(
            f"evaluate=fill: none of {len(indices)} pieces has music in {beats} beats with {side} beats on either "
            "side; give fewer evaluate.gap_beats, or other data"
        )
    return excerpts, len(found) - len(excerpts)


def _excerpt(store: CellStore, index: int, side: int, beats: int, seed: list[int]) -> Excerpt | None:
    whole = Piece.from_cells(
        store.cells(index),
        np.asarray(store.beats_sec(index)),
        flat=store.flat(index),
        bar_starts=store.bar_starts(index),
    )
    bars = whole.bar_starts
    starts = bars if bars.size else np.arange(whole.n_beats)
    starts = starts[(starts >= side) & (starts + beats + side <= whole.n_beats)]
    for first in np.random.default_rng(seed).permutation(starts)[:8].tolist():
        piece = cut(whole, first - side, first + beats + side)
        past = within(piece.frame_notes, 0, side)
        if past.size and within(piece.frame_notes, side, side + beats).size:
            return Excerpt(store.pieces[index], piece, key_of(past), bar_length(piece, side))
    return None


def human_bits(lm: PianoLM, piece: Piece, gap: Gap) -> MiddleBits:
    """Bits of what stands in the gap of a piece, given both sides and given the past alone."""
    from pianolm.generation.fill import FillPlan, FillState
    from pianolm.music.gap import GappedPiece

    grammar, v = lm.tokenizer.fill_grammar, lm.tokenizer.vocabulary
    context = lm.generator.context
    plan = FillPlan(lm.tokenizer, GappedPiece.of(piece, gap), lm.fill_order, context)
    state, masks = FillState(plan, 0), []
    middle = [*plan.human, v.eos]
    seen = plan.visible(state, context, len(middle))
    now = state.grammar_state
    for token in middle:
        masks.append(grammar.allowed(now))
        now = grammar.advance(now, token)
    # the last beat ends with EOS, in a plain sequence with the tempo of the next; either counts as its end
    ends_V = v.kind_of == Kind.TEMPO
    ends_V[v.eos] = True
    masks[-1] = masks[-1] | ends_V
    both = _bits(lm, seen, middle, np.stack(masks), ends_V)
    past = plan.past(context - len(middle))
    notes = int(lm.tokenizer.strikes_per_id[middle].sum())
    return MiddleBits(notes, both, _bits(lm, past, middle, np.stack(masks), ends_V))


def _bits(
    lm: PianoLM,
    seen: list[int],
    targets: list[int],
    masks_MV: NDArray[np.bool_],
    ends_V: NDArray[np.bool_],
) -> float:
    """Bits of targets [M] behind some tokens, each among the ids that its mask allows, the last one any of `ends_V`."""
    import torch

    from pianolm.lm.loss import IGNORE, head_nll
    from pianolm.lm.scorer import target_states

    device = lm.model.device
    ids = torch.tensor([[*seen, *targets[:-1]]], device=device)
    labels = torch.full_like(ids, IGNORE)
    labels[0, len(seen) - 1 :] = torch.tensor(targets, device=device)
    with torch.inference_mode():
        states = target_states(lm.model, ids, labels)
        masks = torch.from_numpy(masks_MV).to(device)
        nats, _ = head_nll(*states, masks, torch.arange(len(targets), device=device))
        last = (states.hidden[-1:], states.weight, states.labels[-1:])
        ends = torch.from_numpy(ends_V[None]).to(device)
        among_ends, _ = head_nll(*last, ends, torch.zeros(1, dtype=torch.long, device=device))
    return float(nats - among_ends) / math.log(2)


def _write_bits(ctx: StageContext, excerpts: Sequence[Excerpt], bits: Sequence[MiddleBits]) -> None:
    rows = [
        (one.row.id, of.notes, round(of.both_sides, 3), round(of.past_only, 3))
        for one, of in zip(excerpts, bits, strict=True)
    ]
    write_csv(ctx.run_dir / BITS, ("id", "notes", "bits_both_sides", "bits_past_only"), rows)


def _say(sentence: str) -> None:
    print(f"evaluate: {sentence}", flush=True)
