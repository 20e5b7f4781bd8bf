"""The same quantised performances as tokens of pianolm and of MidiTok.

Shapes: T tokens of a piece, V ids, N notes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import symusic
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pianolm.data.cell_store import CellStore
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FRAME_NOTE_DTYPE, Cells, FrameNotes, cells_to_frames
from pianolm.stages.tokenize import build_tokenizer
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.token_mask import TokenMasks, token_masks
from pianolm.tokenizer.vocabulary import CODE_KINDS, EIGHTHS_OF_KIND, Kind

GROUPS = ("pitch", "time", "velocity", "tempo")
"""Groups of token types. Time is onsets and ends: pianolm's patterns, bars, and the ends of beats and pieces."""
MODES = ("velocity", "base")
MIDITOK = ("tsd", "remi", "pertok", "tsd_tempo")
"""The last also encodes the tempo of every beat, in the 50 bins of pianolm."""
LONG_FRAMES = (2 * FRAMES, 8 * FRAMES)
"""Durations from which MidiTok's are coarser, in frames."""
_BETWEEN = {"Bar", "TimeShift", "Pitch"}
PERTOK_AFTER = {
    "BOS": _BETWEEN,
    "Bar": _BETWEEN,
    "TimeShift": _BETWEEN,
    "Pitch": {"MicroTiming"},
    "MicroTiming": {"Velocity", "Duration"},
    "Velocity": {"Duration"},
    "Duration": {*_BETWEEN, "EOS"},
}
"""Types that may follow each type in PerTok, for which MidiTok has no table."""


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

    @cached_property
    def crowd(self) -> NDArray[np.int64]:
        """[N] segments in the cell in which each note starts, at most 4: one code holds all their velocities."""
        cell = self.cells.beat.astype(np.int64) * 128 + self.cells.pitch
        begins = self.notes["onset"] // FRAMES * 128 + self.notes["pitch"]
        return np.minimum(self.cells.segment_count[np.searchsorted(cell, begins)], 4)

    @property
    def seconds(self) -> float:
        return float(self.beats_sec[-1] - self.beats_sec[0])


def performance(store: CellStore, index: int) -> Performance:
    beats_sec = np.asarray(store.beats_sec(index))
    return Performance(store.pieces[index].id, store.cells(index), beats_sec, store.bar_starts(index))


class PianoTokens:
    """pianolm's tokens.

    Attributes:
        types: Names of the types of token.
        group: Group of each type.
        type_V: [V] index of each id's type.
        notes_V: [V] notes that each id strikes.
        eighths_V: [V] eighths of a beat that each id fills.
        pad, bos, eos: Ids of PAD, BOS and EOS.
        fingerprint: Hash of everything that determines the tokens.
    """

    types = ("pattern", "pitch", "velocity", "tempo", "end", "bar", "duration")

    def __init__(self, directory: Path, mode: str) -> None:
        tokenizer = build_tokenizer({"mode": mode}, {"tokenizer": directory})
        self.tokenizer, vocabulary = tokenizer, tokenizer.vocabulary
        self.group = {kind: kind if kind in GROUPS else "time" for kind in self.types}
        self.pad, self.bos, self.eos = vocabulary.pad, vocabulary.bos, vocabulary.eos
        named = {Kind.PITCH: "pitch", Kind.VELOCITY: "velocity", Kind.TEMPO: "tempo", Kind.EOS: "end"}
        named |= {**dict.fromkeys(CODE_KINDS, "pattern"), Kind.BAR: "bar", Kind.DURATION: "duration"}
        named[Kind.TUNING] = "tempo"
        type_of_kind = np.array([self.types.index(named.get(kind, "end")) for kind in Kind])
        self.type_V, self.notes_V = type_of_kind[vocabulary.kind_of], tokenizer.strikes_per_id
        self.eighths_V = np.array([EIGHTHS_OF_KIND.get(kind, 0) for kind in Kind])[vocabulary.kind_of]
        self.fingerprint = digest({"hashes": tokenizer.hashes, "exact": tokenizer.exact})

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


