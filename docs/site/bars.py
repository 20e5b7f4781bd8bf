"""The page docs/bars.html: bars of composed pieces as notes, cells, codes and tokens, to look at and to hear.

The pieces are those of `data=demo`, so no data set and no licence is concerned; the tokenizer is that of the bundled
model. Times are in seconds from the first beat of the bar, patterns are strings of a letter a frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.data.sources.demo import write_piece
from pianolm.data.sources.demo.composer import compose
from pianolm.music.beats import FRAMES
from pianolm.music.piece import Piece
from pianolm.report.bar_tokens import BarToken, beat_tokens
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CODE_KINDS, EIGHTHS_OF_KIND, Kind

_TEMPLATE = Path(__file__).with_name("bars.html")
_PLACE = "/* pieces */"
_SEED = 0
_PIECES = (3, 5, 4, 1, 7, 12, 19)
"""Invention, nocturne, rag, waltz, chorale, march, sonatina."""
_BARS = range(4, 8)
"""Bars that are shown, counted from 0."""


@cache
def demo_piece(index: int) -> tuple[str, Piece]:
    """Title and music of a piece of `data=demo`, read from its MIDI and beat files."""
    composition = compose(_SEED, index)
    with TemporaryDirectory() as folder:
        return composition.title, Piece.from_midi(write_piece(composition, Path(folder), index), beats="file")


@cache
def tokenizers() -> dict[str, PianoTokenizer]:
    """Tokenizers by preset, of the codebook and the velocity codec of `pop`."""
    ties = PianoTokenizer.from_pretrained("pop")
    tempo = TempoBins("log50", ties.vocabulary.tempo)
    return {"velocity": PianoTokenizer(ties.codebook, tempo, ties.codec), "ties": ties}


def pieces() -> list[dict[str, Any]]:
    """The data of the page."""
    return [_piece(*demo_piece(index)) for index in _PIECES]


def _piece(title: str, piece: Piece) -> dict[str, Any]:
    read = {name: (made, made.encode(piece).ids) for name, made in tokenizers().items()}
    decoded = {name: made.decode(ids) for name, (made, ids) in read.items()}
    bars = []
    for number in _BARS:
        first, stop = piece.bar_starts[number : number + 2].tolist()
        layouts = {
            name: {
                **_played(decoded[name], first, stop),
                "velocities": [velocities for *_, velocities in _cells(decoded[name], first, stop)],
                "tokens": _tokens(*read[name], first, stop),
            }
            for name in read
        }
        bar = {"bar": number + 1, **_played(piece, first, stop), "cells": list(_cells(piece, first, stop))}
        bars.append({**bar, "layouts": layouts})
    return {"title": title, "bars": bars}


def _played(piece: Piece, first: int, stop: int) -> dict[str, Any]:
    """Beat times, and the notes that sound: onset, end, pitch, velocity, whether they are struck in these beats."""
    start, *_, end = beats = piece.beats_sec[first : stop + 1]
    sounding = piece.notes[(piece.notes["onset_sec"] < end) & (piece.notes["offset_sec"] > start)]
    notes = [
        [_sec(max(on - start, 0)), _sec(min(off, end) - start), pitch, velocity, int(on >= start)]
        for on, off, pitch, velocity in sounding[["onset_sec", "offset_sec", "pitch", "velocity"]].tolist()
    ]
    return {"beats": [_sec(beat - start) for beat in beats], "notes": notes}


def _sec(value: float) -> float:
    return round(float(value), 3)


def _cells(piece: Piece, first: int, stop: int) -> Iterator[tuple[int, int, str, list[int]]]:
    """Beat within the bar, pitch, pattern and velocities of each cell."""
    cells = piece.cells
    segments = cells.segment_offset
    for row in range(*np.searchsorted(cells.beat, [first, stop]).tolist()):
        pattern = _pattern(int(cells.sustain[row]), int(cells.onset[row]), FRAMES)
        velocities = cells.segment_velocity[segments[row] : segments[row + 1]].tolist()
        yield int(cells.beat[row]) - first, int(cells.pitch[row]), pattern, velocities


def _pattern(sustain: int, onset: int, frames: int) -> str:
    """A letter a frame: `x` struck, `-` sounding, `.` silent."""
    return "".join("x" if onset >> f & 1 else "-" if sustain >> f & 1 else "." for f in range(frames))


def _tokens(
    tokenizer: PianoTokenizer, ids: NDArray[np.int64], first: int, stop: int
) -> list[list[list[int | str]]]:
    """The tokens of each beat: id, kind, label, pitch, first eighth, pattern, whether a held note ends there."""
    tempo_at = np.flatnonzero(tokenizer.vocabulary.kind_of[ids] == Kind.TEMPO)
    ends = np.append(tempo_at, ids.size - 1)
    beats = beat_tokens(tokenizer, ids, first, stop - first)
    numbers = [ids[ends[beat] : ends[beat + 1]].tolist() for beat in range(first, stop)]
    return [
        [_token(*parts) for parts in zip(of_beat, tokens, _end_ties(tokens), strict=True)]
        for of_beat, tokens in zip(numbers, beats, strict=True)
    ]


def _end_ties(tokens: list[BarToken]) -> list[bool]:
    """Whether each token of a beat belongs to a tied cell of silent codes, which ends its note at the beat line."""
    group, groups = 0, []
    for before, token in zip([None, *tokens], tokens, strict=False):
        begins = token.kind is Kind.PITCH and (before is None or before.kind is not Kind.DURATION)
        group += token.starts_tie or begins
        groups.append(group)
    tied = {number for number, token in zip(groups, tokens, strict=True) if token.starts_tie}
    sounding = {number for number, token in zip(groups, tokens, strict=True) if token.sustain}
    return [number in tied - sounding for number in groups]


def _token(number: int, token: BarToken, ends: bool) -> list[int | str]:
    frames = 6 * EIGHTHS_OF_KIND[token.kind] if token.kind in CODE_KINDS else 0
    pattern = _pattern(token.sustain, token.onset, frames)
    return [number, token.kind.name, token.label, token.pitch, token.eighth, pattern, int(ends)]


def bars_page() -> str:
    """docs/bars.html."""
    rows = [json.dumps(piece, ensure_ascii=False, separators=(",", ":")) for piece in pieces()]
    return _TEMPLATE.read_text("utf-8").replace(_PLACE, ",\n".join(rows))


def write(root: Path) -> None:
    """Writes the page of a checkout."""
    (root / "docs" / "bars.html").write_text(bars_page(), "utf-8")
