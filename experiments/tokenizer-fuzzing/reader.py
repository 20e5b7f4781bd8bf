"""A second reader of token sequences, token by token in plain Python, which shows what `decode` should keep."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pianolm import PianoTokenizer
from pianolm.music.cells import FRAMES
from pianolm.tokenizer.grammar_table import ILLEGAL, Phase
from pianolm.tokenizer.ties import duration_bins
from pianolm.tokenizer.vocabulary import EIGHTHS_OF_KIND, Kind

_END_OF_BEAT = 1 << (FRAMES - 1)
# plain ints for the loops over tokens: looking a member up in an enum costs more than the rest of a step
_TEMPO, _BAR, _PITCH, _EOS, _PAD = (int(k) for k in (Kind.TEMPO, Kind.BAR, Kind.PITCH, Kind.EOS, Kind.PAD))
_BEAT, _DURATION = int(Phase.BEAT), int(Kind.DURATION)
_EIGHTHS = {int(kind): eighths for kind, eighths in EIGHTHS_OF_KIND.items()}


class Reading(NamedTuple):
    """What `decode` should keep of a sequence.

    Attributes:
        kept: Ids that are used, in order; missing ties are silent ones.
        beats: Number of beats.
        cells: (beat, pitch, sustain, onset) of each cell, as `Piece.cells` should have them.
        bars: Beats that start a bar.
        skipped: Number of ids that are not kept, plus missing ties.
    """

    kept: list[int]
    beats: int
    cells: list[tuple[int, int, int, int]]
    bars: list[int]
    skipped: int


class ReadCell(NamedTuple):
    """A cell as read from its first code on: where it ends, whether it is complete, and its masks."""

    stop: int
    complete: bool
    sustain: int
    onset: int


class Reader:
    """Reads sequences of one tokenizer."""

    def __init__(self, tokenizer: PianoTokenizer) -> None:
        grammar, self.vocabulary = tokenizer.grammar, tokenizer.vocabulary
        self.bars, self.ties, self.tuned = tokenizer.bars, grammar.ties, tokenizer.tempo.tuned
        self.needs_strike = grammar.strikes is not None
        self.table, self.kind_of = grammar.table.tolist(), grammar.kind_of.astype(np.int64)
        self.sustain, self.onset = (masks.tolist() for masks in tokenizer.codebook.id_patterns)
        self.has_controls = grammar.controls
        self.first_pitch = self.vocabulary.offset(Kind.PITCH)
        self.first_duration = self.vocabulary.offset(Kind.DURATION)
        self.unshifted = self.vocabulary.offset(Kind.TUNING)
        self.downbeat = self.vocabulary.offset(Kind.BAR)
        silent = np.flatnonzero(grammar.silent)
        self.silent_codes = 2 * silent[grammar.kind_of[silent] == Kind.L2].tolist()

    def read(self, ids: np.ndarray) -> Reading:
        """Reads a sequence [T]."""
        return _Pass(self, np.array(self._without_controls(ids.tolist()), np.int64)).run()

    def _without_controls(self, tokens: list[int]) -> list[int]:
        """Leaves out loudness and density where they stand, in this order, right before a tempo."""
        if not self.has_controls:
            return tokens
        kept, follows = [], -1
        for token in reversed(tokens):
            kind = int(self.kind_of[token]) if 0 <= token < self.vocabulary.size else -1
            if kind in (Kind.LOUDNESS, Kind.DENSITY) and follows in (_TEMPO, kind + 1):
                follows = kind if kind == Kind.DENSITY else -1
                continue
            kept.append(token)
            follows = kind if kind == _TEMPO else -1
        return kept[::-1]


class _Pass:
    """One pass over a sequence."""

    def __init__(self, reader: Reader, ids: np.ndarray) -> None:
        self.reader, self.tokens = reader, ids.tolist()
        inside = (ids >= 0) & (ids < reader.vocabulary.size)
        self.kinds = np.where(inside, reader.kind_of[np.where(inside, ids, 0)], -1).tolist()
        self.kept = self.tokens[:1] if self.kinds[:1] == [Kind.BOS] else []
        self.cells: list[tuple[int, int, int, int]] = []
        self.bars: list[int] = []
        self.beats, self.last_pitch = 0, -1
        self.needs_tuning = reader.tuned
        self.sounds_to_end: dict[int, int] = {}  # pitch → the beat at whose end it sounds
        self.struck: dict[int, int] = {}  # pitch → the frame of the piece in which it was last struck
        self.pending: list[int] = []  # pitches whose ties are to come in this beat
        self.tied: set[int] = set()  # pitches whose ties sound in this beat
        self.added = self.missing = 0  # tokens in `kept` that the sequence lacks; ties that are missing

    def run(self) -> Reading:
        at = 0
        while at < len(self.tokens) and self.kinds[at] != _EOS:
            at = self._step(at)
        self._end_ties(len(self.pending))
        if at < len(self.tokens):
            self._end(at)
        skipped = len(self.tokens) + self.added - len(self.kept) + self.missing
        return Reading(self.kept, self.beats, sorted(self.cells), self.bars, skipped)

    def _step(self, at: int) -> int:
        """Reads a tempo, a tie or a cell, or skips a token; returns the next position."""
        kind = self.kinds[at]
        if kind == Kind.TUNING and self.needs_tuning:
            self.needs_tuning = False
            self.kept.append(self.tokens[at])
            return at + 1
        timed = self.reader.ties == "explicit" and kind == _DURATION
        pitch = self._pitch(at + timed)
        in_tie = self.reader.ties == "explicit" and pitch in self.pending
        new_cell = kind == _PITCH and not in_tie and self.beats > 0
        if in_tie:
            self._end_ties(self.pending.index(pitch))
        elif kind == _TEMPO or new_cell:
            self._end_ties(len(self.pending))
        if kind == _TEMPO:
            return self._tempo(at)
        if new_cell:
            return self._new_cell(at, pitch)
        if in_tie or (self.pending and self.reader.ties == "implicit" and kind in _EIGHTHS):
            return self._tie(at, timed)
        return (
            at + 1 + (timed and pitch >= 0)
        )  # a duration bin without a pending tie is skipped with its pitch

    def _pitch(self, at: int) -> int:
        """The pitch of the token at a position, −1 for other kinds."""
        return self.tokens[at] - self.reader.first_pitch if self.kinds[at : at + 1] == [_PITCH] else -1

    def _tempo(self, at: int) -> int:
        if self.needs_tuning and self.kept:  # only BOS: what follows it lacks its tuning
            self.kept.append(self.reader.unshifted)
            self.added, self.missing = self.added + 1, self.missing + 1
        self.needs_tuning = False
        self.kept.append(self.tokens[at])
        self.beats, self.last_pitch, self.tied = self.beats + 1, -1, set()
        if self.reader.ties != "repeat":
            self.pending = sorted(p for p, beat in self.sounds_to_end.items() if beat == self.beats - 1)
        if not self.reader.bars or self.kinds[at + 1 : at + 2] != [_BAR]:
            return at + 1
        self.kept.append(self.tokens[at + 1])
        if self.tokens[at + 1] == self.reader.downbeat:
            self.bars.append(self.beats - 1)
        return at + 2

    def _new_cell(self, at: int, pitch: int) -> int:
        cell = self._cell(at + 1)
        if cell.complete and cell.sustain and pitch > self.last_pitch and pitch not in self.tied:
            self.kept += self.tokens[at : cell.stop]
            self.last_pitch = pitch
            held = self.reader.ties == "repeat" and self.sounds_to_end.get(pitch) == self.beats - 1
            self._sound(pitch, cell, held)
        return cell.stop

    def _tie(self, at: int, timed: bool) -> int:
        pitch = self.pending.pop(0)
        named = self.kinds[at + timed] == _PITCH
        self.missing += self.reader.ties == "explicit" and not timed
        cell = self._cell(at + timed + named)
        if not cell.complete:
            self._end_tie(pitch)
            return cell.stop
        head = self._duration(pitch)
        self.kept += head + self.tokens[at + timed : cell.stop]
        self.added += len(head) - (self.tokens[at : at + 1] == head)
        if cell.sustain:
            self.tied.add(pitch)
            self._sound(pitch, cell, held=self.sounds_to_end.get(pitch) == self.beats - 1)
        return cell.stop

    def _sound(self, pitch: int, cell: ReadCell, held: bool) -> None:
        """Adds a cell that sounds. A sustain that follows silence is a strike, unless the note is held."""
        strikes = cell.onset | cell.sustain & ~(cell.sustain << 1 | held)
        self.cells.append((self.beats - 1, pitch, cell.sustain, strikes))
        if strikes:
            self.struck[pitch] = (self.beats - 1) * FRAMES + strikes.bit_length() - 1
        if cell.sustain & _END_OF_BEAT:
            self.sounds_to_end[pitch] = self.beats

    def _end_ties(self, count: int) -> None:
        """The first pending ties are missing: their notes end on the beat line."""
        late, self.pending = self.pending[:count], self.pending[count:]
        for pitch in late:
            self._end_tie(pitch)
        self.missing += len(late)

    def _end_tie(self, pitch: int) -> None:
        """Adds a silent tie."""
        explicit = [*self._duration(pitch), self.reader.first_pitch + pitch]
        silent = [*(explicit if self.reader.ties == "explicit" else []), *self.reader.silent_codes]
        self.kept += silent
        self.added += len(silent)

    def _duration(self, pitch: int) -> list[int]:
        """The duration bin of a pending tie, none with implicit ties."""
        if self.reader.ties != "explicit":
            return []
        frames = np.array([(self.beats - 1) * FRAMES - self.struck[pitch]])
        return [self.reader.first_duration + int(duration_bins(frames)[0])]

    def _cell(self, at: int) -> ReadCell:
        """Reads a cell from its first code."""
        phase, filled, sustain, onset = self.reader.table[_BEAT][_PITCH], 0, 0, 0
        while phase != _BEAT and at < len(self.tokens) and self.kinds[at] >= 0:
            after = self.reader.table[phase][self.kinds[at]]
            if after == ILLEGAL:
                break
            sustain |= self.reader.sustain[self.tokens[at]] << 6 * filled
            onset |= self.reader.onset[self.tokens[at]] << 6 * filled
            filled += _EIGHTHS.get(self.kinds[at], 0)
            phase, at = after, at + 1
            if phase == Phase.VELOCITY and self.reader.needs_strike and not onset:
                phase = _BEAT
        return ReadCell(at, phase == _BEAT, sustain, onset)

    def _end(self, at: int) -> None:
        """Keeps EOS where the grammar allows it, and PAD after it."""
        phase = _BEAT if self.beats else Phase.OPENED if self.kept else Phase.START
        if self.reader.table[phase][_EOS] != ILLEGAL:
            self.kept.append(self.tokens[at])
        rest = zip(self.tokens[at + 1 :], self.kinds[at + 1 :], strict=True)
        self.kept += [token for token, kind in rest if kind == _PAD]
