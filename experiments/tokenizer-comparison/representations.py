"""The same quantised performances as tokens: what all tokenizations have in common, and pianolm's.

Shapes: T tokens of a piece, V ids, N notes.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pianolm.data.cell_store import CellStore
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells, FrameNotes, cells_to_frames, frames_to_cells, resolve_collisions
from pianolm.stages.tokenize import build_tokenizer
from pianolm.tokenizer.token_mask import TokenMasks, token_masks
from pianolm.tokenizer.vocabulary import CODE_KINDS, EIGHTHS_OF_KIND, Kind

GROUPS = ("pitch", "time", "velocity", "tempo")
"""Groups of token types. Time is onsets and ends: pianolm's patterns, bars, and the ends of beats and pieces."""
MODES = ("velocity", "base")
LONG_FRAMES = (2 * FRAMES, 8 * FRAMES)
"""Durations from which MidiTok's are coarser, in frames."""
NEAR_FRAMES = FRAMES // 8
"""A decoded note stands for notes of its pitch whose onsets are so near: half a step of the coarsest grid, BEAT's."""


@dataclass(frozen=True, eq=False)
class Performance:
    """A piece on its grid of 48 frames per beat, the input of every tokenization."""

    id: str
    cells: Cells
    beats_sec: NDArray[np.float64]
    bar_starts: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))

    @cached_property
    def notes(self) -> FrameNotes:
        return cells_to_frames(self.cells)

    @property
    def seconds(self) -> float:
        return float(self.beats_sec[-1] - self.beats_sec[0])


def performance(store: CellStore, index: int) -> Performance:
    beats_sec = np.asarray(store.beats_sec(index))
    return Performance(store.pieces[index].id, store.cells(index), beats_sec, store.bar_starts(index))


