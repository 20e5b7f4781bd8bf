"""Fill sequences: some beats of a piece come last, behind the music on both sides, so that a model can fill them in.

    prefix <gap> (lowest highest)? gap <suffix> suffix <middle> middle [EOS]

prefix: the beats before the gap, with BOS and tuning where the sequence has them.
gap: of each beat left out its tempo and bar, so that the model knows the grid and how many beats there are. Where only
    a register is written anew, two pitches behind the mark bound it, and the cells outside it stand in the gap, too.
suffix: the beats after the gap, with EOS where the piece ends.
middle: the tokens of the gap's beats as they stand in the piece, so that it goes on where the prefix ends; cells
    outside the register come again, in their place.

The tokens of a piece are reordered, hardly changed: a model that continues music knows all of them. Two parts change
where ties are explicit: suffix and gap begin without ties. What is held over into their first beat is an ordinary cell
there, whose codes begin held, and durations of ties that reach back to before the part count from its beginning.
Otherwise the durations would tell when a note of the gap was struck. Implicit ties do not name their pitch, so they
cannot be reordered.

Shapes: T tokens, M tokens of a middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.beats import FRAMES
from pianolm.music.gap import Gap
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.ties import MAX_TIE_FRAMES, duration_bins
from pianolm.tokenizer.vocabulary import CODE_KINDS, Kind, Vocabulary

Ids = NDArray[np.int64]
_IS_CODE = np.isin(np.arange(len(Kind)), CODE_KINDS)


@dataclass(frozen=True, eq=False)
class FillParts:
    """A piece, or some of its beats, divided at a gap.

    Attributes:
        prefix: Tokens before the gap.
        gap: Tokens behind the mark of the gap: bounds of a register, and beats.
        suffix: Tokens after it.
        middle: [M] tokens of the gap's beats, without EOS.
        kept: [M] bool, tokens of cells outside the register, which stay.
    """

    prefix: Ids
    gap: Ids
    suffix: Ids
    middle: Ids
    kept: NDArray[np.bool_]


class FillSequence(NamedTuple):
    """A fill sequence.

    Attributes:
        ids: int64 [T], ending with EOS.
        scored: bool [T], tokens that a model is to learn: not marks, the gap, the first beat of the suffix, whose held
            notes come out of the gap, nor what a middle takes from the gap: its first tempo, bars and cells that stay.
        middle: Position of the first token of the middle.
    """

    ids: Ids
    scored: NDArray[np.bool_]
    middle: int


def check_fill(vocabulary: Vocabulary, ties: str, exact: bool) -> None:
    """Raises UserError where a tokenizer's layout has no fill sequences."""
    found = ""
    if ties == "implicit":
        found = "tokenizer.ties=implicit found, expected repeat or explicit: implicit ties do not name their pitch"
    elif not exact:
        found = "tokenizer.exact=false found, expected true: the three-level layout has no ids for marks"
    elif not vocabulary.count(Kind.MIDDLE):
        reserved = f"tokenizer.vocabulary.reserved={vocabulary.reserved}"
        found = f"{reserved} found, expected the default: no ids are left for marks"
    if found:
        raise UserError(f"{found}, so no gap can be filled with this tokenizer")


