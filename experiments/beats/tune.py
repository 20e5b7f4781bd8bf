"""Compares settings of the decoder on validation music: recorded songs (POP909) and scores that are played at random.

    python tune.py TRACKER ARTIFACTS OUT.jsonl

TRACKER is a packed tracker, ARTIFACTS the directory with what it was trained on. The logits of each piece are
computed once; then each setting is varied alone, starting from the defaults. ASAP, the music measured on, has no
part in it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.results import write_rows
from pianolm.artifacts import read_record
from pianolm.beat_tracking.excerpts import Performance
from pianolm.beat_tracking.expression import perform
from pianolm.data.beat_notes import BeatNotes
from pianolm.data.cell_store import CellStore
from pianolm.music.beat_agreement import f_measure, without_start
from pianolm.music.beat_decoding import DecodingSettings, decode_bars, decode_beats
from pianolm.music.beat_features import FRAMES_PER_SEC, LEAD_SEC, beat_features, frame_count
from pianolm.music.beat_network import BeatNetwork

PIECES = 30
"""Of each kind, evenly spaced over the validation pieces."""
LONGEST_SEC = 120.0
KINDS = ("performance", "score")
VARIED = {
    "tempo_change": (2.0, 4.0, 8.0, 16.0),
    "beat_bias": (0.0, 1.0, 2.0, 3.0),
    "tempo_distance": (0.0, 0.05, 0.3, 1.0),
    "usual_bpm": (70.0, 100.0, 140.0),
    "metre_change": (1.5, 3.0, 6.0),
}


class Heard(NamedTuple):
    """A performance and what the network makes of it."""

    kind: str
    performance: Performance
    start_sec: float
    logits: NDArray[np.float32]


def hear(network: BeatNetwork, store: CellStore) -> list[Heard]:
    """Validation pieces of both kinds, played, and their logits."""
    heard = []
    for kind in KINDS:
        pieces = [i for i in store.split("validation") if store.pieces[i].kind == kind]
        for i in pieces[:: max(len(pieces) // PIECES, 1)][:PIECES]:
            # a performance depends on nothing but its piece
            played = perform(BeatNotes.of_store(store, i), np.random.default_rng(i))
            first_sec = float(played.notes["onset_sec"][0])
            notes = played.notes[played.notes["onset_sec"] < first_sec + LONGEST_SEC]
            start_sec = first_sec - LEAD_SEC
            logits = network.logits(beat_features(notes, start_sec, frame_count(notes)))
            heard.append(Heard(kind, played, start_sec, logits))
    return heard


def scores(one: Heard, settings: DecodingSettings) -> tuple[float, float]:
    """F-measures of beats and downbeats; NaN where no downbeats are known."""
    frame_B = decode_beats(one.logits[:, 0], settings)
    end_sec = one.start_sec + len(one.logits) / FRAMES_PER_SEC
    beats_sec = one.start_sec + frame_B / FRAMES_PER_SEC
    is_downbeat = decode_bars(one.logits, frame_B, settings)

    def agreement(annotated_sec: NDArray[np.float64], found_sec: NDArray[np.float64]) -> float:
        return f_measure(without_start(annotated_sec[annotated_sec < end_sec]), without_start(found_sec))

    downbeats_sec = one.performance.downbeats_sec
    return (
        agreement(one.performance.beats_sec, beats_sec),
        np.nan if downbeats_sec is None else agreement(downbeats_sec, beats_sec[is_downbeat]),
    )


def measure(heard: list[Heard], settings: DecodingSettings) -> dict[str, float]:
    """Means over the pieces of each kind."""
    figures = {}
    for kind in KINDS:
        found = np.array([scores(one, settings) for one in heard if one.kind == kind])
        beat_f, downbeat_f = np.nanmean(found, axis=0)
        figures |= {
            f"{kind}_beat_f": round(float(beat_f), 4),
            f"{kind}_downbeat_f": round(float(downbeat_f), 4),
        }
    return figures


def main(tracker: Path, artifacts: Path, out: Path) -> None:
    record = read_record(tracker)
    assert record is not None, f"{tracker} has a record"
    store = CellStore.open(artifacts / "prepare" / record["upstream"]["cells"])
    heard = hear(BeatNetwork.from_directory(tracker), store)
    defaults = DecodingSettings()
    rows = [{"setting": "", **measure(heard, defaults)}]
    for name, values in VARIED.items():
        for value in values:
            if value != getattr(defaults, name):
                rows.append(
                    {"setting": name, "value": value, **measure(heard, replace(defaults, **{name: value}))}
                )
                print(rows[-1], flush=True)
    write_rows(out, rows)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
