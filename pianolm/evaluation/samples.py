"""`evaluate=samples`: what a model plays after the openings of pieces, beside what their composers wrote next.

Each piece is cut at the first bar with music: `evaluate.prompt_beats` beats are the prompt, the next
`evaluate.new_beats` the human rest. The model continues the same prompt once, sampled as `generate.*` says, else as the
model itself does. Bars on both sides have the most frequent length of the prompt's bars, counted from its first beat.

Shapes: P pieces, K bins.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import CellStore, PieceRow
from pianolm.errors import UserError
from pianolm.evaluation.copied_notes import NoteRuns
from pianolm.evaluation.distributions import FEATURES
from pianolm.evaluation.excerpts import bar_length, cut, opening, within
from pianolm.evaluation.measure import Measure
from pianolm.evaluation.music_statistics import Key, key_of, statistics
from pianolm.evaluation.resampling import distance_estimate, halves_estimate, mean_estimate
from pianolm.evaluation.samples_report import COPIED_FROM, COPIES, Comparison, Pair, Side, write
from pianolm.evaluation.selection import evenly_spaced, pieces_to_continue
from pianolm.evaluation.training_set import training_notes
from pianolm.generation.config import GenerationConfig, planned_sampling, told_of_model
from pianolm.generation.prompts import check_what_is_learned
from pianolm.music.bars import DEFAULT_BAR_BEATS
from pianolm.music.piece import Piece
from pianolm.stage import Metrics, StageContext

if TYPE_CHECKING:  # a plan reads `MEASURE` without importing torch
    from pianolm.generation.piano_lm import PianoLM


@dataclass(frozen=True, eq=False)
class Excerpt:
    """An opening to continue.

    Attributes:
        row: Row of the piece in the cell store.
        piece: The prompt and the human rest.
        key: Key of the prompt.
        bar_beats: Length of its bars; None where none is known.
    """

    row: PieceRow
    piece: Piece
    key: Key
    bar_beats: int | None


def run(ctx: StageContext) -> Metrics:
    """Measures, and writes tables, pictures, MIDI and a page to the run directory.

    Raises:
        UserError: The model, the cells or a setting cannot be used, or there is nothing to measure.
    """
    from pianolm.generation.piano_lm import PianoLM
    from pianolm.training.hardware import require, resolve_hardware, set_threads

    set_threads(ctx.cfg, 1)
    hardware = resolve_hardware(ctx.cfg["hardware"])
    require(hardware)
    lm = PianoLM.from_pretrained(ctx.upstream["model"], "cuda" if hardware.accelerator == "gpu" else "cpu")
    config = GenerationConfig.from_options(ctx.cfg["generate"])
    if told := told_of_model(config, lm.generation_defaults):
        _say(told)
    cells = CellStore.open(ctx.upstream["cells"])
    excerpts, left_out = _excerpts(cells, ctx.cfg)
    prompt_beats, new_beats = (int(ctx.cfg["evaluate"][name]) for name in ("prompt_beats", "new_beats"))
    models = continuations(lm, excerpts, prompt_beats, new_beats, ctx.cfg)
    pairs = [
        measured(excerpt, model, prompt_beats, new_beats)
        for excerpt, model in zip(excerpts, models, strict=True)
    ]
    artifacts = Path(ctx.cfg["paths"]["artifacts"]).absolute()
    training = training_notes(ctx.upstream["model"], artifacts, cells)
    if training is None:
        _say(f"leaves out {COPIES}: no music that {ctx.upstream['model']} was trained on is at hand")
    else:
        _say(f"counts as copied what is in {training.origin}")
        pairs = with_copies(pairs, training.runs, prompt_beats)
    comparisons = compare(pairs, lm.tokenizer.codec is not None, int(ctx.cfg["seed"]))
    write(ctx.run_dir, ctx.cfg, pairs, comparisons, prompt_beats)
    ended_early = sum(pair.model.beats < new_beats for pair in pairs)
    metrics: Metrics = {"pieces": len(pairs), "pieces_left_out": left_out, "ended_early": ended_early}
    metrics["sampling"] = config.over(lm.generation_defaults).words()
    metrics |= {COPIED_FROM: training.origin} if training else {}
    for one in comparisons:
        metrics |= {name: estimate.value for name, estimate in one.named().items()}
    return metrics


def _check(cfg: Mapping[str, Any]) -> None:
    check_what_is_learned(cfg, "continue", "evaluate=samples")


MEASURE = Measure("samples", needs=("model", "cells"), run=run, describe=planned_sampling, check=_check)


def _excerpts(store: CellStore, cfg: Mapping[str, Any]) -> tuple[list[Excerpt], int]:
    """The openings of the pieces of the split, and how many pieces are too short or silent."""
    settings = cfg["evaluate"]
    indices = evenly_spaced(pieces_to_continue(store.pieces, cfg), settings["pieces"])
    found = [_excerpt(store, index, settings["prompt_beats"], settings["new_beats"]) for index in indices]
    excerpts = [one for one in found if one is not None]
    beats = settings["prompt_beats"] + settings["new_beats"]
    if not excerpts:
        raise UserError(
            f"evaluate=samples: none of {len(indices)} pieces has music in {beats} beats from its first bar on; give "
            "fewer evaluate.prompt_beats or evaluate.new_beats, or other data"
        )
    if left_out := len(found) - len(excerpts):
        _say(f"leaves out {left_out} of {len(indices)} pieces, which do not fill {beats} beats")
    if unknown := sum(one.bar_beats is None for one in excerpts):
        _say(
            f"{unknown} pieces have no bars: counts bars of {DEFAULT_BAR_BEATS} beats from their first note on"
        )
    return excerpts, left_out


def _excerpt(store: CellStore, index: int, prompt_beats: int, new_beats: int) -> Excerpt | None:
    whole = Piece.from_cells(
        store.cells(index),
        np.asarray(store.beats_sec(index)),
        flat=store.flat(index),
        bar_starts=store.bar_starts(index),
    )
    piece = opening(whole, prompt_beats + new_beats)
    if piece is None:
        return None
    prompt = within(piece.frame_notes, 0, prompt_beats)
    if prompt.size in (0, piece.frame_notes.size):
        return None
    return Excerpt(store.pieces[index], piece, key_of(prompt), bar_length(piece, prompt_beats))


def continuations(
    lm: PianoLM, excerpts: Sequence[Excerpt], prompt_beats: int, new_beats: int, cfg: Mapping[str, Any]
) -> list[Piece]:
    """Prompt and continuation of each excerpt by the model, all in one queue; it sees no beat of the human rest."""
    config = replace(GenerationConfig.from_options(cfg["generate"]), beats=new_beats, seconds=None)
    prompts = {one.row.id: cut(one.piece, 0, prompt_beats) for one in excerpts}
    _say(f"continues {len(excerpts)} pieces")
    start = time.perf_counter()
    generated = lm.generate_pieces(prompts, config, seed=int(cfg["seed"]))
    seconds = time.perf_counter() - start
    tokens = sum(one.new_tokens for one in generated)
    _say(f"{tokens} tokens in {seconds:.0f} s, {tokens / seconds:.0f} a second")
    if cuts := [one.prompt_cut for one in generated if one.prompt_cut]:
        _say(f"{len(cuts)} prompts do not fit into the context; of the first {cuts[0]}")
    return [one.piece for one in generated]


def measured(excerpt: Excerpt, model: Piece, prompt_beats: int, new_beats: int) -> Pair:
    """The statistics and distributions of both sides."""
    bar_beats = excerpt.bar_beats or DEFAULT_BAR_BEATS
    sides = []
    for piece in (model, excerpt.piece):
        last = min(piece.n_beats, prompt_beats + new_beats)
        counts = {name: one.counts(piece, prompt_beats, last) for name, one in FEATURES.items()}
        if excerpt.row.flat:  # its velocities say nothing, and the model goes on from them
            counts["velocity"] = np.zeros_like(counts["velocity"])
        figures = statistics(piece, prompt_beats, last, excerpt.key, bar_beats)
        sides.append(Side(piece, last - prompt_beats, figures, counts))
    return Pair(excerpt.row, excerpt.key, bar_beats, *sides)


def with_copies(pairs: Sequence[Pair], training: NoteRuns, prompt_beats: int) -> list[Pair]:
    """The pairs with the longest run of new notes of each side that is also in the training set."""
    sides = [side for pair in pairs for side in (pair.model, pair.human)]
    new = NoteRuns.of(
        within(side.piece.frame_notes, prompt_beats, prompt_beats + side.beats) for side in sides
    )
    longest = new.longest_in(training).tolist()
    copied = [
        replace(side, statistics={**side.statistics, COPIES: float(notes)})
        for side, notes in zip(sides, longest, strict=True)
    ]
    return [
        replace(pair, model=model, human=human)
        for pair, model, human in zip(pairs, copied[::2], copied[1::2], strict=True)
    ]


def compare(pairs: Sequence[Pair], has_velocities: bool, seed: int) -> list[Comparison]:
    """Means of the statistics and distances of the distributions, with intervals over pieces.

    Args:
        pairs: At least one.
        has_velocities: Whether the model's tokens have velocities.
        seed: Of the resamples.
    """
    models, humans = [pair.model for pair in pairs], [pair.human for pair in pairs]
    found = [
        Comparison(name, *(mean_estimate(_known(name, sides), seed) for sides in (models, humans)))
        for name in models[0].statistics
    ]
    for name in FEATURES:
        model, human = (np.stack([side.counts[name] for side in sides]) for sides in (models, humans))
        if name == "velocity" and not (has_velocities and human.any()):
            why = "no piece has dynamics" if has_velocities else "the model's tokens have no velocities"
            _say(f"leaves out js_velocity: {why}")
            continue
        distance, halves = distance_estimate(model, human, seed), halves_estimate(human, seed)
        found.append(Comparison(f"js_{name}", distance, halves))
    return found


def _known(name: str, sides: Sequence[Side]) -> NDArray[np.float64]:
    """Values of a statistic without those of sides that have nothing to tell it from."""
    values = np.array([side.statistics[name] for side in sides])
    return values[~np.isnan(values)]


def _say(sentence: str) -> None:
    print(f"evaluate: {sentence}", flush=True)
