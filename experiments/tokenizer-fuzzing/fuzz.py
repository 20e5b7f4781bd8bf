"""Fuzzing of `PianoTokenizer.decode`: random and corrupted sequences, and everything that must hold of the result.

    python fuzz.py --random 1000000 --corrupted 1000000 --out DIRECTORY

`read` says, token by token in plain Python, what `decode` should keep; `well_formed` holds many sequences against the
grammar's table at once. Shapes: N sequences, L tokens of the longest, T tokens of one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from report import headlines, tables

from experiments.results import Row, publish
from pianolm import PianoTokenizer, Piece
from pianolm.data.sources.demo import is_score
from pianolm.data.sources.demo.composer import compose
from pianolm.data.sources.folder import midi_files
from pianolm.errors import UserError
from pianolm.music.beats import BeatAnnotation
from pianolm.music.cells import FRAMES
from pianolm.music.notes import make_notes
from pianolm.tokenizer.codebook import Patterns
from pianolm.tokenizer.codebook_fit import complete, fit_codebook
from pianolm.tokenizer.grammar import BETWEEN_CELLS, ILLEGAL, N_PHASES, WITH_TIES, Grammar, Phase
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.ties import MAX_TIE_FRAMES, duration_bins
from pianolm.tokenizer.tokenizer import DEFAULT_VELOCITY
from pianolm.tokenizer.velocity.frame import FrameCodec
from pianolm.tokenizer.velocity.segment import SegmentCodec
from pianolm.tokenizer.vocabulary import ALLOTMENT, CODE_KINDS, EIGHTHS_OF_KIND, Kind, Vocabulary

LONGEST = 200
"""Tokens of the longest random sequence and of the longest excerpt of a real one."""
CHUNK = 1000
"""Sequences that come from one generator and go through the vectorised parts together."""
TINY = Vocabulary(l1=16, l2=8, l3=4, velocity=8, reserved=380, tempo=5)
TINY_BARS = replace(TINY, reserved=sum(ALLOTMENT.values()))
RANDOM_KINDS = ("uniform", "by kind", "likely", "marks", "outside")
OPERATIONS = ("swap", "drop", "insert", "truncate")
COUNTED = (
    "sequences",
    "tokens",
    "skipped",  # tokens that decode left out
    "cells",  # cells kept
    "notes",  # notes decoded
    "whole",  # sequences of which nothing was skipped
    "beatless",  # sequences of which no beat was kept
    "beatless_incomplete",  # those that encode to no complete sequence
    "cross_checked",  # sequences, given or encoded again, that `Grammar.first_problem` judged too
)
_CROSS_CHECKED = 4  # sequences a chunk that the grammar's own, slow validator judges too
_REPORTED = 20  # failures written out; all are counted
_BREAKS = (0.0, 0.01, 0.1)  # how often a likely sequence takes a token of any kind
_END_OF_BEAT = 1 << (FRAMES - 1)
# plain ints for the loops over tokens: looking a member up in an enum costs more than the rest of a step
_TEMPO, _BAR, _PITCH, _EOS, _PAD, _BEAT = (
    int(Kind.TEMPO),
    int(Kind.BAR),
    int(Kind.PITCH),
    int(Kind.EOS),
    int(Kind.PAD),
    int(Phase.BEAT),
)
_DURATION = int(Kind.DURATION)
_EIGHTHS = {int(kind): eighths for kind, eighths in EIGHTHS_OF_KIND.items()}


class Read(NamedTuple):
    """What should be kept of a sequence.

    Attributes:
        kept: Its tokens that count as used, in order.
        beats: Beats.
        cells: A (beat, pitch, sustain, onset) each, as `Piece.cells` should hold them.
        bars: Beats that begin a bar.
        skipped: Tokens that are not kept, and ties that are missing; in `kept` these are silent.
    """

    kept: list[int]
    beats: int
    cells: list[tuple[int, int, int, int]]
    bars: list[int]
    skipped: int


@dataclass(frozen=True)
class Sequences:
    """Sequences of one chunk and the label that each is counted under."""

    ids: list[np.ndarray]
    labels: list[str]


class Fuzzer:
    """One tokenizer under test, with lookups that make a pass over many sequences quick.

    Args:
        tokenizer: What is tested.
        pieces: Music whose tokens are corrupted.
    """

    def __init__(self, tokenizer: PianoTokenizer, pieces: Sequence[Piece]) -> None:
        self.tokenizer = tokenizer
        self.vocabulary, self.grammar = tokenizer.vocabulary, tokenizer.grammar
        self.table, self.has_ties = self.grammar.table.tolist(), self.grammar.ties != "repeat"
        self.kind_of = self.grammar.kind_of.astype(np.int64)
        self.silent = self.grammar.silent.tolist()
        self.sustain, self.onset = (masks.tolist() for masks in tokenizer.codebook.id_patterns)
        self.first_pitch = self.vocabulary.offset(Kind.PITCH)
        self.downbeat = self.vocabulary.offset(Kind.BAR)
        self.starts = np.array([self.vocabulary.offset(kind) for kind in Kind])
        self.counts = np.array([self.vocabulary.count(kind) for kind in Kind])
        self.likely_kinds = _likely_kinds(self.grammar.table)
        self.explicit = self.grammar.ties == "explicit"
        self.first_duration = self.vocabulary.offset(Kind.DURATION)
        self.silent_of_kind = np.full(len(Kind), -1)
        silent = np.flatnonzero(self.grammar.silent)
        self.silent_of_kind[self.grammar.kind_of[silent]] = silent
        self.silent_codes = [int(self.silent_of_kind[Kind.L2])] * 2
        self.excerpts = [
            part for piece in pieces for part in excerpts(tokenizer.encode(piece).ids, tokenizer)
        ]

    def read(self, ids: np.ndarray) -> Read:
        """What `decode` should keep of a sequence [T], found by reading it from left to right."""
        inside = (ids >= 0) & (ids < self.vocabulary.size)
        kinds = np.where(inside, self.kind_of[np.where(inside, ids, 0)], -1).tolist()
        tokens = ids.tolist()
        kept = tokens[:1] if kinds[:1] == [Kind.BOS] else []
        cells: list[tuple[int, int, int, int]] = []
        beats, floor, at, bars = 0, -1, 0, list[int]()
        held: dict[int, int] = {}  # pitch → the beat at whose end it sounds
        struck: dict[int, int] = {}  # pitch → the frame of the piece in which it was last struck
        # of ties; without such all stay empty
        pending, tied, added, missing = list[int](), set[int](), 0, 0
        while at < len(tokens):
            kind, stop = kinds[at], at + 1
            pitch, timed = (
                (tokens[at] - self.first_pitch if kind == _PITCH else -1),
                self.explicit and kind == _DURATION,
            )
            if timed and kinds[stop : stop + 1] == [_PITCH]:
                pitch = tokens[stop] - self.first_pitch
            in_tie = self.explicit and pitch in pending
            if in_tie or kind in (_TEMPO, _EOS) or (kind == _PITCH and beats):
                n_late = pending.index(pitch) if in_tie else len(pending)
                pending, late = pending[n_late:], pending[:n_late]
                ended = [token for one in late for token in self._silent_tie(one, beats, struck)]
                kept, added, missing = kept + ended, added + len(ended), missing + len(late)
            if kind == _TEMPO:
                kept.append(tokens[at])
                beats, floor = beats + 1, -1
                pending, tied = (
                    self._pending([pitch for pitch, beat in held.items() if beat == beats - 1]),
                    set(),
                )
                if self.tokenizer.bars and kinds[stop : stop + 1] == [_BAR]:
                    kept.append(tokens[stop])
                    bars += [beats - 1] if tokens[stop] == self.downbeat else []
                    stop += 1
            elif kind == _EOS:
                phase = _BEAT if beats else Phase.OPENED if kept else Phase.START
                kept += tokens[at:stop] if self.table[phase][_EOS] != ILLEGAL else []
                kept += [token for token, k in zip(tokens[stop:], kinds[stop:], strict=True) if k == _PAD]
                break
            elif timed and not in_tie:
                stop += pitch >= 0  # a duration bin without a pending tie, and its pitch
            elif in_tie or (kind == _PITCH and beats) or (pending and not self.explicit and kind in _EIGHTHS):
                named = kind == _PITCH and not in_tie
                pitch = pitch if named else pending.pop(0)
                duration = [self._duration(pitch, beats, struck)] if in_tie else []
                missing += in_tie and not timed
                stop, whole, sustain, onset = self._cell(tokens, kinds, at + (kind == _PITCH) + 2 * timed)
                if whole and (not named or (sustain and pitch > floor and pitch not in tied)):
                    kept += duration + tokens[at + timed : stop]
                    added += len(duration) - (tokens[at : at + 1] == duration)
                    goes_on = held.get(pitch) == beats - 1 and not (named and self.has_ties)
                    strikes = onset | sustain & ~(sustain << 1 | goes_on)
                    if sustain:
                        cells.append((beats - 1, pitch, sustain, strikes))
                    if named:
                        floor = pitch
                    elif sustain:
                        tied.add(pitch)
                    if strikes:
                        struck[pitch] = (beats - 1) * FRAMES + strikes.bit_length() - 1
                    if sustain & _END_OF_BEAT:
                        held[pitch] = beats
                elif not named:
                    ended = self._silent_tie(pitch, beats, struck)
                    kept, added = kept + ended, added + len(ended)
            at = stop
        ended = [token for pitch in pending for token in self._silent_tie(pitch, beats, struck)]
        kept, added, missing = kept + ended, added + len(ended), missing + len(pending)
        return Read(kept, beats, sorted(cells), bars, len(tokens) + added - len(kept) + missing)

    def _duration(self, pitch: int, beats: int, struck: dict[int, int]) -> int:
        frames = np.array([(beats - 1) * FRAMES - struck[pitch]])
        return self.first_duration + int(duration_bins(frames)[0])

    def _silent_tie(self, pitch: int, beats: int, struck: dict[int, int]) -> list[int]:
        head = [self._duration(pitch, beats, struck), self.first_pitch + pitch] if self.explicit else []
        return head + self.silent_codes

    def _pending(self, sounding: list[int]) -> list[int]:
        """The pitches of pending ties, ascending; none in layouts without ties."""
        return sorted(sounding) if self.has_ties else []

    def _cell(self, tokens: list[int], kinds: list[int], at: int) -> tuple[int, bool, int, int]:
        """Reads a cell from its first code: where it ends, whether it is whole, its masks."""
        phase, filled, sustain, onset = self.table[_BEAT][_PITCH], 0, 0, 0
        while phase != _BEAT and at < len(tokens) and kinds[at] >= 0:
            after = self.table[phase][kinds[at]]
            if after == ILLEGAL:
                break
            sustain |= self.sustain[tokens[at]] << 6 * filled
            onset |= self.onset[tokens[at]] << 6 * filled
            filled += _EIGHTHS.get(kinds[at], 0)
            phase, at = after, at + 1
            if phase == Phase.VELOCITY and self.grammar.strikes is not None and not onset:
                phase = _BEAT
        return at, phase == _BEAT, sustain, onset

    def random(self, rng: np.random.Generator, count: int) -> Sequences:
        """Random sequences of 0 to `LONGEST` tokens, of every kind of `RANDOM_KINDS`."""
        length = np.where(
            rng.random(count) < 0.1, rng.integers(0, 9, count), rng.integers(0, LONGEST + 1, count)
        )
        labels = rng.choice(RANDOM_KINDS, count, p=[0.25, 0.15, 0.4, 0.1, 0.1])
        shape = (count, LONGEST)
        ids = np.where(
            (labels == "uniform")[:, None],
            rng.integers(0, self.vocabulary.size, shape),
            self._of_kinds(rng, rng.integers(0, len(Kind), shape)),
        )
        likely = np.flatnonzero(np.isin(labels, ["likely", "marks", "outside"]))
        ids[likely] = self._likely(rng, likely.size)
        marked = (labels == "marks")[:, None] & (rng.random(shape) < 0.01)
        marks = [self.vocabulary.bos, self.vocabulary.eos, self.vocabulary.pad]
        ids[marked] = rng.choice(marks, int(marked.sum()))
        strange = (labels == "outside")[:, None] & (rng.random(shape) < 0.03)
        info = np.iinfo(np.int64)
        outside = [-1, self.vocabulary.size, self.vocabulary.size + 1, -100, info.min, info.max]
        ids[strange] = rng.choice(outside, int(strange.sum()))
        return Sequences([row[:n] for row, n in zip(ids, length, strict=True)], labels.tolist())

    def _of_kinds(self, rng: np.random.Generator, kinds: np.ndarray) -> np.ndarray:
        """A random id of each kind; a kind without ids of its own gives PAD."""
        count = self.counts[kinds]
        ids = self.starts[kinds] + (rng.random(kinds.shape) * count).astype(np.int64)
        return np.where(count > 0, ids, self.vocabulary.pad)

    def _likely(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """[N, LONGEST] walks through the grammar's table that now and then take a wrong turn."""
        breaks = rng.choice(_BREAKS, count)
        if self.has_ties:
            return np.array([self._likely_ties(rng, share) for share in breaks.tolist()]).reshape(-1, LONGEST)
        phase, floor = np.zeros(count, np.int64), np.full(count, -1)
        ids = np.empty((count, LONGEST), np.int64)
        restart = np.full(len(Kind), -1)
        restart[[Kind.TEMPO, Kind.PITCH]] = self.grammar.table[Phase.BEAT, [Kind.TEMPO, Kind.PITCH]]
        for at in range(LONGEST):
            kind = (rng.random(count)[:, None] > self.likely_kinds[phase]).sum(axis=1)
            wrong = rng.random(count) < breaks
            kind = np.where(wrong, rng.integers(0, len(Kind), count), kind)
            ids[:, at] = self._of_kinds(rng, kind)
            silent = (self.silent_of_kind[kind] >= 0) & (rng.random(count) < 0.15)
            ids[silent, at] = self.silent_of_kind[kind[silent]]
            ascends = (kind == Kind.PITCH) & (floor < 127) & ~wrong
            pitch = np.minimum(floor + rng.integers(1, 30, count), 127)
            ids[ascends, at] = self.starts[Kind.PITCH] + pitch[ascends]
            floor = np.where(ascends, pitch, np.where(kind == Kind.TEMPO, -1, floor))
            after = self.grammar.table[phase, kind].astype(np.int64)
            after = np.where(after == ILLEGAL, restart[kind], after)
            phase = np.where(after >= 0, after, phase)
        return ids

    def _likely_ties(self, rng: np.random.Generator, breaks: float) -> list[int]:
        """[LONGEST] a walk like those of `_likely`, along the states of a grammar with ties."""
        ids, state = list[int](), self.grammar.start()
        while len(ids) < LONGEST:
            wrong = rng.random() < breaks
            likely = self.likely_kinds[state.phase]
            kind = int(rng.integers(len(Kind)) if wrong else (rng.random() > likely).sum())
            token = int(self._of_kinds(rng, np.array([kind]))[0])
            if self.silent_of_kind[kind] >= 0 and rng.random() < 0.15:
                token = int(self.silent_of_kind[kind])
            if kind == Kind.DURATION and state.ties.pending and not wrong:
                token = self.first_duration + self.grammar.duration_bin(state)
            elif state.phase == Phase.DURATION and not wrong:
                token = self.first_pitch + state.pitch
            elif kind == Kind.PITCH and state.last_pitch < 127 and not wrong:
                token = self.first_pitch + min(state.last_pitch + int(rng.integers(1, 30)), 127)
            ids.append(token)
            if self.grammar.allows(state, token):
                state = self.grammar.after(state, token)
        return ids

    def corrupted(self, rng: np.random.Generator, count: int) -> Sequences:
        """Excerpts of real sequences with one operation of `OPERATIONS`, or two to eight of them."""
        ids, labels = [], []
        for _ in range(count):
            sequence = self.excerpts[rng.integers(len(self.excerpts))]
            times = int(rng.integers(2, 9)) if rng.random() < 0.4 else 1
            for operation in rng.integers(0, len(OPERATIONS), times).tolist():
                sequence = self._corrupt(sequence, operation, rng)
            ids.append(sequence)
            labels.append(OPERATIONS[operation] if times == 1 else "several")
        return Sequences(ids, labels)

    def _corrupt(self, ids: np.ndarray, operation: int, rng: np.random.Generator) -> np.ndarray:
        at = int(rng.integers(ids.size)) if ids.size else 0
        match OPERATIONS[operation] if ids.size else "insert":
            case "swap":
                other = min(at + 1, ids.size - 1) if rng.random() < 0.5 else int(rng.integers(ids.size))
                ids = ids.copy()
                ids[[at, other]] = ids[[other, at]]
                return ids
            case "drop":
                return np.concatenate([ids[:at], ids[at + 1 :]])
            case "insert":
                new = self._of_kinds(rng, rng.integers(0, len(Kind), 1))
                return np.concatenate([ids[:at], new, ids[at:]])
            case _:
                return ids[:at] if rng.random() < 0.75 else ids[at:]

    def check(
        self, sequences: Sequence[np.ndarray], cross_checked: int = 0
    ) -> tuple[list[Counter], list[str]]:
        """Counts of each sequence, and what is wrong with it (empty: nothing).

        Args:
            sequences: N arrays of ids, each [T].
            cross_checked: How many of them `Grammar.first_problem` judges too.
        """
        reads = [self.read(ids) for ids in sequences]
        counts: list[Counter] = [Counter(sequences=1, tokens=ids.size) for ids in sequences]
        wrong: list[str] = []
        again: list[np.ndarray] = []
        for ids, read, count in zip(sequences, reads, counts, strict=True):
            encoded = np.zeros(0, np.int64)
            try:
                piece = self.tokenizer.decode(ids)
                count.update(skipped=piece.skipped, cells=len(read.cells), notes=piece.notes.size)
                count.update(whole=int(piece.skipped == 0), beatless=int(not piece.n_beats))
                problem = self._decoded_problem(piece, ids, read)
                encoded = self.tokenizer.encode(piece).ids
                problem = problem or self._again_problem(piece, self.tokenizer.decode(encoded))
            except Exception as error:  # that decode never raises, whatever it is, is what is tested
                problem = f"raised {error!r}"
            again.append(encoded)
            wrong.append(problem)
        self._check_grammar(sequences, reads, again, counts, wrong, cross_checked)
        return counts, wrong

    def _decoded_problem(self, piece: Piece, ids: np.ndarray, read: Read) -> str:
        cells = piece.cells
        found = list(
            zip(*(a.tolist() for a in (cells.beat, cells.pitch, cells.sustain, cells.onset)), strict=True)
        )
        if piece.skipped != read.skipped:
            return f"skipped {piece.skipped}, expected {read.skipped}"
        if piece.n_beats != read.beats:
            return f"{piece.n_beats} beats, expected {read.beats}"
        if found != read.cells:
            return f"cells {found}, expected {read.cells}"
        if piece.bar_starts.tolist() != read.bars:
            return f"bars begin at {piece.bar_starts.tolist()}, expected {read.bars}"
        velocity = piece.notes["velocity"]
        if velocity.size and not 1 <= velocity.min() <= velocity.max() <= 127:
            return f"velocities {velocity.min()}–{velocity.max()}"
        if self.tokenizer.codec is None and (velocity != DEFAULT_VELOCITY).any():
            return f"a velocity without velocity tokens is not {DEFAULT_VELOCITY}"
        return ""

    def _again_problem(self, piece: Piece, back: Piece) -> str:
        """What differs after encoding and decoding once more; velocities may, through the codec."""
        names = ["onset_sec", "offset_sec", "pitch"] + ([] if self.tokenizer.codec else ["velocity"])
        if not np.array_equal(back.beats_sec, piece.beats_sec):
            return "beats move when encoded again"
        # on equal beats, equal seconds are equal frames
        changed = back.notes.size != piece.notes.size or any(
            (back.notes[name] != piece.notes[name]).any() for name in names
        )
        if changed and self.tokenizer.exact:
            return "notes change when encoded again"
        first = piece.bar_starts.min(
            initial=piece.n_beats
        )  # what comes before is counted back, into whole bars
        if not np.array_equal(back.bar_starts[back.bar_starts >= first], piece.bar_starts):
            return "bars change when encoded again"
        return f"skips {back.skipped} of what it encoded itself" if piece.n_beats and back.skipped else ""

    def _check_grammar(
        self,
        sequences: Sequence[np.ndarray],
        reads: Sequence[Read],
        again: Sequence[np.ndarray],
        counts: Sequence[Counter],
        wrong: list[str],
        cross_checked: int,
    ) -> None:
        """Holds what was read, kept and encoded again against the grammar; notes it in `counts` and `wrong`."""
        given_at, given_phase = well_formed(self.grammar, sequences)
        again_at, again_phase = well_formed(self.grammar, again)
        kept_at, _ = well_formed(self.grammar, [np.array(read.kept, np.int64) for read in reads])
        between = np.isin(given_phase, [Phase.START, Phase.OPENED, *BETWEEN_CELLS, Phase.ENDED])  # in no cell
        for n, read in enumerate(reads):
            complete = again_at[n] < 0 and again_phase[n] == Phase.ENDED
            if wrong[n]:
                continue
            if not read.beats:  # nothing is kept: no music to be valid
                counts[n].update(beatless_incomplete=int(not complete))
            elif not complete:
                wrong[n] = f"encodes to an ill-formed sequence, at {again_at[n]} of {again[n].tolist()}"
            elif kept_at[n] >= 0:
                wrong[n] = f"keeps an ill-formed sequence, at {kept_at[n]} of {read.kept}"
            if (counts[n]["skipped"] == 0) != (given_at[n] < 0 and between[n]):
                wrong[n] = f"skipped {counts[n]['skipped']}, the first problem is at {given_at[n]}"
        for n in range(min(cross_checked, len(sequences))):
            for ids, at, phase in (
                (sequences[n], given_at[n], given_phase[n]),
                (again[n], again_at[n], again_phase[n]),
            ):
                counts[n].update(cross_checked=1)
                problem = self.grammar.first_problem(ids)
                ended = phase == Phase.ENDED and at < 0
                if (problem.position if problem else -1) != at or self.grammar.is_complete(ids) != ended:
                    wrong[n] = f"the two validators disagree: {problem}, {at}"