class FillWriter:
    """Reorders plain sequences.

    Args:
        grammar: Of the plain sequences, whose layout `check_fill` accepts.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._grammar, self._vocabulary = grammar, grammar.vocabulary
        self._first_pitch = grammar.vocabulary.offset(Kind.PITCH)
        self._explicit = grammar.ties == "explicit"

    def parts(self, ids: Ids, gap: Gap) -> FillParts:
        """Divides a sequence.

        Args:
            ids: [T] whole beats, with or without BOS, tuning and EOS. Ties may refer to notes before the first beat.
            gap: At least one of these beats, counted from the first.
        """
        kinds = self._vocabulary.kind_of[ids]
        tempo_at = np.flatnonzero(kinds == Kind.TEMPO)
        assert 0 <= gap.first < gap.stop <= tempo_at.size, "a gap has beats of the sequence"
        end = ids.size - (ids[-1] == self._vocabulary.eos)
        begin, stop = (int(np.append(tempo_at, end)[beat]) for beat in (gap.first, gap.stop))
        middle = ids[begin:stop]
        if gap.first == 0 and ids[0] != self._vocabulary.bos:
            middle = self._restarted(middle)
        pitch = self._pitches(middle)
        kept = (pitch >= 0) & ((pitch < gap.lowest) | (pitch > gap.highest))
        is_grid = np.isin(self._vocabulary.kind_of[middle], (Kind.TEMPO, Kind.BAR))
        told = self._restarted(middle[is_grid | kept])
        if gap.has_register:
            told = np.concatenate([[self._first_pitch + gap.lowest, self._first_pitch + gap.highest], told])
        return FillParts(ids[:begin], told, self._restarted(ids[stop:]), middle, kept)

    def sequence(self, parts: FillParts) -> FillSequence:
        """The fill sequence of a divided piece."""
        v = self._vocabulary
        marks = [np.array([v.offset(kind)]) for kind in (Kind.GAP, Kind.SUFFIX, Kind.MIDDLE)]
        ids = np.concatenate(
            [parts.prefix, marks[0], parts.gap, marks[1], parts.suffix, marks[2], parts.middle, [v.eos]]
        )
        scored = np.ones(ids.size, bool)
        first, suffix = parts.prefix.size, parts.prefix.size + parts.gap.size + 2
        middle = suffix + parts.suffix.size + 1
        scored[first:suffix] = scored[middle - 1] = False
        tempo_at = np.flatnonzero(v.kind_of[parts.suffix] == Kind.TEMPO)
        if tempo_at.size:
            scored[suffix : suffix + (tempo_at[1] if tempo_at.size > 1 else parts.suffix.size)] = False
        scored[middle:-1] = ~parts.kept & (v.kind_of[parts.middle] != Kind.BAR)
        scored[middle] = False
        return FillSequence(ids, scored, middle)

    def _pitches(self, ids: Ids) -> NDArray[np.int64]:
        """[T] the pitch of the cell of each token, −1 for tempi and bars."""
        kinds = self._vocabulary.kind_of[ids]
        is_pitch = kinds == Kind.PITCH
        after = np.append(is_pitch[1:], False)
        begins = is_pitch | np.isin(kinds, (Kind.TEMPO, Kind.BAR))
        at = np.maximum.accumulate(np.where(begins, np.arange(ids.size), 0))
        at = np.where((kinds == Kind.DURATION) & after, np.arange(ids.size) + 1, at)
        return np.where(is_pitch[at], ids[at] - self._first_pitch, -1)

    def _restarted(self, ids: Ids) -> Ids:
        """The tokens of some beats, with or without EOS, as they are where the first beat has no ties."""
        if not self._explicit or not ids.size:
            return ids
        kinds = self._vocabulary.kind_of[ids]
        tempo_at = np.flatnonzero(kinds == Kind.TEMPO)
        if not tempo_at.size:
            return ids
        second = int(tempo_at[1]) if tempo_at.size > 1 else ids.size - (ids[-1] == self._vocabulary.eos)
        head = 1 + int((kinds[1:2] == Kind.BAR).sum())
        cells = [(cell[1:] if tied else cell, tied) for cell, tied in self._cells(ids[head:second])]
        cells = [(cell, tied) for cell, tied in cells if not self._grammar.silent[self._codes(cell)].all()]
        cells.sort(key=lambda cell: int(cell[0][0]))
        held = {int(cell[0]) for cell, tied in cells if tied and self._goes_on(cell)}
        rest = ids[second:].copy()
        self._count_from_start(rest, held)
        return np.concatenate([ids[:head], *(cell for cell, _ in cells), rest])

    def _count_from_start(self, ids: Ids, held: set[int]) -> None:
        """Corrects, in place, durations of the pitch tokens `held`, which sound since the beat before these ones."""
        beat, first = 0, self._vocabulary.offset(Kind.DURATION)
        kinds = self._vocabulary.kind_of[ids]
        for at in np.flatnonzero(np.isin(kinds, (Kind.TEMPO, Kind.DURATION))).tolist():
            if kinds[at] == Kind.TEMPO:
                beat += 1
                if not held:
                    return
                continue
            pitch = int(ids[at + 1])
            if pitch not in held:
                continue
            frames = np.array([min(FRAMES * beat, MAX_TIE_FRAMES)])
            ids[at] = first + duration_bins(frames)[0]
            is_code = _IS_CODE[kinds[at + 2 : at + 10]]
            length = int(np.append(is_code, False).argmin())
            if not self._goes_on(ids[at + 1 : at + 2 + length]):
                held.discard(pitch)

    def _cells(self, ids: Ids) -> Iterator[tuple[Ids, bool]]:
        """The tokens of each cell of a beat, and whether it is a tied one, which begins with a duration."""
        kinds = self._vocabulary.kind_of[ids]
        is_duration = kinds == Kind.DURATION
        starts = np.flatnonzero(is_duration | ((kinds == Kind.PITCH) & ~np.append(False, is_duration[:-1])))
        for start, stop in pairwise([*starts.tolist(), ids.size]):
            yield ids[start:stop], bool(is_duration[start])

    def _codes(self, cell: Ids) -> Ids:
        return cell[_IS_CODE[self._vocabulary.kind_of[cell]]]

    def _goes_on(self, cell: Ids) -> bool:
        """Whether a cell that begins held strikes nothing and sounds to its end."""
        codes, of_codes = self._codes(cell), self._grammar.tie_codes
        assert of_codes is not None, "explicit ties"
        return not of_codes.strikes[codes].any() and bool(of_codes.sounds_to_end[codes[-1]])


def first_beats(vocabulary: Vocabulary, suffix: Ids, most: int) -> Ids:
    """A suffix, or as many of its first beats as have at most so many tokens."""
    if suffix.size <= most:
        return suffix
    tempo_at = np.flatnonzero(vocabulary.kind_of[suffix] == Kind.TEMPO)
    return suffix[: tempo_at[tempo_at <= max(most, 0)].max(initial=0)]


def last_beats(vocabulary: Vocabulary, prefix: Ids, most: int) -> Ids:
    """A prefix, or its tuning and as many of its last beats as have at most so many tokens with it."""
    if prefix.size <= most:
        return prefix
    tempo_at = np.flatnonzero(vocabulary.kind_of[prefix] == Kind.TEMPO)
    tuning = vocabulary.tuning_id(prefix)
    starts = tempo_at[prefix.size - tempo_at + len(tuning) <= most]
    return np.array([*tuning, *prefix[starts.min(initial=prefix.size) :]], np.int64)


def find_parts(vocabulary: Vocabulary, ids: Ids) -> tuple[Ids, Ids, Ids, Ids] | None:
    """Prefix, gap, suffix and middle of any ids [T]; None where the marks do not come in order."""
    kinds, at = vocabulary.kind_of[np.where((ids >= 0) & (ids < vocabulary.size), ids, vocabulary.pad)], [-1]
    for kind in (Kind.GAP, Kind.SUFFIX, Kind.MIDDLE):
        found = np.flatnonzero(kinds[at[-1] + 1 :] == kind)
        if not found.size:
            return None
        at.append(at[-1] + 1 + int(found[0]))
    _, gap, suffix, middle = at
    return ids[:gap], ids[gap + 1 : suffix], ids[suffix + 1 : middle], ids[middle + 1 :]
