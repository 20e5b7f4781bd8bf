"""`evaluate=dynamics`: how well a model's velocities for the notes of performances agree with the pianists'.

Two baselines are compared with the pianist in the same way: the piece's median velocity for every note, and a second
pianist who plays the same composition.

Shapes: N notes in order of (pitch, onset); P notes that both pianists play.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import CellStore
from pianolm.errors import UserError
from pianolm.evaluation.dynamics_report import (
    CONSTANT,
    FLAT,
    HUMAN,
    MODEL,
    PAIRED,
    PAIRED_CONSTANT,
    PIANIST,
    RENDERED,
    PieceDynamics,
    mean_agreement,
    metrics_of,
    write_page,
    write_pieces,
)
from pianolm.evaluation.measure import Measure, report_progress
from pianolm.evaluation.second_pianist import SecondPianist, SecondPianists
from pianolm.evaluation.selection import evenly_spaced, performances
from pianolm.evaluation.velocity_agreement import Agreement, compare
from pianolm.music.cells import Cells, cells_to_frames
from pianolm.music.piece import Piece
from pianolm.stage import Metrics, StageContext

HIDDEN_VELOCITY = 64
"""Velocity of every note of the piece that the model is given."""
Render = Callable[[Piece, int, float], Piece]
"""Returns a piece with new velocities, given the index of the piece and the median velocity of the pianist."""


def run(ctx: StageContext) -> Metrics:
    """Measures, and writes `pieces.csv`, `rolls.png` and a page to the run directory.

    Raises:
        UserError: The model, the cells or a setting cannot be used, or there is nothing to measure.
    """
    from pianolm.training.hardware import require, resolve_hardware, set_threads

    settings = ctx.cfg["evaluate"]
    pieces, beats = (_count(settings, name) for name in ("pieces", "beats"))
    set_threads(ctx.cfg, 1)
    hardware = resolve_hardware(ctx.cfg["hardware"])
    require(hardware)
    render = _renderer(ctx, "cuda" if hardware.accelerator == "gpu" else "cpu")
    store = CellStore.open(ctx.upstream["cells"])
    selected, flat = _select(store, ctx.cfg, beats)
    indices = evenly_spaced(selected, pieces)
    measured = measure(render, store, indices, beats)
    results = list(report_progress(measured, len(indices), _describe))
    write_pieces(ctx.run_dir, results)
    if ctx.cfg["generate"]["page"]:
        write_page(ctx.run_dir, ctx.cfg, results, ctx.upstream["model"])
    return {**metrics_of(results), "flat_pieces_left_out": flat}


def _renderer(ctx: StageContext, device: str) -> Render:
    """Gives velocities with a dynamics model or a language model, whichever `upstream.model` holds."""
    from pianolm.dynamics.files import is_dynamics_model
    from pianolm.dynamics.renderer import DynamicsModel  # torch, which a plan does without
    from pianolm.generation.piano_lm import PianoLM

    path, settings, seed = ctx.upstream["model"], ctx.cfg["evaluate"], int(ctx.cfg["seed"])
    temperature, top_p = float(settings["temperature"]), float(settings["top_p"])
    is_told = bool(settings["told_median"])
    if is_dynamics_model(path):
        model = DynamicsModel.from_pretrained(path)
        return lambda piece, index, median: model.render(
            piece, temperature, seed + index, median if is_told else None
        )
    if is_told:
        raise UserError(
            f"evaluate.told_median=true: {path} holds a language model, which cannot be told how loud a piece is; give "
            "a model of stage=dynamics as upstream.model"
        )
    lm = PianoLM.from_pretrained(path, device)
    if lm.tokenizer.codec is None:
        raise UserError(
            f"evaluate=dynamics: {path} holds a model of mode base, whose tokens have no velocity; give one of "
            "stage=finetune or stage=dynamics as upstream.model"
        )
    return lambda piece, index, _: lm.render_dynamics(
        piece, temperature, top_p, seed=seed + index, language_model=True
    )


MEASURE = Measure("dynamics", needs=("model", "cells"), run=run, model="dynamics")


def measure(
    render: Render, store: CellStore, indices: Iterable[int], beats: int | None = None
) -> Iterator[PieceDynamics]:
    """Renders pieces of a store and compares their velocities.

    Args:
        render: The model. It is given pieces in which all notes have one velocity.
        store: The music, second pianists included.
        indices: Pieces of the store.
        beats: Number of beats to render from the first note on; None for all.
    """
    pianists = SecondPianists(store)
    for index in indices:
        cells = _first_beats(store.cells(index), beats)
        notes_N = cells_to_frames(cells)
        hidden = replace(cells, segment_velocity=np.full_like(cells.segment_velocity, HIDDEN_VELOCITY))
        beats_sec = np.asarray(store.beats_sec(index))[: cells.n_beats + 1]
        bars = store.bar_starts(index)
        bars = bars[bars <= cells.n_beats]
        flat, pianist = (Piece.from_cells(one, beats_sec, bar_starts=bars) for one in (hidden, cells))
        rendered = render(flat, index, float(np.median(notes_N["velocity"])))
        rendered_N = rendered.frame_notes
        assert all(np.array_equal(rendered_N[name], notes_N[name]) for name in ("pitch", "onset")), (
            "same notes"
        )
        second = pianists.find(index, notes_N)
        agreements = _agreements(notes_N["velocity"], rendered_N["velocity"], second)
        versions = {FLAT: flat, RENDERED: rendered, PIANIST: pianist}
        yield PieceDynamics(store.pieces[index], agreements, second.id if second else "", versions)


def _first_beats(cells: Cells, beats: int | None) -> Cells:
    """The first beats of a piece, counted from its first note; all for None."""
    if beats is None:
        return cells
    end = min(int(cells.beat[0]) + beats, cells.n_beats)
    count = int(np.searchsorted(cells.beat, end))
    return Cells(
        beat=cells.beat[:count],
        pitch=cells.pitch[:count],
        sustain=cells.sustain[:count],
        onset=cells.onset[:count],
        segment_velocity=cells.segment_velocity[: cells.segment_offset[count]],
        n_beats=end,
    )


def _agreements(
    human_N: NDArray[np.uint8], rendered_N: NDArray[np.uint8], second: SecondPianist | None
) -> dict[str, Agreement]:
    """Agreements with the pianist's velocities, by prefix."""
    agreements = {MODEL: compare(rendered_N, human_N), CONSTANT: compare(_median(human_N), human_N)}
    if second is not None:
        human_P = human_N[second.paired]
        agreements[HUMAN] = compare(second.velocity, human_P)
        agreements[PAIRED] = compare(rendered_N[second.paired], human_P)
        agreements[PAIRED_CONSTANT] = compare(_median(human_P), human_P)
    return agreements


def _median(velocity_N: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.full_like(velocity_N, round(float(np.median(velocity_N))))


def _count(settings: Mapping[str, Any], name: str) -> int | None:
    """The value of `evaluate.pieces` or `evaluate.beats`."""
    count: int | None = settings[name]
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise UserError(
            f"evaluate.{name}={count!r} found, expected a whole number of at least 1, or null for all"
        )
    return count


def _select(store: CellStore, cfg: Mapping[str, Any], beats: int | None) -> tuple[list[int], int]:
    """Performances of the split, and how many are left out because the velocities of their notes are flat."""
    in_split = performances(store.pieces, cfg)
    indices = [
        index
        for index in in_split
        if not store.flat(index) and np.ptp(_first_beats(store.cells(index), beats).segment_velocity)
    ]
    if not indices:
        raise UserError(
            f"evaluate.split={cfg['evaluate']['split']}: all {len(in_split)} performances have flat velocities, so "
            "there is no pianist to compare with; give other data"
        )
    return indices, len(in_split) - len(indices)


def _describe(results: Sequence[PieceDynamics]) -> str:
    return f"velocity r {mean_agreement([result.agreements[MODEL] for result in results]).r:.3f}"