class Tokens(ABC):
    """A tokenization.

    Attributes:
        types: Names of the types of token.
        group: Group of each type.
        type_V: [V] index of each id's type.
        notes_V: [V] notes that each id strikes.
        pad, bos, eos: Ids of PAD, BOS and EOS.
        fingerprint: Hash of everything that determines the tokens.
    """

    def __init__(
        self,
        group: dict[str, str],
        type_V: NDArray[np.int64],
        notes_V: NDArray[np.int64],
        marks: tuple[int, int, int],
        fingerprint: str,
    ) -> None:
        self.types, self.group = tuple(group), group
        self.type_V, self.notes_V = type_V, notes_V
        self.pad, self.bos, self.eos = marks
        self.fingerprint = fingerprint

    @abstractmethod
    def encode(self, given: Performance) -> NDArray[np.int64]:
        """Ids [T] of a performance, from BOS to EOS."""

    @abstractmethod
    def decode(self, ids: NDArray[np.int64]) -> FrameNotes:
        """The notes of a sequence."""

    @abstractmethod
    def token_masks(self, ids: NDArray[np.int64]) -> TokenMasks:
        """The ids among which each token of a sequence was chosen."""

    @abstractmethod
    def masked_targets(self) -> nn.Module:
        """The same for the targets of windows; see `pianolm.lm.masked_targets`."""

    def given(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[T] tokens that follow from those before, and are neither scored nor learned."""
        return np.zeros(ids.size, bool)


class PianoTokens(Tokens):
    """pianolm's tokens.

    Attributes: see `Tokens`, and
        eighths_V: [V] eighths of a beat that each id fills.
    """

    def __init__(self, directory: Path, mode: str) -> None:
        tokenizer = build_tokenizer({"mode": mode}, {"tokenizer": directory})
        self.tokenizer, vocabulary = tokenizer, tokenizer.vocabulary
        named = {Kind.PITCH: "pitch", Kind.VELOCITY: "velocity", Kind.TEMPO: "tempo", Kind.EOS: "end"}
        named |= {**dict.fromkeys(CODE_KINDS, "pattern"), Kind.BAR: "bar", Kind.DURATION: "duration"}
        named[Kind.TUNING] = "tuning"
        types = ("pattern", "pitch", "velocity", "tempo", "end", "bar", "duration", "tuning")
        type_of_kind = np.array([types.index(named.get(kind, "end")) for kind in Kind])
        super().__init__(
            {**{kind: kind if kind in GROUPS else "time" for kind in types}, "tuning": "tempo"},
            type_of_kind[vocabulary.kind_of],
            tokenizer.strikes_per_id,
            (vocabulary.pad, vocabulary.bos, vocabulary.eos),
            digest({"hashes": tokenizer.hashes, "exact": tokenizer.exact}),
        )
        self.eighths_V = np.array([EIGHTHS_OF_KIND.get(kind, 0) for kind in Kind])[vocabulary.kind_of]

    def encode(self, given: Performance) -> NDArray[np.int64]:
        return self.tokenizer.encode_cells(given.cells, given.beats_sec, given.bar_starts)

    def decode(self, ids: NDArray[np.int64]) -> FrameNotes:
        return self.tokenizer.decode(ids).frame_notes

    def token_masks(self, ids: NDArray[np.int64]) -> TokenMasks:
        return token_masks(self.tokenizer.grammar, ids)

    def masked_targets(self) -> nn.Module:
        return MaskedTargets(self.tokenizer.grammar)

    def tied(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[T] tokens of tied cells: no key is struck in them, their notes are held from the beat before."""
        kind = self.tokenizer.vocabulary.kind_of[ids]
        filled = np.cumsum(
            self.eighths_V[ids]
        )  # a cell is full with eight; its velocity follows, its age and pitch go ahead
        cell = np.maximum(filled - ~np.isin(kind, (Kind.PITCH, Kind.DURATION)), 0) // 8
        strikes = np.bincount(cell, self.notes_V[ids])
        return np.isin(kind, (Kind.DURATION, Kind.PITCH, Kind.VELOCITY, *CODE_KINDS)) & (strikes[cell] == 0)


def left_out(given: Performance, decoded: FrameNotes, with_velocity: bool) -> dict[str, NDArray[np.int64]]:
    """What the tokens do not hold, note by note.

    Each note is compared with the decoded note of its pitch that is nearest in onset.

    Returns:
        `lost` [1], the number of notes without a decoded note near enough; `notes` [D], how many notes each decoded
        note stands for. Of the notes that are not lost: the errors `onset` and `end` in frames and `velocity` in MIDI
        units, and the classes that a decoder knows: `long` (0, 1, 2) by the decoded duration, and `crowd`.
    """
    key, unsorted = (
        notes["pitch"].astype(np.int64) << 40 | notes["onset"] for notes in (given.notes, decoded)
    )
    order = np.argsort(unsorted, kind="stable")
    far = np.int64(1) << 60
    found = np.concatenate([[-far], unsorted[order], [far]])
    after = np.searchsorted(found, key)
    nearest = np.where(found[after] - key < key - found[after - 1], after, after - 1)
    is_near = np.abs(found[nearest] - key) <= NEAR_FRAMES
    mine, theirs = np.flatnonzero(is_near), order[nearest[is_near] - 1]
    velocity = given.notes["velocity"][mine].astype(np.int64) - decoded["velocity"][theirs]
    return {
        "lost": np.array([key.size - mine.size]),
        "notes": np.bincount(theirs, minlength=decoded.size),
        "onset": given.notes["onset"][mine] - decoded["onset"][theirs],
        "end": given.notes["end"][mine] - decoded["end"][theirs],
        "velocity": velocity * with_velocity,
        "long": np.searchsorted(LONG_FRAMES, (decoded["end"] - decoded["onset"])[theirs], side="right"),
        "crowd": crowd(decoded, given.cells.n_beats)[theirs],
    }


def crowd(notes: FrameNotes, n_beats: int) -> NDArray[np.int64]:
    """[N] segments in the cell in which each note starts, at most 4: one token holds all their velocities."""
    n_beats = max(n_beats, int(notes["onset"].max(initial=0)) // FRAMES + 1)
    resolved, _ = resolve_collisions(
        notes["onset"], notes["end"], notes["pitch"], notes["velocity"], n_beats * FRAMES
    )
    cells = frames_to_cells(resolved, n_beats)
    cell = cells.beat.astype(np.int64) * 128 + cells.pitch
    begins = notes["onset"] // FRAMES * 128 + notes["pitch"]
    return np.minimum(cells.segment_count[np.searchsorted(cell, begins)], 4)


def worth(errors: NDArray[np.int64], classes: NDArray[np.int64]) -> float:
    """Bits per note of the errors [N], by their frequencies within their classes [N]: an upper bound of their cost."""
    bits = 0.0
    for member in np.unique(classes):
        _, count = np.unique(errors[classes == member], return_counts=True)
        bits -= float((count * np.log2(count / count.sum())).sum())
    return bits / max(errors.size, 1)


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