def well_formed(grammar: Grammar, sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """`Grammar.first_problem` of many sequences at once, from the same table.

    Returns:
        [N] position of the first problem, −1 where there is none; [N] the phase reached before it.
    """
    size = np.array([ids.size for ids in sequences])
    tokens = np.full((size.size, int(size.max(initial=0))), -1, np.int64)
    for row, ids in zip(tokens, sequences, strict=True):
        row[: ids.size] = ids
    inside = (tokens >= 0) & (tokens < grammar.vocabulary.size)
    tokens = np.where(inside, tokens, 0)
    is_code = np.isin(np.arange(len(Kind)), CODE_KINDS)
    # one more row and column that allow nothing: for sequences with a problem, and for numbers that are no ids
    table = np.full((N_PHASES + 1, len(Kind) + 1), N_PHASES)
    table[:-1, :-1] = np.where(grammar.table == ILLEGAL, N_PHASES, grammar.table)
    kinds = np.where(inside, grammar.kind_of[tokens], len(Kind))
    code, silent = inside & is_code[grammar.kind_of[tokens]], grammar.silent[tokens]
    position, reached = np.full(size.size, -1), np.zeros(size.size, np.int64)
    floor, sounding = np.full(size.size, -1), np.zeros(size.size, bool)
    strikes = np.ones(grammar.vocabulary.size, bool) if grammar.strikes is None else grammar.strikes
    struck, ties = np.zeros(size.size, bool), _Ties(grammar, size.size)
    for at in range(tokens.shape[1]):
        kind, pitch = kinds[:, at], grammar.pitch_of[tokens[:, at]]
        after = table[reached, kind]
        is_pitch = kind == Kind.PITCH
        names = is_pitch & (reached != Phase.DURATION)
        sounds, strike = sounding | (code[:, at] & ~silent[:, at]), struck | strikes[tokens[:, at]]
        completes = code[:, at] & ((after == Phase.VELOCITY) | (after == Phase.BEAT))
        after = np.where(completes & (after == Phase.VELOCITY) & ~strike, Phase.BEAT, after)
        bad = (after == N_PHASES) | (names & (pitch <= floor)) | (completes & ~sounds & ~ties.waiting)
        bad |= ties.wrong(reached, kind, pitch, tokens[:, at])
        running = (at < size) & (position < 0)
        position[running & bad] = at
        go = running & ~bad
        ties.count(go & is_pitch, names, go & code[:, at], tokens[:, at])
        reached = np.where(go, after, reached)
        ties.advance(go & (kind == Kind.TEMPO), go & completes, sounds, floor, tokens[:, at])
        for phase, pending in WITH_TIES.items():
            reached = np.where((reached == phase) & ties.waiting, pending, reached)
        sounding = np.where(go, sounds & code[:, at] & ~completes, sounding)
        struck = np.where(go, strike & code[:, at] & ~completes, struck)
        floor = np.where(go & names, pitch, np.where(go & (kind == Kind.TEMPO), -1, floor))
    return position, reached


class _Ties:
    """Which pitches sound on in many sequences at once, [N, 128]; none in a grammar without ties."""

    def __init__(self, grammar: Grammar, count: int) -> None:
        self.codes, self.explicit = grammar.tie_codes, grammar.ties == "explicit"
        self.first_duration = grammar.vocabulary.offset(Kind.DURATION)
        self.pending, self.sounding, self.tied = np.zeros((3, count, 128), bool)
        # frames since each pitch was struck, at the beat line; and since that of the open cell was, so far
        self.frames, self.open_frames = np.zeros((count, 128), np.int64), np.zeros(count, np.int64)
        self.length = FRAMES // 8 * np.array([_EIGHTHS.get(kind, 0) for kind in grammar.kind_of.tolist()])

    @property
    def waiting(self) -> np.ndarray:
        return self.pending.any(axis=1)

    def wrong(
        self, reached: np.ndarray, kind: np.ndarray, pitch: np.ndarray, tokens: np.ndarray
    ) -> np.ndarray:
        """[N] where a token that the table allows contradicts the ties."""
        row, pending = np.arange(pitch.size), self.pending.argmax(axis=1)
        tied = (kind == Kind.PITCH) & self.tied[row, np.clip(pitch, 0, 127)] & np.isin(reached, BETWEEN_CELLS)
        if not self.explicit:
            return tied
        expected = self.first_duration + duration_bins(self.frames[row, pending])
        wrong_bin = (kind == Kind.DURATION) & (tokens != expected)
        return tied | wrong_bin | ((reached == Phase.DURATION) & (pitch != pending))

    def count(self, is_pitch: np.ndarray, names: np.ndarray, is_code: np.ndarray, tokens: np.ndarray) -> None:
        """Takes in a pitch or a code for the duration of its cell."""
        if self.codes is None:
            return
        of_tie = self.frames[np.arange(tokens.size), self.pending.argmax(axis=1)]
        self.open_frames = np.where(is_pitch, np.where(names, 0, of_tie), self.open_frames)
        since = self.codes.frames_since_strike[tokens]
        further = np.minimum(self.open_frames + self.length[tokens], MAX_TIE_FRAMES)
        after = np.where(self.codes.sounds_to_end[tokens], np.where(since >= 0, since, further), 0)
        self.open_frames = np.where(is_code, after, self.open_frames)

    def advance(
        self, tempo: np.ndarray, whole: np.ndarray, sounds: np.ndarray, floor: np.ndarray, tokens: np.ndarray
    ) -> None:
        """Takes in a tempo, or the last code of a cell."""
        if self.codes is None:
            return
        tie = np.flatnonzero(whole & self.waiting)
        pitch = np.where(self.waiting, self.pending.argmax(axis=1), floor)
        at = np.flatnonzero(whole)
        self.sounding[at, pitch[at]] |= self.codes.sounds_to_end[tokens[at]]
        self.frames[at, pitch[at]] = self.open_frames[at]
        self.pending[tie, pitch[tie]] = False
        self.tied[tie, pitch[tie]] = sounds[tie]
        self.pending[tempo] = self.sounding[tempo]
        self.sounding[tempo] = self.tied[tempo] = False


def _likely_kinds(table: np.ndarray) -> np.ndarray:
    """[phase, kind − 1] cumulative shares of the kinds that may follow, so that cells get built and beats end."""
    weight = np.ones(len(Kind))
    weight[[Kind.TEMPO, Kind.PITCH, Kind.EOS, Kind.L1]] = 0.2, 0.8, 0.004, 2.0
    shares = np.where(table == ILLEGAL, 0, weight)
    shares[shares.sum(axis=1) == 0] = 1  # without velocity tokens nothing ever waits for one
    return np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)[:, :-1]


