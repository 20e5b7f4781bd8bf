"""`PianoTokenizer`: pieces to ids and back, saved to and loaded from one directory.

Shapes: T tokens, C cells, S segments, B beats, V ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.errors import UserError
from pianolm.music.bars import UNKNOWN, bar_positions, bar_starts_from_positions
from pianolm.music.cells import Cells, segment_starts
from pianolm.music.piece import Piece
from pianolm.tokenizer.ages import age_numbers
from pianolm.tokenizer.codebook import Codebook
from pianolm.tokenizer.grammar import ILLEGAL, Grammar, Phase
from pianolm.tokenizer.slots import SlotReader, silent_codes, slots_and_cells
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.vocabulary import ALLOTMENT, EIGHTHS_OF_KIND, Kind, Vocabulary

FORMAT_VERSION = 4
PITCH_ORDERS = "ascending", "descending"
HELD = "cells", "codes", "ages"
MODES = ("velocity", "base")
LAST_POSITION = ALLOTMENT[Kind.BAR]
"""In a bar, with a token of its own; it stands for all later ones, too."""
DEFAULT_VELOCITY = 64
"""Velocity of decoded notes when the tokens carry none (base mode)."""

ADDED_OPTIONS: dict[int, dict[str, Any]] = {
    2: {"held_velocity": True, "pitch_order": "ascending"},
    3: {"bars": False},
    4: {"held": "cells"},
}
"""By the format that first had them, options as they were before."""

_SETTINGS, _CODEBOOK, _CODEC = "tokenizer.json", "codebook.npz", "velocity"
# Plain numbers: looking a member of an enum up costs more than a step of decoding a short sequence.
_TEMPO, _PITCH, _VELOCITY = int(Kind.TEMPO), int(Kind.PITCH), int(Kind.VELOCITY)
_AGE = int(Kind.AGE)
_BOS, _EOS, _PAD, _BAR = int(Kind.BOS), int(Kind.EOS), int(Kind.PAD), int(Kind.BAR)
_CODES, _BEAT, _WANTS_VELOCITY = int(Phase.CODES), int(Phase.BEAT), int(Phase.VELOCITY)
_EIGHTHS = np.array([EIGHTHS_OF_KIND.get(kind, 0) for kind in Kind])


@dataclass(frozen=True)
class Encoding:
    """What `encode` gives.

    Attributes:
        ids: int64 [T], BOS first, EOS last.
        loss_mask: bool [T], False at velocity tokens whose value says nothing (flat pieces).
    """

    ids: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]


class _Parts(NamedTuple):
    """Cells and slots in the order of their tokens: code ids [C, 8], pitches and numbers of ages [C] (−1 where none is
    said), velocity codes [C] (none in base mode), beats [C]."""

    codes: NDArray[np.integer]
    pitch: NDArray[np.int64]
    age: NDArray[np.int64]
    velocity: NDArray[np.int64]
    beat: NDArray[np.integer]


class _Found(NamedTuple):
    """Cells found in tokens, in order of (beat, pitch).

    Attributes:
        code_ids: [C, 8] as `Codebook.encode` lays them.
        beat: [C] of each.
        pitch: [C] of each.
        last: [C] where the last token of each stands.
        struck: [C] bool, cells that are struck where they begin held; None where what sounded before decides.
        used: Tokens of all that is in place, less those that follow no beat; and less what is missing.
    """

    code_ids: NDArray[np.int64]
    beat: NDArray[np.int64]
    pitch: NDArray[np.int64]
    last: NDArray[np.int64]
    struck: NDArray[np.bool_] | None
    used: int


class PianoTokenizer:
    """Vocabulary, codebook, tempo bins and, in velocity mode, the velocity codec.

    Args:
        codebook: The pattern codebook; it brings the vocabulary.
        tempo: Tempo bins, as many as the vocabulary has tempo ids.
        codec: The velocity codec; None makes a tokenizer without velocities (base mode).
        exact: Whether parts that L3 lacks use the exhaustive L4; else the nearest L3 code.
        tolerance: Frames of a part that a code may miss; 0 is exact.
        held_velocity: Whether cells without a strike carry a velocity token, too; without one, what sounds there keeps
            the velocity that its pitch had before. Unless `held` is "cells" none carries one, whatever is said here.
        pitch_order: Of the cells of a beat: ascending or descending.
        bars: Whether a beat says its position in the bar, where the piece has downbeats: 1 to 8, and 8 for all later
            ones, too.
        held: How a beat tells of what sounds on from the beat before: as cells like all others; or, as pitch and
            velocity are known, by codes alone (`tokenizer.slots`); or by "ages", which is such codes and ahead
            of them how long the pitch has sounded, and which it is.

    Raises:
        UserError: The parts do not fit together, or an option is none of those known.
    """

    def __init__(
        self,
        codebook: Codebook,
        tempo: TempoBins,
        codec: VelocityCodec | None = None,
        exact: bool = True,
        tolerance: int = 0,
        held_velocity: bool = True,
        pitch_order: str = "ascending",
        bars: bool = False,
        held: str = "cells",
    ) -> None:
        _refuse_unknown("pitch_order", pitch_order, PITCH_ORDERS)
        _refuse_unknown("held", held, HELD)
        self.vocabulary = codebook.vocabulary
        self.codebook, self.tempo, self.codec = codebook, tempo, codec
        self.exact, self.tolerance = exact, tolerance
        self.held_velocity = held_velocity and held == "cells"
        self.pitch_order, self.bars, self.held = pitch_order, bars, held
        self.slots = held != "cells"
        _refuse_misfits(self.vocabulary, tempo, codec, bars, held)
        self._offset = [self.vocabulary.offset(kind) for kind in Kind]
        self.grammar = Grammar(
            self.vocabulary,
            codec is not None,
            codebook.silent_ids,
            None if self.held_velocity else self.strikes_per_id > 0,
            descending=pitch_order == "descending",
            bars=bars,
            rings=codebook.ringing_ids if self.slots else None,
            since_strike=codebook.since_strike if held == "ages" else None,
        )

    @property
    def mode(self) -> str:
        """`velocity` or `base`."""
        return "base" if self.codec is None else "velocity"

    @cached_property
    def strikes_per_id(self) -> NDArray[np.int64]:
        """[V] notes that each token strikes."""
        return np.bitwise_count(self.codebook.id_patterns.onset).astype(np.int64)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Content hash of each part, with the options that change what its ids say; empty for a part that is absent."""
        layout = ("-descending" if self.pitch_order == "descending" else "") + ("-bars" if self.bars else "")
        layout += {"cells": "", "codes": "-held", "ages": "-ages"}[self.held]
        return {
            "vocabulary": self.vocabulary.fingerprint + layout,
            "codebook": self.codebook.fingerprint,
            "tempo": self.tempo.fingerprint,
            "velocity": ""
            if self.codec is None
            else self.codec.fingerprint + ("" if self.held_velocity else "-struck"),
        }

    def encode(self, piece: Piece) -> Encoding:
        """Piece to ids, with BOS and EOS."""
        ids = self.encode_cells(piece.cells, piece.beats_sec, piece.bar_starts)
        meaningless = (self.vocabulary.kind_of[ids] == _VELOCITY) & piece.flat
        return Encoding(ids, ~meaningless)

    def encode_cells(
        self,
        cells: Cells,
        beats_sec: NDArray[np.float64],
        bar_starts: NDArray[np.intp] | None = None,
        position_B: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Cells on their beats [B + 1] to ids [T], with BOS and EOS.

        Args:
            cells: C cells on B beats.
            beats_sec: [B + 1] beat times.
            bar_starts: [D] ascending beats at which a bar begins, as `Piece.bar_starts`; none or None where unknown.
            position_B: Positions of the beats in their bars, where they are known from elsewhere.
        """
        if position_B is None and bar_starts is not None:
            position_B = bar_positions(bar_starts, cells.n_beats)
        codes, pitch, age, velocity, beat = self._parts(cells)
        there = codes >= 0
        n_codes = np.bitwise_count(np.packbits(there, axis=1)[:, 0])
        named, aged = (pitch >= 0).astype(np.int64), (age >= 0).astype(np.int64)
        voiced = self._voiced(codes)
        before = np.zeros(beat.size + 1, np.int64)
        np.cumsum(aged + named + n_codes + voiced, out=before[1:])  # tokens of the parts before each
        heads = self._heads(beats_sec, position_B)
        in_bar = heads[:, 1] >= 0
        behind = 1 + np.cumsum(1 + in_bar)  # where the cells of each beat would begin were there no others
        ids = np.empty(before[-1] + len(heads) + int(in_bar.sum()) + 2, np.int64)
        ids[0], ids[-1] = self._offset[_BOS], self._offset[_EOS]
        cells_at = behind + before[np.searchsorted(beat, np.arange(cells.n_beats))]
        ids[cells_at - 1 - in_bar] = heads[:, 0]
        ids[cells_at[in_bar] - 1] = heads[in_bar, 1]
        code_at = before[:-1] + behind[beat] + aged + named
        ids[code_at - named - aged] = age + self._offset[_AGE]
        ids[code_at - named] = pitch + self._offset[_PITCH]  # also where no age is said
        ids[code_at] = codes[:, 0]  # also where no pitch is named
        several = np.flatnonzero(n_codes > 1)  # few
        row, column = np.nonzero(there[several, 1:])
        place = there[several].cumsum(axis=1)[row, column + 1] - 1
        ids[code_at[several[row]] + place] = codes[several[row], column + 1]
        if self.codec is not None:
            ids[(code_at + n_codes)[voiced]] = velocity[voiced] + self._offset[_VELOCITY]
        return ids

    def _parts(self, cells: Cells) -> _Parts:
        """Cells, and slots if what sounds on is told in such, in the order of their tokens."""
        codes: NDArray[np.integer] = self.codebook.encode(
            cells.sustain, cells.onset, self.exact, self.tolerance
        )
        pitch = cells.pitch.astype(np.int64)
        velocity = np.zeros(0, np.int64) if self.codec is None else self.codec.encode(cells).astype(np.int64)
        descending = self.pitch_order == "descending"
        if self.slots:
            rows = slots_and_cells(cells, self.codebook.decode(codes), descending)
            codes = np.concatenate([codes, silent_codes(self.codebook)[None]])[rows.cell]  # −1 is the last
            velocity = np.append(velocity, 0)[rows.cell] if self.codec is not None else velocity
            if self.held == "ages":
                age = np.where(rows.age < 0, -1, age_numbers(rows.age))
                return _Parts(codes, rows.pitch, age, velocity, rows.beat)
            pitch = np.where(rows.age < 0, rows.pitch, -1)
            return _Parts(codes, pitch, np.full(pitch.size, -1), velocity, rows.beat)
        if descending:
            order = np.lexsort((-pitch, cells.beat))  # beats stay where they are
            codes, pitch = codes[order], pitch[order]
            velocity = velocity[order] if self.codec is not None else velocity
        return _Parts(codes, pitch, np.full(pitch.size, -1), velocity, cells.beat)

    def _heads(
        self, beats_sec: NDArray[np.float64], position_B: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        """[B, 2] ids that begin each beat: its tempo, and its position in the bar or −1."""
        heads = np.full((beats_sec.size - 1, 2), -1)
        heads[:, 0] = self.tempo.encode(beats_sec) + self._offset[_TEMPO]
        if self.bars and position_B is not None:
            known = position_B != UNKNOWN
            heads[known, 1] = np.minimum(position_B[known], LAST_POSITION) - 1 + self._offset[_BAR]
        return heads

    def _voiced(self, code_ids: NDArray[np.integer]) -> NDArray[np.bool_]:
        """[C] whether cells of these codes [C, 8] carry a velocity token."""
        if self.codec is None or self.held_velocity:
            return np.full(len(code_ids), self.codec is not None)
        strikes = np.where(code_ids >= 0, self.strikes_per_id[code_ids], 0)
        voiced: NDArray[np.bool_] = strikes.sum(axis=1) > 0
        return voiced

    def decode(self, ids: ArrayLike) -> Piece:
        """Ids [T] to the piece they say, starting at 0 seconds; never raises on whole numbers.

        What is ill-formed is left out and counted in `skipped`: what stands before the first tempo (but BOS), what
        follows the first EOS (but PAD), a cell that breaks off, is all silent or does not ascend, and tokens that
        stand where the grammar has no place for them. Without velocity tokens every note gets velocity 64. A beat
        that says it is the first of its bar is a downbeat. Of what sounds on told in slots, see
        `pianolm.tokenizer.slots.SlotReader`; slots and ages that are missing count as one token each.
        """
        tokens = np.asarray(ids, np.int64).ravel()
        kinds, used = self._kinds(tokens)
        tempo_at = np.flatnonzero(kinds == _TEMPO)
        found = self._found(tokens, kinds, tempo_at)
        cells = self._cells(tokens, found, tempo_at.size)
        beats_sec = self.tempo.decode(tokens[tempo_at] - self._offset[_TEMPO])
        return Piece.from_cells(
            cells,
            beats_sec,
            flat=self.codec is None,
            skipped=tokens.size - used - found.used,
            bar_starts=bar_starts_from_positions(self._positions(tokens, kinds, tempo_at)),
        )

    def _found(
        self, tokens: NDArray[np.int64], kinds: NDArray[np.int8], tempo_at: NDArray[np.intp]
    ) -> _Found:
        """The cells in some tokens [T] of these kinds, beats beginning at `tempo_at`."""
        if self.slots:
            return self._found_in_slots(tokens, kinds)
        strikes = self._strikes(tokens, kinds)
        pitch_at = np.flatnonzero(kinds == _PITCH)
        length = self._cell_lengths(kinds, strikes, pitch_at)
        whole = (length > 0) & (np.searchsorted(tempo_at, pitch_at) > 0)
        pitch_at, length = pitch_at[whole], length[whole]
        code_ids = self._codes(tokens, kinds, pitch_at)
        beat = np.searchsorted(tempo_at, pitch_at) - 1
        pitch = tokens[pitch_at] - self._offset[_PITCH]
        kept = np.flatnonzero(self._sounds(code_ids))
        key = beat[kept] * 128 + self.grammar.rank_of[tokens[pitch_at[kept]]]
        highest = np.maximum.accumulate(np.concatenate([[-1], key]))[:-1]
        kept = kept[key > highest]
        if self.pitch_order == "descending":
            kept = kept[np.lexsort((pitch[kept], beat[kept]))]  # cells ascend whatever their tokens do
        bars = int((self._positions(tokens, kinds, tempo_at) != UNKNOWN).sum())
        used = tempo_at.size + bars + int((length[kept] + 1).sum())
        last = pitch_at[kept] + length[kept]
        return _Found(code_ids[kept], beat[kept], pitch[kept], last, None, used)

    def velocity_tokens(
        self, ids: ArrayLike
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Where the velocity tokens of cells stand in ids [T], and the beat and pitch of each of these cells."""
        tokens = np.asarray(ids, np.int64).ravel()
        kinds, _ = self._kinds(tokens)
        found = self._found(tokens, kinds, np.flatnonzero(kinds == _TEMPO))
        voiced = self._voiced(found.code_ids)
        return found.last[voiced], found.beat[voiced], found.pitch[voiced]

    def _found_in_slots(self, tokens: NDArray[np.int64], kinds: NDArray[np.int8]) -> _Found:
        read = SlotReader(self.grammar).read(tokens.tolist(), kinds.tolist())
        pitch = 127 - read.rank if self.grammar.descending else read.rank
        kept = np.flatnonzero(self._sounds(read.code_ids))
        kept = kept[np.lexsort((pitch[kept], read.beat[kept]))]
        return _Found(
            read.code_ids[kept],
            read.beat[kept],
            pitch[kept],
            read.last[kept],
            read.own[kept],
            read.used - read.missing,
        )

    def _sounds(self, code_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[C] whether codes [C, 8] are not all silent."""
        sounds = (code_ids >= 0) & ~self.codebook.silent_ids[np.maximum(code_ids, 0)]
        any_sounds: NDArray[np.bool_] = sounds.sum(axis=1) > 0
        return any_sounds

    def _positions(
        self, tokens: NDArray[np.int64], kinds: NDArray[np.int8], tempo_at: NDArray[np.intp]
    ) -> NDArray[np.int64]:
        """[B] the position in its bar that the token behind each tempo says, `UNKNOWN` where it says none."""
        position = np.full(tempo_at.size, UNKNOWN, np.int64)
        if self.bars:
            said = kinds[tempo_at + 1] == _BAR
            position[said] = tokens[tempo_at[said] + 1] - self._offset[_BAR] + 1
        return position

    def _kinds(self, tokens: NDArray[np.int64]) -> tuple[NDArray[np.int8], int]:
        """Kinds [T + 10], −1 for what is no id or follows EOS; and how many of BOS, EOS and PAD are in place."""
        size = self.vocabulary.size
        inside = tokens.view(np.uint64) < size  # a negative number is a huge one
        kinds = np.full(tokens.size + 10, -1, np.int8)
        kinds[: tokens.size] = self._kind_or_none[np.where(inside, tokens, size)]
        used = int(tokens.size > 0 and tokens[0] == self._offset[_BOS])
        ends = np.flatnonzero(kinds == _EOS)
        if ends.size:
            end = int(ends[0])
            in_beat = (kinds[:end] == _TEMPO).any()
            used += int(in_beat) + int((kinds[end + 1 :] == _PAD).sum())
            kinds[end:] = -1
        return kinds, used

    @cached_property
    def _kind_or_none(self) -> NDArray[np.int8]:
        """[V + 1] kind of every id, −1 behind the last."""
        return np.append(self.vocabulary.kind_of, -1).astype(np.int8)

    def _strikes(self, tokens: NDArray[np.int64], kinds: NDArray[np.int8]) -> NDArray[np.bool_] | None:
        """[T + 10] whether a token strikes a note, where that decides about velocity tokens."""
        if self.grammar.strikes is None:
            return None
        strikes = np.zeros(kinds.size, bool)
        known = np.flatnonzero(kinds >= 0)
        strikes[known] = self.grammar.strikes[tokens[known]]
        return strikes

    def _cell_lengths(
        self, kinds: NDArray[np.int8], strikes: NDArray[np.bool_] | None, pitch_at: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Tokens after each pitch that complete its cell by the grammar's table; 0 where it breaks off."""
        length = np.zeros(pitch_at.size, np.int64)
        open_cells = np.arange(pitch_at.size)
        phase = np.full(pitch_at.size, _CODES, np.int8)
        struck = np.zeros(pitch_at.size, bool)
        for step in range(1, 10):
            at = pitch_at[open_cells] + step
            phase = self._table_or_illegal[phase, kinds[at]]
            if strikes is not None:
                struck[open_cells] |= strikes[at]
                phase[(phase == _WANTS_VELOCITY) & ~struck[open_cells]] = _BEAT
            length[open_cells[phase == _BEAT]] = step
            going = phase >= _CODES
            open_cells, phase = open_cells[going], phase[going]
            if not open_cells.size:
                break
        return length

    @cached_property
    def _table_or_illegal(self) -> NDArray[np.int8]:
        """The grammar's table with a last column for what is no id: nowhere legal."""
        return np.pad(self.grammar.table, ((0, 0), (0, 1)), constant_values=ILLEGAL)

    def _codes(
        self, tokens: NDArray[np.int64], kinds: NDArray[np.int8], pitch_at: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """[C, 8] code ids of whole cells, each at the eighth where its part begins, −1 elsewhere."""
        code_ids = np.full((pitch_at.size, 8), -1, np.int64)
        rows, eighth = np.arange(pitch_at.size), np.zeros(pitch_at.size, np.int64)
        for step in range(1, 9):
            at = pitch_at[rows] + step
            code_ids[rows, eighth] = tokens[at]
            eighth = eighth + _EIGHTHS[kinds[at]]
            going = eighth < 8
            rows, eighth = rows[going], eighth[going]
            if not rows.size:
                break
        return code_ids

    def _cells(self, tokens: NDArray[np.int64], found: _Found, n_beats: int) -> Cells:
        """Cells from their codes, and the velocity where they carry one."""
        sustain, onset = self.codebook.decode(found.code_ids)
        if found.struck is not None:
            onset = np.where(found.struck, onset | (sustain & np.uint64(1)), onset)
        count = np.bitwise_count(segment_starts(sustain, onset)).astype(np.int64)
        velocity = np.full(int(count.sum()), DEFAULT_VELOCITY, np.uint8)
        voiced = self._voiced(found.code_ids)
        if self.codec is not None:
            codes = tokens[found.last[voiced]] - self._offset[_VELOCITY]
            # ids beyond the codec's own codes exist when the vocabulary has room for more
            velocity[np.repeat(voiced, count)] = self.codec.decode(
                np.minimum(codes, self.codec.codebook_size - 1), sustain[voiced], onset[voiced]
            )
            if not voiced.all():
                _carry_over(velocity, count, voiced, found.pitch)
        beat, pitch = found.beat.astype(np.int32), found.pitch.astype(np.uint8)
        return Cells(beat, pitch, sustain, onset, velocity, n_beats)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes the tokenizer: `tokenizer.json`, `codebook.npz` and, in velocity mode, `velocity/`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.codebook.save(directory / _CODEBOOK)
        if self.codec is not None:
            self.codec.save(directory / _CODEC)
        version = max((version for version in ADDED_OPTIONS if self._differs(version)), default=1)
        options = {name: getattr(self, name) for name in _options_up_to(version)}
        settings = {
            "format_version": version,  # what an older reader can read, it may
            "mode": self.mode,
            "exact": self.exact,
            "tolerance": self.tolerance,
            **options,
            "tempo": self.tempo.scheme,
            "vocabulary": self.vocabulary.to_dict(),
            "hashes": self.hashes,
        }
        (directory / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")

    def _differs(self, version: int) -> bool:
        """Whether an option that a format added is not as it was before."""
        return any(getattr(self, name) != value for name, value in ADDED_OPTIONS[version].items())

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> PianoTokenizer:
        """Reads a tokenizer directory, or a directory with one called `tokenizer` inside.

        Raises:
            UserError: A file is missing, of a newer format, or not the one that was saved.
        """
        directory = tokenizer_directory(directory)
        settings = read_settings(directory)
        vocabulary = Vocabulary.from_dict(settings["vocabulary"])
        tokenizer = cls(
            codebook=Codebook.load(directory / _CODEBOOK, vocabulary),
            tempo=TempoBins(settings["tempo"], vocabulary.tempo),
            codec=VelocityCodec.from_directory(directory / _CODEC)
            if settings["mode"] == "velocity"
            else None,
            exact=settings["exact"],
            tolerance=settings["tolerance"],
            **{name: settings.get(name, value) for name, value in _options_up_to(FORMAT_VERSION).items()},
        )
        changed = [name for name, value in tokenizer.hashes.items() if value != settings["hashes"].get(name)]
        if changed:
            raise UserError(
                f"{directory}: {', '.join(changed)} found with other contents than {_SETTINGS} recorded when the "
                "tokenizer was saved; take the directory as it was published"
            )
        return tokenizer


def _options_up_to(version: int) -> dict[str, Any]:
    """The options that a format has beside those of the first, as they are where a file does not say them."""
    return {name: value for added in range(2, version + 1) for name, value in ADDED_OPTIONS[added].items()}


OPTIONS = _options_up_to(FORMAT_VERSION)
"""What changes the ids of a tokenizer beside its parts, as it is where nothing is said."""


def _refuse_unknown(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raises UserError where an option has a value that is none of those known."""
    if value not in known:
        raise UserError(f"tokenizer.{option}={value!r} found, expected one of {', '.join(known)}")


def _refuse_misfits(
    vocabulary: Vocabulary, tempo: TempoBins, codec: VelocityCodec | None, bars: bool, held: str
) -> None:
    """Raises UserError where the parts of a tokenizer do not fit its vocabulary."""
    if tempo.bins != vocabulary.tempo:
        raise UserError(
            f"tokenizer: {tempo.bins} tempo bins, but the vocabulary has {vocabulary.tempo} tempo ids"
        )
    if codec is not None and codec.codebook_size > vocabulary.velocity:
        raise UserError(
            f"tokenizer: the velocity codec has {codec.codebook_size} codes, the vocabulary "
            f"{vocabulary.velocity} velocity ids; set tokenizer.vocabulary.velocity={codec.codebook_size} "
            "or train the codec with fewer (velvq.codebook_size)"
        )
    takers = {"bars=true": Kind.BAR} if bars else {}
    takers |= {"held=ages": Kind.AGE} if held == "ages" else {}
    for option, kind in takers.items():
        if vocabulary.count(kind) < ALLOTMENT[kind]:
            needed = sum(list(ALLOTMENT.values())[: list(ALLOTMENT).index(kind) + 1])
            raise UserError(
                f"tokenizer.{option}: tokenizer.vocabulary.reserved={vocabulary.reserved} found, expected at least "
                f"{needed}, of which {ALLOTMENT[kind]} are for that"
            )


def _carry_over(
    velocity: NDArray[np.uint8],
    count: NDArray[np.int64],
    voiced: NDArray[np.bool_],
    pitch: NDArray[np.int64],
) -> None:
    """Gives the segments [S] of cells [C] without a velocity the last one that their pitch had before, if any.

    Args:
        velocity: Changed in place.
        count: Segments of each cell.
        voiced: Cells that have velocities.
        pitch: Of each cell, the cells in order of beats.
    """
    by_pitch = np.argsort(pitch, kind="stable")
    spoke = np.where(voiced[by_pitch], np.arange(pitch.size), -1)
    before = by_pitch[np.maximum.accumulate(spoke)]  # where none spoke before, some cell of another pitch
    known = (np.maximum.accumulate(spoke) >= 0) & (pitch[before] == pitch[by_pitch]) & ~voiced[by_pitch]
    last_segment = np.cumsum(count) - 1
    found = np.full(pitch.size, DEFAULT_VELOCITY, np.uint8)
    found[by_pitch[known]] = velocity[last_segment[before[known]]]
    mute = np.repeat(~voiced, count)
    velocity[mute] = np.repeat(found, count)[mute]


def tokenizer_directory(directory: str | Path) -> Path:
    """The directory itself, or the one called `tokenizer` in it."""
    directory = Path(directory)
    for candidate in (directory, directory / "tokenizer"):
        if (candidate / _SETTINGS).is_file():
            return candidate
    raise UserError(
        f"{directory}: no {_SETTINGS} found there or in its folder `tokenizer`; expected a saved tokenizer"
    )


def read_settings(directory: Path) -> dict[str, Any]:
    """`tokenizer.json` of a tokenizer directory.

    Raises:
        UserError: It is not readable, lacks a key, or is of a newer format.
    """
    path = directory / _SETTINGS
    try:
        settings: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not readable as JSON ({error}); expected a saved tokenizer's settings"
        ) from error
    needed = {"format_version", "mode", "exact", "tolerance", "tempo", "vocabulary", "hashes"}
    missing = sorted(needed - set(settings))
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; save the tokenizer again with save_pretrained")
    if settings["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{path}: format {settings['format_version']}, this pianolm reads up to {FORMAT_VERSION}; update pianolm"
        )
    return settings
