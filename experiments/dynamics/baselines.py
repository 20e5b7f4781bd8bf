"""Measures what the model is compared with: on the first 64 beats of 32 performances, and on all whole performances.

    python baselines.py CELLS SONGS RUNS BOX MODEL [MODEL …]

CELLS and SONGS are the artifacts of stage prepare of ASAP and of POP909; BOX is the model that learned from POP909,
each MODEL one that learned from ASAP, of seeds 0, 1, …. Writes RUNS/NAME with metrics.json and pieces.csv as stage
evaluate does: one velocity for all notes of all pieces (constant), the ridge regressions, told the median and not, the
first model without spread and with all of it. RUNS/NAME-whole is of whole performances, RUNS/NAME-pop909 of POP909's
songs, RUNS/NAME-strict of notes in strict time (`BeatNotes.in_strict_time`), as a score has them; the ridge regression
there learned from such notes, too.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from report import POP909, STRICT, seed_suffix
from ridge import RidgeDynamics, training_music

from experiments.results import METRICS
from pianolm.data.beat_notes import BeatNotes
from pianolm.data.cell_store import CellStore, CellStoreWriter
from pianolm.data.reading import downbeat_flags
from pianolm.dynamics.renderer import SPREAD, DynamicsModel
from pianolm.evaluation.dynamics import Render, measure
from pianolm.evaluation.dynamics_report import metrics_of, write_pieces
from pianolm.evaluation.selection import evenly_spaced
from pianolm.music.beats import BeatAnnotation
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece

PIECES, BEATS = 32, 64
RIDGE = "ridge-squares-told"


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
    music = BeatNotes.of_store(store, index).in_strict_time()
    onset_sec, end_sec = music.seconds(music.onset_beat), music.seconds(music.end_beat)
    downbeat = np.isin(np.arange(music.beats_sec.size), music.bar_start)
    notes = make_notes(onset_sec, end_sec, music.pitch, music.velocity)
    return Piece.from_notes(notes, BeatAnnotation(music.beats_sec, downbeat))


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


def strict_ridge(store: CellStore) -> Render:
    """The ridge regression, told the median, that learned from notes in strict time."""
    music = (one.in_strict_time() for one in training_music(store))
    return RidgeDynamics(squares=True, told=True).fit(music).render


def main(cells: Path, songs: Path, runs: Path, box: Path, models: Sequence[Path]) -> None:
    store, pop909 = CellStore.open(cells), CellStore.open(songs)
    usable, usable_songs = usable_pieces(store), usable_pieces(pop909)
    opening = evenly_spaced(usable, PIECES)
    dynamics = [DynamicsModel.from_pretrained(model) for model in models]
    ridge = RidgeDynamics(squares=True, told=True).fit(training_music(pop909))
    write(runs / f"{RIDGE}{POP909}", ridge.render, pop909, usable_songs, None)
    for name, render in renderers(store, dynamics[0]).items():
        write(runs / name, render, store, opening, BEATS)
        if "spread" not in name:
            write(runs / f"{name}-whole", render, store, usable, None)
    in_the_box = {"box-told": with_spread(DynamicsModel.from_pretrained(box), SPREAD)}
    told = {f"told{STRICT}{seed_suffix(seed)}": with_spread(one, SPREAD) for seed, one in enumerate(dynamics)}
    named = {f"{name}{STRICT}": render for name, render in in_the_box.items()}
    with tempfile.TemporaryDirectory() as temporary:
        strict = strict_store(store, opening, Path(temporary) / "asap")
        for name, render in {**told, **named, f"{RIDGE}{STRICT}": strict_ridge(store)}.items():
            write(runs / name, render, strict, range(len(opening)), BEATS)
        strict = strict_store(pop909, usable_songs, Path(temporary) / "pop909")
        for name, render in {**named, f"{RIDGE}{STRICT}": strict_ridge(pop909)}.items():
            write(runs / f"{name}{POP909}", render, strict, range(len(usable_songs)), None)


def write(run: Path, render: Render, store: CellStore, indices: Sequence[int], beats: int | None) -> None:
    """Measures and writes a run."""
    run.mkdir(parents=True, exist_ok=True)
    results = list(measure(render, store, indices, beats))
    write_pieces(run, results)
    (run / METRICS).write_text(json.dumps(metrics_of(results), indent=1) + "\n", "utf-8")
    print(run, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    paths = [Path(argument) for argument in sys.argv[1:]]
    main(*paths[:4], paths[4:])