def excerpts(ids: np.ndarray, tokenizer: PianoTokenizer) -> list[np.ndarray]:
    """Cuts a piece's tokens at its beats into well-formed sequences of one beat to about `LONGEST` tokens."""
    vocabulary, rng = tokenizer.vocabulary, np.random.default_rng(ids.size)
    beats = [*np.flatnonzero(vocabulary.kind_of[ids] == Kind.TEMPO).tolist(), ids.size - 1]
    parts, start, longest = [], 0, int(rng.integers(LONGEST))
    for end in range(1, len(beats)):
        if end + 1 == len(beats) or beats[end + 1] - beats[start] > longest:
            parts.append(np.concatenate([[vocabulary.bos], ids[beats[start] : beats[end]], [vocabulary.eos]]))
            start, longest = end, int(rng.integers(LONGEST))
    return parts


def composed(count: int, seed: int = 0) -> list[Piece]:
    """Pieces as the demo composes them, every sixth a score."""
    pieces = []
    for index in range(count):
        music = compose(seed, index, is_score(index))
        notes = make_notes(music.onset_sec, music.offset_sec, music.pitch, music.velocity)
        pieces.append(Piece.from_notes(notes, BeatAnnotation(music.beats_sec, music.downbeat)))
    return pieces


def read_folder(root: Path, count: int) -> list[Piece]:
    """Up to `count` pieces of a folder, evenly spread over it; what cannot be read is left out."""
    paths, pieces = midi_files(root), []
    for path in paths[:: max(len(paths) // count, 1)][:count]:
        try:
            pieces.append(Piece.from_midi(path))
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    return pieces


def segment_codec(codes: int, max_segments: int = 6) -> SegmentCodec:
    """A codec of the default form whose velocities are drawn, not learned."""
    rng = np.random.default_rng(0)
    return SegmentCodec.from_tables(
        [rng.integers(1, 128, (codes, n)).astype(np.uint8) for n in range(1, max_segments + 1)]
    )


def frame_codec(codes: int, frames: int = 6) -> FrameCodec:
    """A small codec of the frame form with random weights."""
    rng = np.random.default_rng(0)
    widths = {"encoder": [2 * frames, 8, 4], "decoder": [4 + frames, 8], "output": [8 + frames, 8, frames]}
    tensors = {"codebook": rng.normal(0, 0.5, (codes, 4)).astype(np.float32)}
    for name, sizes in widths.items():
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            tensors[f"{name}.{i}.weight"] = rng.normal(0, fan_in**-0.5, (fan_out, fan_in)).astype(np.float32)
            tensors[f"{name}.{i}.bias"] = rng.normal(0, 0.1, fan_out).astype(np.float32)
    sizes_and_form = {"form": "frame", "frames": frames, "codebook_size": codes, "widths": widths}
    return FrameCodec({**sizes_and_form, "activation": "relu"}, tensors)


def make_tokenizers(pieces: Sequence[Piece]) -> dict[str, PianoTokenizer]:
    """The full and a tiny vocabulary, without and with velocity; three levels, bars, implicit and explicit ties.

    The full one has a codebook fitted to the pieces and a codec of the default form; the tiny one has seen no music,
    so that most of its cells need L4, and has a codec of the frame form with fewer codes than velocity ids.
    """
    sustain = np.concatenate([piece.cells.sustain for piece in pieces])
    onset = np.concatenate([piece.cells.onset for piece in pieces])
    nothing = Patterns(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    full = fit_codebook(sustain, onset, Vocabulary(), "frequency").codebook
    tiny, tempo = complete([nothing] * 3, TINY), TempoBins(bins=TINY.tempo)
    with_bars = complete([nothing] * 3, TINY_BARS)
    return {
        "full base": PianoTokenizer(full, TempoBins()),
        "full velocity": PianoTokenizer(full, TempoBins(), segment_codec(512)),
        "tiny base": PianoTokenizer(tiny, tempo),
        "tiny velocity": PianoTokenizer(tiny, tempo, frame_codec(TINY.velocity - 3)),
        "full velocity three levels": PianoTokenizer(
            full, TempoBins("published"), segment_codec(512), exact=False
        ),
        "tiny base bars": PianoTokenizer(with_bars, tempo, bars=True),
        "full velocity implicit": PianoTokenizer(full, TempoBins(), segment_codec(512), ties="implicit"),
        "tiny base implicit bars": PianoTokenizer(with_bars, tempo, ties="implicit", bars=True),
        "full velocity explicit": PianoTokenizer(full, TempoBins(), segment_codec(512), ties="explicit"),
        "tiny base explicit bars": PianoTokenizer(with_bars, tempo, ties="explicit", bars=True),
    }


def run(
    n_random: int,
    n_corrupted: int,
    seed: int,
    tokenizers: Mapping[str, PianoTokenizer],
    pieces: Sequence[Piece],
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Checks `n_random` random and `n_corrupted` corrupted sequences, shared out evenly among the tokenizers.

    Chunk k of a family is made by `default_rng([seed, family, k])` and goes to tokenizer k modulo their number.

    Returns:
        `random` and `corrupted`, counts by kind of sequence; `tokenizers`, counts by tokenizer; `failed`; and
        `failures`, the first of them with tokenizer, family, chunk, what is wrong and ids.
    """
    tests = {name: Fuzzer(tokenizer, pieces) for name, tokenizer in tokenizers.items()}
    names = list(tests)
    by_label: dict[str, dict[str, Counter]] = {"random": {}, "corrupted": {}}
    by_tokenizer: dict[str, Counter] = {name: Counter() for name in names}
    failures: list[dict[str, Any]] = []
    began, done, failed = time.perf_counter(), 0, 0
    for family, (title, total) in enumerate((("random", n_random), ("corrupted", n_corrupted))):
        size = min(CHUNK, -(-total // len(names)))
        for chunk, low in enumerate(range(0, total, max(size, 1))):
            name, rng = names[chunk % len(names)], np.random.default_rng([seed, family, chunk])
            make = tests[name].corrupted if title == "corrupted" else tests[name].random
            sequences = make(rng, min(size, total - low))
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # an overflow that is only warned of is a failure too
                counts, wrong = tests[name].check(sequences.ids, _CROSS_CHECKED)
            for ids, label, count, problem in zip(
                sequences.ids, sequences.labels, counts, wrong, strict=True
            ):
                by_label[title].setdefault(label, Counter()).update(count)
                by_tokenizer[name].update(count)
                if problem:
                    failed += 1
                    where = {"tokenizer": name, "family": title, "seed": seed, "chunk": chunk}
                    failures += [{**where, "wrong": problem, "ids": ids.tolist()}] * (failed <= _REPORTED)
            done += len(sequences.ids)
            if (chunk + 1) % 50 == 0:
                rate = done / (time.perf_counter() - began)
                progress(f"{title}: {low + size} of {total}, {rate:.0f} sequences a second, {failed} failed")
    order = [*RANDOM_KINDS, *OPERATIONS, "several"]
    return {
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 1),
        "excerpts": {name: len(test.excerpts) for name, test in tests.items()},
        **{
            title: {label: _in_order(found[label]) for label in order if label in found}
            for title, found in by_label.items()
        },
        "tokenizers": {name: _in_order(count) for name, count in by_tokenizer.items()},
        "failed": failed,
        "failures": failures,
    }


def _in_order(count: Counter) -> dict[str, int]:
    return {name: count[name] for name in COUNTED}


def rows_of(result: Mapping[str, Any]) -> list[Row]:
    """The counts of `run` as rows of results.jsonl."""
    rows = [
        {"family": family, "kind": kind, **counts}
        for family in ("random", "corrupted")
        for kind, counts in result[family].items()
    ]
    return rows + [
        {"family": "all", "tokenizer": name, "excerpts": result["excerpts"][name], **counts}
        for name, counts in result["tokenizers"].items()
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=1000, help="random sequences")
    parser.add_argument("--corrupted", type=int, default=1000, help="corrupted real sequences")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of MIDI files; without it, music is composed")
    parser.add_argument("--pieces", type=int, default=60, help="pieces that the real sequences come from")
    parser.add_argument("--out", type=Path, help="folder of results.jsonl, metrics.json and README.md")
    args = parser.parse_args()
    pieces = read_folder(args.data, args.pieces) if args.data else composed(args.pieces)
    result = run(
        args.random,
        args.corrupted,
        args.seed,
        make_tokenizers(pieces),
        pieces,
        progress=lambda line: print(line, flush=True),
    )
    summary = {key: result[key] for key in ("failed", "seed", "seconds")}
    rows = [*rows_of(result), {"family": "summary", "pieces": len(pieces), **summary}]
    if args.out:
        publish(args.out, rows, headlines(rows), tables(rows))
    print("\n".join(tables(rows)["results"]))
    for failure in result["failures"]:
        print(json.dumps(failure))
    if result["failed"]:
        sys.exit(f"{result['failed']} sequences failed")


if __name__ == "__main__":
    main()
