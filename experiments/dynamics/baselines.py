"""Measures what the model is compared with: on the first 64 beats of 32 performances, and on all whole performances.

    python baselines.py CELLS MODEL SONGS RUNS

CELLS and SONGS are the artifacts of stage prepare of ASAP and of POP909, MODEL is that of stage dynamics. Writes
RUNS/NAME with metrics.json and pieces.csv as stage evaluate does: one velocity for all notes of all pieces (constant),
the ridge regressions, told the median and not, the model without spread and with all of it. RUNS/NAME-whole is of whole
performances, RUNS/NAME-pop909 of POP909's songs, RUNS/NAME-strict of the notes put on a grid of 1/12 beat in the
piece's median tempo, as a score has them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ridge import RidgeDynamics, training_music

from experiments.results import METRICS
from pianolm.data.cell_store import CellStore, CellStoreWriter
from pianolm.data.reading import downbeat_flags
from pianolm.dynamics.renderer import SPREAD, DynamicsModel
from pianolm.evaluation.dynamics import Render, measure
from pianolm.evaluation.dynamics_report import metrics_of, write_pieces
from pianolm.evaluation.selection import evenly_spaced
from pianolm.music.beats import FRAMES, BeatAnnotation
from pianolm.music.cells import cells_to_frames
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece

PIECES, BEATS = 32, 64
GRID = 4
"""Frames of the grid of strict time."""
STRICT = "-strict"


def constant(store: CellStore) -> Render:
    """The median velocity of all training notes, for every note."""
    velocity = round(float(np.median(np.concatenate([music.velocity for music in training_music(store)]))))

    def render(piece: Piece, index: int, median: float) -> Piece:
        notes = piece.frame_notes
        notes["velocity"] = velocity
        return piece.with_velocities_of(notes)

    return render


def with_spread(model: DynamicsModel, spread: float) -> Render:
    return lambda piece, index, median: model.render(piece, 0.0, 0, median, spread)


def renderers(store: CellStore, model: DynamicsModel) -> dict[str, Render]:
    found: dict[str, Render] = {"constant": constant(store)}
    for name, squares in (("ridge", False), ("ridge-squares", True)):
        for suffix, told in (("", False), ("-told", True)):
            found[name + suffix] = RidgeDynamics(squares, told).fit(training_music(store)).render
    return {**found, "told-spread-0": with_spread(model, 0.0), "told-spread-1": with_spread(model, 1.0)}


def in_strict_time(store: CellStore, index: int) -> Piece:
    """A performance without its timing: rolled chords, rubato and articulation say much about loudness."""
    notes, grid_sec = cells_to_frames(store.cells(index)), np.asarray(store.beats_sec(index))
    beats_sec = np.arange(grid_sec.size) * float(np.median(np.diff(grid_sec)))
    onset = np.rint(notes["onset"] / GRID) * GRID
    end = np.maximum(np.rint(notes["end"] / GRID) * GRID, onset + GRID)
    last = (beats_sec.size - 1) * FRAMES
    seconds = [
        np.interp(np.minimum(one, last) / FRAMES, np.arange(beats_sec.size), beats_sec)
        for one in (onset, end)
    ]
    kept = onset < last
    played = make_notes(seconds[0][kept], seconds[1][kept], notes["pitch"][kept], notes["velocity"][kept])
    downbeat = np.isin(np.arange(beats_sec.size), store.bar_starts(index))
    return Piece.from_notes(played, BeatAnnotation(beats_sec, downbeat))


def strict_store(store: CellStore, indices: Sequence[int], directory: Path) -> CellStore:
    """A store of performances in strict time."""
    with CellStoreWriter(directory) as writer:
        for index in indices:
            piece = in_strict_time(store, index)
            counts = {"notes": piece.cells.struck_notes, "cells": len(piece.cells), "beats": piece.n_beats}
            counts["segments"] = piece.cells.segment_velocity.size
            writer.add(
                replace(store.pieces[index], **counts), piece.cells, piece.beats_sec, downbeat_flags(piece)
            )
    return CellStore.open(directory)


def usable_pieces(store: CellStore) -> list[int]:
    """Validation performances with dynamics."""
    rows = store.pieces
    return [i for i in store.split("validation") if rows[i].kind == "performance" and not store.flat(i)]


def main(cells: Path, model: Path, songs: Path, runs: Path) -> None:
    store, pop909 = CellStore.open(cells), CellStore.open(songs)
    usable = usable_pieces(store)
    ridge = RidgeDynamics(squares=True, told=True).fit(training_music(pop909))
    write(runs / "ridge-squares-told-pop909", ridge.render, pop909, usable_pieces(pop909), None)
    opening, dynamics = evenly_spaced(usable, PIECES), DynamicsModel.from_pretrained(model)
    found = renderers(store, dynamics)
    for name, render in found.items():
        write(runs / name, render, store, opening, BEATS)
        if "spread" not in name:
            write(runs / f"{name}-whole", render, store, usable, None)
    with tempfile.TemporaryDirectory() as temporary:
        strict = strict_store(store, opening, Path(temporary) / "store")
        told = with_spread(dynamics, SPREAD)
        for name, render in {"told": told, "ridge-squares-told": found["ridge-squares-told"]}.items():
            write(runs / f"{name}{STRICT}", render, strict, range(len(opening)), BEATS)


def write(run: Path, render: Render, store: CellStore, indices: Sequence[int], beats: int | None) -> None:
    """Measures and writes a run."""
    run.mkdir(parents=True, exist_ok=True)
    results = list(measure(render, store, indices, beats))
    write_pieces(run, results)
    (run / METRICS).write_text(json.dumps(metrics_of(results), indent=1) + "\n", "utf-8")
    print(run, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
