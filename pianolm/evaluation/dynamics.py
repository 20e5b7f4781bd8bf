"""`evaluate=dynamics`: how near the velocities that a model gives to the notes of a performance come to the human's.

Beside the model stand two others, each on the notes it has: the piece's median velocity for every note, and a second
human who plays the same composition.

Shapes: N notes, in order of (pitch, onset); P pairs of notes of two performances.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import CellStore, PieceRow
from pianolm.errors import UserError
from pianolm.evaluation.measure import Measure
from pianolm.evaluation.selection import performances
from pianolm.evaluation.velocity_agreement import Figures, compare, pair_notes
from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells, FrameNotes, cells_to_frames
from pianolm.music.piece import Piece
from pianolm.stage import Metrics, StageContext

LEAST_PAIRED = 0.75
"""Of a piece's notes; where fewer find a partner, equal numbers of beats are not the same beats all along."""
HIDDEN_VELOCITY = 64

CONSTANT, HUMAN, PAIRED, PAIRED_CONSTANT = "constant_", "human_", "paired_", "paired_constant_"
SIDES = ("", CONSTANT, HUMAN, PAIRED, PAIRED_CONSTANT)
"""What is held against the human: the model, the median, another human on the notes that both play; and the model and
the median on those notes alone."""

Render = Callable[[Piece, int], Piece]
"""Velocities for the notes of a piece; the number is that of the piece."""


@dataclass(frozen=True)
class PieceDynamics:
    """How one performance's velocities are met.

    Attributes:
        row: What is known of it.
        figures: By what is held against it: see `SIDES`.
        other: Id of the second human's performance, empty where there is none.
    """

    row: PieceRow
    figures: dict[str, Figures]
    other: str = ""


def run(ctx: StageContext) -> Metrics:
    """Measures, and writes `pieces.csv` to the run directory.

    Raises:
        UserError: The model, the cells or a setting cannot be used, or there is nothing to measure.
    """
    from pianolm.generation.piano_lm import PianoLM  # imports torch, which a plan does without
    from pianolm.training.trainer import resolve_hardware, set_threads

    settings, seed = ctx.cfg["evaluate"], int(ctx.cfg["seed"])
    pieces, beats = (_limit(settings, name) for name in ("pieces", "beats"))
    set_threads(ctx.cfg, 1)
    hardware = resolve_hardware(ctx.cfg)
    lm = PianoLM.from_pretrained(ctx.upstream["model"], "cuda" if hardware.accelerator == "gpu" else "cpu")
    if lm.tokenizer.codec is None:
        raise UserError(
            f"evaluate=dynamics: {ctx.upstream['model']} holds a model of mode base, whose tokens carry no velocity; "
            "give one of stage=finetune as upstream.model"
        )
    store = CellStore.open(ctx.upstream["cells"])
    chosen, flat = _chosen(store, ctx.cfg, beats)
    chosen = _spread(chosen, pieces)
    temperature, top_p = float(settings["temperature"]), float(settings["top_p"])

    def render(piece: Piece, number: int) -> Piece:
        return lm.render_dynamics(piece, temperature, top_p, seed + number)

    results = list(_told(measure(render, store, chosen, beats), len(chosen)))
    _write(ctx.run_dir / "pieces.csv", results)
    return {**_metrics(results), "flat_pieces_left_out": flat}


MEASURE = Measure("dynamics", needs=("model", "cells"), run=run)


def measure(
    render: Render, store: CellStore, chosen: Iterable[int], beats: int | None = None
) -> Iterator[PieceDynamics]:
    """Renders some pieces of a store and compares.

    Args:
        render: Gets each piece with one velocity for all notes.
        store: The music, which also holds the second humans.
        chosen: Which of its pieces.
        beats: How many from the first note on; None for all.
    """
    versions = _versions(store)
    for index in chosen:
        cells = _opening(store.cells(index), beats)
        notes = cells_to_frames(cells)
        hidden = replace(cells, segment_velocity=np.full_like(cells.segment_velocity, HIDDEN_VELOCITY))
        beats_sec = np.asarray(store.beats_sec(index))[: cells.n_beats + 1]
        bars = store.bar_starts(index)
        piece = Piece.from_cells(hidden, beats_sec, bar_starts=bars[bars <= cells.n_beats])
        rendered = render(piece, index).frame_notes
        assert all(np.array_equal(rendered[name], notes[name]) for name in ("pitch", "onset")), (
            "the same notes"
        )
        yield _compared(store, index, notes, rendered["velocity"], versions)


def _opening(cells: Cells, beats: int | None) -> Cells:
    """The first beats of a piece, counted from its first note."""
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


def _compared(
    store: CellStore,
    index: int,
    notes: FrameNotes,
    rendered_N: NDArray[np.uint8],
    versions: Mapping[tuple[str, str], list[int]],
) -> PieceDynamics:
    """A piece with all that can be held against its velocities."""
    human_N, row = notes["velocity"], store.pieces[index]
    figures = {"": compare(rendered_N, human_N), CONSTANT: compare(_median(human_N), human_N)}
    others = versions[row.source, row.composition]
    at = others.index(index)
    for other in (*others[at + 1 :], *others[:at]):
        found = _second_human(store, index, notes, other)
        if found is None:
            continue
        paired, other_P = found
        human_P = human_N[paired]
        figures[HUMAN] = compare(other_P, human_P)
        figures[PAIRED] = compare(rendered_N[paired], human_P)
        figures[PAIRED_CONSTANT] = compare(_median(human_P), human_P)
        return PieceDynamics(row, figures, store.pieces[other].id)
    return PieceDynamics(row, figures)


