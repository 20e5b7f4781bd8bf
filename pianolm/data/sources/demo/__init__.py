"""The demo data set: composed by `pianolm.data.sources.demo.composer`, written as MIDI and read like any other data.

Every sixth piece is a score with constant velocity; its file name ends in `_score`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pianolm.data.sources.base import Collection, Record, slug
from pianolm.data.sources.demo.composer import Composition, compose
from pianolm.data.sources.folder import folder_collection, midi_files
from pianolm.errors import UserError
from pianolm.music.beats import extend_beats
from pianolm.music.midi import write_midi
from pianolm.music.notes import make_notes

COMPOSER_VERSION = 1
"""Raised when `compose` changes its music, so that demo data is prepared again."""

LICENCE = "none needed: composed by this program"
SCORE_ENDING = "_score"
_SCORE_EVERY = 6


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """Composes `data.pieces` pieces from `data.seed` into the cache and lists them."""
    count, seed = piece_count(data), int(data.get("seed", 0))
    cache.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        write_piece(compose(seed, index, is_score(index)), cache, index)
    found = folder_collection(cache, midi_files(cache)[0], data, "demo", LICENCE)
    return replace(found, records=tuple(map(_with_kind, found.records)))


def demo_manifest(data: Mapping[str, Any]) -> dict[str, Any]:
    """What determines the composed music, for the fingerprint of stage `prepare`."""
    return {"composer": COMPOSER_VERSION, "seed": data.get("seed", 0), "pieces": piece_count(data)}


def _with_kind(record: Record) -> Record:
    """The record, of kind score if its file is one."""
    return replace(record, kind="score") if record.midi_path.stem.endswith(SCORE_ENDING) else record


def piece_count(data: Mapping[str, Any]) -> int:
    """The value of `data.pieces`.

    Raises:
        UserError: It is no number of at least 1.
    """
    count = data.get("pieces", 60)
    if not isinstance(count, int) or count < 1:
        raise UserError(f"data.pieces={count} found, expected a number of pieces to compose of at least 1")
    return count


def is_score(index: int) -> bool:
    """Whether piece `index` is a score with one velocity."""
    return index % _SCORE_EVERY == _SCORE_EVERY - 1


def write_piece(composition: Composition, directory: Path, index: int) -> Path:
    """Writes `NNN_title.mid` and its `_annotations.txt` in ASAP's format; time 0 is the grid's first beat.

    Returns:
        The path of the MIDI file.
    """
    stem = f"{index:03d}_{slug(composition.title)}{SCORE_ENDING if composition.flat else ''}"
    onset, offset = np.asarray(composition.onset_sec), np.asarray(composition.offset_sec)
    grid = extend_beats(np.asarray(composition.beats_sec, np.float64), onset, offset)
    start = grid[0]
    notes = make_notes(onset - start, offset - start, composition.pitch, composition.velocity, name=stem)
    path = directory / f"{stem}.mid"
    write_midi(path, notes, grid - start)
    rows = []
    signature = ",{}/{}".format(*composition.metre)  # on the first downbeat only, as in ASAP
    for beat, down in zip(np.asarray(composition.beats_sec) - start, composition.downbeat, strict=True):
        rows.append(f"{beat:.6f}\t{beat:.6f}\t{'db' if down else 'b'}{signature if down else ''}\n")
        signature = "" if down else signature
    path.with_name(f"{stem}_annotations.txt").write_text("".join(rows), "utf-8")
    return path
