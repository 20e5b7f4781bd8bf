"""Fill sequences: what comes after a gap of a piece stands first, so that a model fills the gap as it continues music.

    [BOS] tuning? <gap> (lowest highest)? gap <suffix> suffix <prefix> prefix <middle> middle [EOS]

BOS and tuning: where the sequence has them.
gap: of each beat left out its tempo and bar, so that the model knows the grid and how many beats there are. Where only
    a register is written anew, two pitches behind the mark bound it, and the cells outside it stand in the gap, too.
suffix: the beats after the gap, with EOS where the piece ends.
prefix: the beats before the gap.
middle: the tokens of the gap's beats as they stand in the piece, so that it goes on where the prefix ends; cells
    outside the register come again, in their place.

So prefix and middle stand together as they do in the piece, and the suffix is what a model is told before. (This order
is known as suffix-prefix-middle: Bavarian et al. 2022, Efficient Training of Language Models to Fill in the Middle.)

The tokens of a piece are reordered, hardly changed: a model that continues music knows all of them. Parts change
where ties are explicit: suffix and gap begin without ties, and so do prefix and middle, as one part, where the
beginning of the piece is not there. What is held over into the first beat is an ordinary cell there, whose codes begin
held, and durations of ties that reach back to before the part count from its beginning. Otherwise those of a suffix
would tell when a note of the gap was struck. Implicit ties do not name their pitch, so they cannot be reordered.

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
from pianolm.tokenizer.vocabulary import CODE_KINDS, FILL_MARKS, Kind, Vocabulary

Ids = NDArray[np.int64]
_IS_CODE = np.isin(np.arange(len(Kind)), CODE_KINDS)


@dataclass(frozen=True, eq=False)
class FillParts:
    """A piece, or some of its beats, divided at a gap.

    Attributes:
        opening: BOS and tuning, as far as they are there.
        gap: Tokens behind the mark of the gap: bounds of a register, and beats.
        suffix: Tokens after the gap.
        prefix: Tokens before it.
        middle: [M] tokens of the gap's beats, without EOS.
        kept: [M] bool, tokens of cells outside the register, which stay.
    """

    opening: Ids
    gap: Ids
    suffix: Ids
    prefix: Ids
    middle: Ids
    kept: NDArray[np.bool_]


class FillSequence(NamedTuple):
    """A fill sequence.

    Attributes:
        ids: int64 [T], ending with EOS.
        scored: bool [T], tokens that a model is to learn: not marks and the tokens behind them, the gap, the first beat
            of the suffix, whose held notes come out of the gap, that of a prefix that is not the beginning of a piece,
            nor what a middle takes from the gap: its bars and cells that stay.
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
    elif not all(vocabulary.count(kind) for kind in FILL_MARKS):
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
            ids: [T] whole beats, with or without BOS, tuning and EOS. Ties may refer to notes before the first beat
                where there is no BOS.
            gap: At least one of these beats, counted from the first.
        """
        kinds = self._vocabulary.kind_of[ids]
        tempo_at = np.flatnonzero(kinds == Kind.TEMPO)
        assert 0 <= gap.first < gap.stop <= tempo_at.size, "a gap has beats of the sequence"
        end = ids.size - (ids[-1] == self._vocabulary.eos)
        stop = int(np.append(tempo_at, end)[gap.stop])
        opening, past = ids[: tempo_at[0]], ids[tempo_at[0] : stop]
        if ids[0] != self._vocabulary.bos:
            past = self.restarted(past)
        begin = np.flatnonzero(self._vocabulary.kind_of[past] == Kind.TEMPO)[gap.first]
        prefix, middle = past[:begin], past[begin:]
        pitch = self._pitches(middle)
        kept = (pitch >= 0) & ((pitch < gap.lowest) | (pitch > gap.highest))
        is_grid = np.isin(self._vocabulary.kind_of[middle], (Kind.TEMPO, Kind.BAR))
        told = self.restarted(middle[is_grid | kept])
        if gap.has_register:
            told = np.concatenate([[self._first_pitch + gap.lowest, self._first_pitch + gap.highest], told])
        return FillParts(opening, told, self.restarted(ids[stop:]), prefix, middle, kept)

    def sequence(self, parts: FillParts) -> FillSequence:
        """The fill sequence of a divided piece."""
        v = self._vocabulary
        learned = [
            np.zeros(parts.gap.size, bool),
            ~self._in_first_beat(parts.suffix),
            np.ones(parts.prefix.size, bool)
            if v.bos in parts.opening
            else ~self._in_first_beat(parts.prefix),
            ~parts.kept & (v.kind_of[parts.middle] != Kind.BAR),
        ]
        ids, scored = [parts.opening], [np.ones(parts.opening.size, bool)]
        of_marks = (parts.gap, parts.suffix, parts.prefix, parts.middle)
        for kind, part, of_part in zip(FILL_MARKS, of_marks, learned, strict=True):
            of_part[:1] = False
            ids += [np.array([v.offset(kind)]), part]
            scored += [np.zeros(1, bool), of_part]
        return FillSequence(
            np.concatenate([*ids, [v.eos]]),
            np.concatenate([*scored, [True]]),
            sum(part.size for part in ids[:-1]),
        )

    def _in_first_beat(self, ids: Ids) -> NDArray[np.bool_]:
        """[T] whether tokens of whole beats belong to the first of them."""
        return np.cumsum(self._vocabulary.kind_of[ids] == Kind.TEMPO) < 2

    def _pitches(self, ids: Ids) -> NDArray[np.int64]:
        """[T] the pitch of the cell of each token, −1 for tempi and bars."""
        kinds = self._vocabulary.kind_of[ids]
        is_pitch = kinds == Kind.PITCH
        after = np.append(is_pitch[1:], False)
        begins = is_pitch | np.isin(kinds, (Kind.TEMPO, Kind.BAR))
        at = np.maximum.accumulate(np.where(begins, np.arange(ids.size), 0))
        at = np.where((kinds == Kind.DURATION) & after, np.arange(ids.size) + 1, at)
        return np.where(is_pitch[at], ids[at] - self._first_pitch, -1)

    def restarted(self, ids: Ids) -> Ids:
        """The tokens of some beats, with or without EOS, as they are where the first beat has no ties.

        The last beat may be incomplete, if there are others.
        """
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
        for at in np.flatnonzero(np.isin(kinds[:-1], (Kind.TEMPO, Kind.DURATION))).tolist():
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
        return not of_codes.strikes[codes].any() and bool(of_codes.sounds_to_end[codes[-1:]].any())


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


def find_parts(vocabulary: Vocabulary, ids: Ids) -> tuple[Ids, Ids, Ids, Ids, Ids] | None:
    """Opening, gap, suffix, prefix and middle of any ids [T]; None where the marks do not come in order."""
    kinds, at = vocabulary.kind_of[np.where((ids >= 0) & (ids < vocabulary.size), ids, vocabulary.pad)], [-1]
    for kind in FILL_MARKS:
        found = np.flatnonzero(kinds[at[-1] + 1 :] == kind)
        if not found.size:
            return None
        at.append(at[-1] + 1 + int(found[0]))
    _, gap, suffix, prefix, middle = at
    return (
        ids[:gap],
        ids[gap + 1 : suffix],
        ids[suffix + 1 : prefix],
        ids[prefix + 1 : middle],
        ids[middle + 1 :],
    )