class SetsByInput(nn.Module):
    """Token masks of targets as in `pianolm.lm.masked_targets`, chosen by the type of the input."""

    masks: Tensor

    def __init__(self, masks_KV: NDArray[np.bool_], type_V: NDArray[np.int64]) -> None:
        super().__init__()
        self.register_buffer("masks", torch.from_numpy(masks_KV))
        self.register_buffer("type_of", torch.from_numpy(type_V))

    def forward(self, input_ids_BT: Tensor, labels_BT: Tensor, position_ids_BT: Tensor | None) -> Tensor:
        return self.get_buffer("type_of")[input_ids_BT]


class MidiTokTokens:
    """A tokenization of MidiTok: 48 positions per beat, every velocity, no metre, tempo only in `tsd_tempo`.

    Attributes: see `PianoTokens`.
    """

    def __init__(self, name: str, mode: str) -> None:
        try:
            import miditok
        except ImportError:
            sys.exit(
                "MidiTok is not installed; pip install --constraint constraints.txt --editable '.[bench]'"
            )
        kinds = {"tsd": miditok.TSD, "remi": miditok.REMI, "pertok": miditok.PerTok}
        kind, self._with_tempo = kinds[name.partition("_")[0]], name == "tsd_tempo"
        settings = miditok_settings(name, mode)
        self.tokenizer = kind(miditok.TokenizerConfig(**settings))
        names = list(self.tokenizer.vocab)
        self.pad, self.bos, self.eos = (
            self.tokenizer.vocab[f"{mark}_None"] for mark in ("PAD", "BOS", "EOS")
        )
        type_of_id = [token.partition("_")[0] for token in names]
        self.types = tuple(dict.fromkeys(type_of_id))
        self.group = {
            kind: {"Pitch": "pitch", "Velocity": "velocity", "Tempo": "tempo"}.get(kind, "time")
            for kind in self.types
        }
        self.type_V = np.array([self.types.index(kind) for kind in type_of_id])
        self.notes_V = np.array([int(kind == "Pitch") for kind in type_of_id])
        self._after_KV = self._successors()
        self.fingerprint = digest({"name": name, "settings": repr(settings), "version": version("miditok")})

    def encode(self, given: Performance) -> NDArray[np.int64]:
        (sequence,) = self.tokenizer(as_score(given.notes, given.beats_sec if self._with_tempo else None))
        return np.array([self.bos, *sequence.ids, self.eos], np.int64)

    def masked_targets(self) -> nn.Module:
        """As `token_masks`; after EOS the next piece may begin with any id."""
        return SetsByInput(self._after_KV | (np.array(self.types) == "EOS")[:, None], self.type_V)

    def _successors(self) -> NDArray[np.bool_]:
        """[K, V] ids that may follow each type by MidiTok's table, without PAD, and without EOS inside a note."""
        follows = np.zeros((len(self.types), len(self.types)), bool)
        table = self.tokenizer.tokens_types_graph
        table = table if "Pitch" in table else PERTOK_AFTER
        for row, kind in enumerate(self.types):
            named = table.get(kind, set()) - {"PAD"}
            named -= {"EOS"} if kind in ("Pitch", "Velocity") else set()
            named -= {"Duration"} if kind == "MicroTiming" and "Velocity" in self.types else set()
            follows[row, [self.types.index(other) for other in named if other in self.types]] = True
        return follows[:, self.type_V]

    def token_masks(self, ids: NDArray[np.int64]) -> TokenMasks:
        """The first token is given, so its mask does not matter."""
        type_T = self.type_V[ids]
        return TokenMasks.from_masks(self._after_KV[before] for before in [type_T[0], *type_T[:-1]])

    def decode(self, ids: NDArray[np.int64]) -> FrameNotes:
        score = self.tokenizer.decode([ids[1:-1].tolist()])
        assert score.ticks_per_quarter == FRAMES, "a tick is a frame"
        read = [track.notes.numpy() for track in score.tracks]
        found = np.zeros(sum(columns["time"].size for columns in read), FRAME_NOTE_DTYPE)
        if read:
            joined = {key: np.concatenate([columns[key] for columns in read]) for key in read[0]}
            found["onset"], found["end"] = joined["time"], joined["time"] + joined["duration"]
            found["pitch"], found["velocity"] = joined["pitch"], joined["velocity"]
        return found


