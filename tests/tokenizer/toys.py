"""Small music, codebooks and tokenizers of every layout for the tests of the tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from pianolm import PianoTokenizer, Piece
from pianolm.music.cells import FRAMES, Cells, frames_to_cells, resolve_collisions, strike_after_silence
from pianolm.tokenizer.codebook import Codebook, Patterns
from pianolm.tokenizer.codebook_fit import complete, fit_codebook
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Vocabulary
from tests.tokenizer.velocity.test_segment import random_segment_codec

VOCABULARY = Vocabulary()
NOTHING = Patterns(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
CODEC = random_segment_codec(64)
BEATS = 12
WHOLE, HALF, LATE = (1 << FRAMES) - 1, 1 << FRAMES // 2, 1 << FRAMES - 1


class Layout(NamedTuple):
    """Options of a tokenizer."""

    velocity: bool = False
    ties: str = "repeat"
    bars: bool = False
    exact: bool = True
    tempo: str = "log50"


PLAIN = Layout()
LAYOUTS = [
    *(
        Layout(velocity, ties, bars)
        for velocity in (False, True)
        for ties in ("repeat", "implicit", "explicit")
        for bars in (False, True)
    ),
    *(Layout(velocity, exact=False, tempo="published") for velocity in (False, True)),
    Layout(False, tempo="log50_tuned"),
    *(Layout(True, ties, bars=True, tempo="log50_tuned") for ties in ("repeat", "implicit", "explicit")),
]
TIE_LAYOUTS = [layout for layout in LAYOUTS if layout.ties != "repeat"]


@cache
def codebook(name: str) -> Codebook:
    """One that was fitted to nothing, one fitted to the music it is used for, and a tiny one."""
    cells = random_cells(3, 20_000, 800)
    match name:
        case "untrained":
            return complete([NOTHING] * 3, VOCABULARY)
        case "fitted":
            return fit_codebook(cells.sustain, cells.onset, VOCABULARY, "frequency").codebook
        case _:
            return complete(
                [Patterns(cells.sustain[:5], cells.onset[:5]), NOTHING, NOTHING],
                Vocabulary(l1=16, l2=8, l3=4),
            )


@cache
def made(layout: Layout = PLAIN, name: str = "untrained") -> PianoTokenizer:
    """A tokenizer of a layout."""
    codec = CODEC if layout.velocity else None
    tempo = TempoBins(layout.tempo)
    return PianoTokenizer(
        codebook(name), tempo, codec, ties=layout.ties, bars=layout.bars, exact=layout.exact
    )


def random_cells(seed: int, notes: int = 300, beats: int = 24) -> Cells:
    rng = np.random.default_rng(seed)
    onset = rng.integers(0, beats * FRAMES - 1, notes)
    frames, _ = resolve_collisions(
        onset,
        onset + rng.integers(1, 120, notes),
        rng.integers(30, 90, notes).astype(np.uint8),
        rng.integers(1, 128, notes).astype(np.uint8),
        beats * FRAMES,
    )
    return frames_to_cells(frames, beats)


def beat_times(seed: int, beats: int = 24) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.random.default_rng(seed).uniform(0.3, 0.9, beats))])


@st.composite
def patterns(draw: st.DrawFn) -> tuple[int, int]:
    """Any pattern a cell can hold."""
    sustain = draw(st.integers(1, (1 << FRAMES) - 1))
    onset = draw(st.integers(0, (1 << FRAMES) - 1)) & sustain
    full = strike_after_silence(np.array([sustain], np.uint64), np.array([onset], np.uint64))
    return sustain, int(full[0])


@st.composite
def rolls(draw: st.DrawFn) -> Cells:
    """Few pitches, so that keys are struck again; ends and onsets often exactly on beat lines."""
    count = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    frames = BEATS * FRAMES
    onset, length = rng.integers(0, frames, count), rng.integers(1, 5 * FRAMES, count)
    on_line, to_line = rng.random(count) < 0.4, rng.random(count) < 0.4
    onset[on_line] -= onset[on_line] % FRAMES
    end = onset + length
    end[to_line] = np.maximum(end[to_line] // FRAMES * FRAMES, onset[to_line] + 1)
    pitch = rng.choice([0, 60, 61, 64, 127], count).astype(np.uint8)
    velocity = rng.integers(1, 128, count).astype(np.uint8)
    return frames_to_cells(resolve_collisions(onset, end, pitch, velocity, frames)[0], BEATS)


def three_beats() -> Cells:
    """60 sounds on through all beats, struck again in the last; 64 ends on a beat line; 67 is struck on one."""
    rows = [  # beat, pitch, sustain, onset
        (0, 60, WHOLE, 1),
        (0, 64, LATE, LATE),
        (0, 67, WHOLE & -HALF, HALF),
        (1, 60, WHOLE, 0),
        (1, 67, WHOLE, 1),
        (2, 60, WHOLE, HALF),
        (2, 67, HALF - 1, 0),
    ]
    beat, pitch, sustain, onset = zip(*rows, strict=True)
    velocity = np.array([20, 90, 70, 20, 50, 20, 80, 50], np.uint8)
    masks = np.array(sustain, np.uint64), np.array(onset, np.uint64)
    return Cells(np.array(beat, np.int32), np.array(pitch, np.uint8), *masks, velocity, 3)


def of_three_beats(velocity: bool, ties: str = "implicit", bars: bool = False) -> PianoTokenizer:
    """A tokenizer whose codebook has a code for each cell of `three_beats`."""
    cells = three_beats()
    first = Patterns(*np.unique(np.stack([cells.sustain, cells.onset]), axis=1))
    book = complete([first, NOTHING, NOTHING], VOCABULARY)
    return PianoTokenizer(book, TempoBins(), CODEC if velocity else None, ties=ties, bars=bars)


def corrupt(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The ids with two swapped, one left out or put in, or the end cut off."""
    at = int(rng.integers(1, ids.size - 1))
    other = int(rng.integers(1, ids.size - 1))
    match int(rng.integers(4)):
        case 0:
            ids = ids.copy()
            ids[[at, other]] = ids[[other, at]]
        case 1:
            ids = np.delete(ids, at)
        case 2:
            ids = np.insert(ids, at, rng.integers(0, VOCABULARY.size))
        case _:
            ids = ids[:at]
    return ids


def real_pieces(root: Path, asap: int, pop909: int) -> list[Piece]:
    """Every so many-th performance of two data sets, on their annotated beats."""
    paths = sorted(root.glob("asap/*/**/[A-Z]*.mid"))[::asap]
    paths += sorted(root.glob("pop909/POP909/*/*.mid"))[::pop909]
    assert len(paths) > 5
    return [
        Piece.from_midi(
            path,
            beats=path.with_name(
                "beat_midi.txt" if "POP909" in path.parts else f"{path.stem}_annotations.txt"
            ),
        )
        for path in paths
    ]