def _median(human_N: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.full_like(human_N, round(float(np.median(human_N))))


def _second_human(
    store: CellStore, index: int, notes: FrameNotes, other: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
    """Which notes [P] of a performance another one has too, and its velocities [P] of them.

    None where the two do not go through the same beats of the score, or are one recording.
    """
    (first, count), (other_first, other_count) = (_annotated_beats(store, which) for which in (index, other))
    if count != other_count:
        return None
    other_notes = cells_to_frames(store.cells(other))
    paired, of_other = pair_notes(_from_beat(notes, first), _from_beat(other_notes, other_first))
    velocity_P = other_notes["velocity"][of_other]
    if paired.size < LEAST_PAIRED * notes.size or np.array_equal(velocity_P, notes["velocity"][paired]):
        return None
    return paired, velocity_P


def _annotated_beats(store: CellStore, index: int) -> tuple[int, int]:
    """The first beat of a grid that is annotated, and how many are; where no bar is known, those of the whole grid."""
    annotated = np.flatnonzero(store.downbeat(index) >= 0)
    return (int(annotated[0]), annotated.size) if annotated.size else (0, store.pieces[index].beats + 1)


def _from_beat(notes: FrameNotes, beat: int) -> FrameNotes:
    moved = notes.copy()
    moved["onset"] -= beat * FRAMES
    return moved


def _versions(store: CellStore) -> Mapping[tuple[str, str], list[int]]:
    """The performances with velocities of each composition, by data set: two data sets share recordings."""
    versions = defaultdict(list)
    for index, row in enumerate(store.pieces):
        if row.kind == "performance" and not row.flat:
            versions[row.source, row.composition].append(index)
    return versions


def _limit(settings: Mapping[str, Any], name: str) -> int | None:
    limit = settings[name]
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UserError(
            f"evaluate.{name}={limit!r} found, expected a whole number of at least 1, or null for all"
        )
    return limit


def _chosen(store: CellStore, cfg: Mapping[str, Any], beats: int | None) -> tuple[list[int], int]:
    """Performances of the split, and how many are left out as the velocities of their notes say nothing."""
    of_split = performances(store.pieces, cfg)
    chosen = [
        index
        for index in of_split
        if not store.flat(index) and np.ptp(_opening(store.cells(index), beats).segment_velocity)
    ]
    if not chosen:
        raise UserError(
            f"evaluate.split={cfg['evaluate']['split']}: the velocities of all {len(of_split)} performances say "
            "nothing, so that there is no human to compare with; give other data"
        )
    return chosen, len(of_split) - len(chosen)


def _spread(chosen: list[int], limit: int | None) -> list[int]:
    """At most so many, evenly spaced from the first to the last."""
    if limit is None or limit >= len(chosen):
        return chosen
    return [chosen[at] for at in np.linspace(0, len(chosen) - 1, limit).round().astype(int)]


def _told(results: Iterable[PieceDynamics], pieces: int) -> Iterator[PieceDynamics]:
    """Says some ten times how far it is."""
    told = []
    for done, result in enumerate(results, 1):
        told.append(result.figures[""])
        if done * 10 // pieces > (done - 1) * 10 // pieces:
            print(f"evaluate: {done} of {pieces} pieces, velocity r {_average(told).r:.3f}", flush=True)
        yield result


def _average(figures: list[Figures]) -> Figures:
    """Of several pieces: each counts as many times as it has notes."""
    weights = [piece.notes for piece in figures]
    mae, r, js = (float(np.average([piece[i] for piece in figures], weights=weights)) for i in (1, 2, 3))
    return Figures(sum(weights), mae, r, js)


def _columns(side: str, figures: Figures) -> dict[str, float]:
    """Figures by name; a constant has no correlation."""
    named = {f"{side}velocity_{name}": float(getattr(figures, name)) for name in ("mae", "r", "js")}
    if side in (CONSTANT, PAIRED_CONSTANT):
        del named[f"{side}velocity_r"]
    return named


def _metrics(results: list[PieceDynamics]) -> Metrics:
    metrics: Metrics = {
        "pieces": len(results),
        "notes": sum(result.figures[""].notes for result in results),
    }
    for side in SIDES:
        if found := [result.figures[side] for result in results if side in result.figures]:
            metrics |= _columns(side, _average(found))
    paired = [result.figures for result in results if HUMAN in result.figures]
    metrics["paired_pieces"] = len(paired)
    if paired:
        notes = sum(figures[HUMAN].notes for figures in paired)
        metrics |= {
            "paired_notes": notes,
            "paired_fraction": notes / sum(figures[""].notes for figures in paired),
        }
    return metrics


def _write(path: Path, results: list[PieceDynamics]) -> None:
    names = [name for side in SIDES for name in _columns(side, Figures(0, 0, 0, 0))]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("id", "path", "notes", "second_human", "paired_notes", *names))
        writer.writeheader()
        for result in results:
            figures = {
                name: round(value, 4)
                for side, found in result.figures.items()
                for name, value in _columns(side, found).items()
            }
            paired = {"paired_notes": result.figures[HUMAN].notes} if result.other else {}
            about = {"id": result.row.id, "path": result.row.path, "second_human": result.other}
            writer.writerow({**about, "notes": result.figures[""].notes, **paired, **figures})