def miditok_settings(name: str, mode: str) -> dict[str, Any]:
    """Onsets are exact at 48 positions per beat; durations are coarser from 2 beats on, in PerTok everywhere."""
    settings = {
        "pitch_range": (0, 127),
        "special_tokens": ["PAD", "BOS", "EOS"],
        "beat_res": {(0, 2): FRAMES, (2, 8): 12, (8, 32): 4},
        "num_velocities": 127,
        "use_velocities": mode == "velocity",
        "use_tempos": False,
        "use_time_signatures": False,
    }
    if name == "pertok":
        # sixteenths and, for short times, their triplets; micro timing gives the frames in between
        settings |= {
            "beat_res": {(0, 32): 4, (0, 2): 12},
            "ticks_per_quarter": FRAMES,
            "use_microtiming": True,
            "max_microtiming_shift": 0.125,
            "num_microtiming_bins": FRAMES // 4,
        }
    if name == "tsd_tempo":
        settings |= {"use_tempos": True, "num_tempos": 50, "tempo_range": (15, 480), "log_tempos": True}
    return settings


def as_score(notes: FrameNotes, beats_sec: NDArray[np.float64] | None = None) -> symusic.Score:
    """A MIDI file whose quarter note is a beat and whose tick is a frame; with beats [B + 1] the tempo of every beat.

    The tempi are those of pianolm's bins.
    """
    score, track = symusic.Score(FRAMES), symusic.Track(name="piano", program=0, is_drum=False)
    ordered = notes[np.lexsort((notes["pitch"], notes["onset"]))]
    track.notes = symusic.Note.from_numpy(
        time=ordered["onset"].astype(np.int32),
        duration=(ordered["end"] - ordered["onset"]).astype(np.int32),
        pitch=ordered["pitch"].astype(np.int8),
        velocity=ordered["velocity"].astype(np.int8),
    )
    score.tracks.append(track)
    if beats_sec is not None:
        bins = TempoBins()
        for beat, bpm in enumerate(bins.bpm[bins.encode(beats_sec)].tolist()):
            score.tempos.append(symusic.Tempo(beat * FRAMES, bpm))
    return score


Tokens = PianoTokens | MidiTokTokens


def representation(tokens: str, mode: str, tokenizer: Path) -> Tokens:
    return MidiTokTokens(tokens, mode) if tokens in MIDITOK else PianoTokens(tokenizer, mode)


def left_out(given: Performance, decoded: FrameNotes, with_velocity: bool) -> dict[str, NDArray[np.int64]]:
    """What the tokens do not hold, note by note.

    Returns:
        `lost` [1], the number of notes without a decoded note of their pitch and onset. Of the others: the errors
        `end` in frames and `velocity` in MIDI units, and the classes that a decoder knows: `long` (0, 1, 2) by the
        decoded duration, and `crowd`.
    """
    key, found = (notes["pitch"].astype(np.int64) << 40 | notes["onset"] for notes in (given.notes, decoded))
    _, mine, theirs = np.intersect1d(key, found, return_indices=True)
    duration = decoded["end"][theirs] - decoded["onset"][theirs]
    velocity = given.notes["velocity"][mine].astype(np.int64) - decoded["velocity"][theirs]
    return {
        "lost": np.array([key.size - mine.size]),
        "end": given.notes["end"][mine] - decoded["end"][theirs],
        "velocity": velocity * with_velocity,
        "long": np.searchsorted(LONG_FRAMES, duration, side="right"),
        "crowd": given.crowd[mine],
    }


def worth(errors: NDArray[np.int64], classes: NDArray[np.int64]) -> float:
    """Bits per note of the errors [N], by their frequencies within their classes [N]: an upper bound of their cost."""
    bits = 0.0
    for member in np.unique(classes):
        _, count = np.unique(errors[classes == member], return_counts=True)
        bits -= float((count * np.log2(count / count.sum())).sum())
    return bits / max(errors.size, 1)


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
