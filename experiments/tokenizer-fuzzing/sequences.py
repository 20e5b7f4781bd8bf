"""Random sequences, and real ones that are corrupted.

Shapes: N sequences, L = `LONGEST` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pianolm import PianoTokenizer, Piece
from pianolm.tokenizer.grammar_table import ILLEGAL, Phase
from pianolm.tokenizer.vocabulary import Kind

LONGEST = 200
"""Tokens of the longest random sequence and of the longest excerpt of a real one."""
RANDOM_KINDS = ("uniform", "by kind", "likely", "marks", "outside")
OPERATIONS = ("swap", "drop", "insert", "truncate")
_WRONG_SHARES = (0.0, 0.01, 0.1)
"""Shares of tokens of a random kind in a likely sequence."""


@dataclass(frozen=True)
class Sequences:
    """Sequences of one chunk and the label that each is counted under."""

    ids: list[np.ndarray]
    labels: list[str]


class SequenceMaker:
    """Makes sequences for one tokenizer.

    Args:
        tokenizer: The tokenizer under test.
        pieces: Music whose tokens are corrupted.
    """

    def __init__(self, tokenizer: PianoTokenizer, pieces: Sequence[Piece]) -> None:
        self.vocabulary, self.grammar = tokenizer.vocabulary, tokenizer.grammar
        self._starts = np.array([self.vocabulary.offset(kind) for kind in Kind])
        self._counts = np.array([self.vocabulary.count(kind) for kind in Kind])
        self._likely_kinds = _likely_kinds(self.grammar.table)
        self._silent_of_kind = np.full(len(Kind), -1)
        silent = np.flatnonzero(self.grammar.silent)
        self._silent_of_kind[self.grammar.kind_of[silent]] = silent
        self.excerpts = [
            part for piece in pieces for part in excerpts(tokenizer.encode(piece).ids, tokenizer)
        ]

    def random(self, rng: np.random.Generator, count: int) -> Sequences:
        """Random sequences of 0 to L tokens, of every kind of `RANDOM_KINDS`."""
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
        """A random id of each kind; PAD for a kind without ids."""
        count = self._counts[kinds]
        ids = self._starts[kinds] + (rng.random(kinds.shape) * count).astype(np.int64)
        return np.where(count > 0, ids, self.vocabulary.pad)

    def _likely(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """[N, L] walks through the grammar's table with some tokens of random kinds."""
        wrong_share = rng.choice(_WRONG_SHARES, count)
        if self.grammar.ties != "repeat":
            return np.array([self._likely_with_ties(rng, share) for share in wrong_share.tolist()]).reshape(
                -1, LONGEST
            )
        phase, floor = np.zeros(count, np.int64), np.full(count, -1)
        ids = np.empty((count, LONGEST), np.int64)
        restart = np.full(len(Kind), -1)
        restart[[Kind.TEMPO, Kind.PITCH]] = self.grammar.table[Phase.BEAT, [Kind.TEMPO, Kind.PITCH]]
        for at in range(LONGEST):
            kind = (rng.random(count)[:, None] > self._likely_kinds[phase]).sum(axis=1)
            wrong = rng.random(count) < wrong_share
            kind = np.where(wrong, rng.integers(0, len(Kind), count), kind)
            ids[:, at] = self._of_kinds(rng, kind)
            silent = (self._silent_of_kind[kind] >= 0) & (rng.random(count) < 0.15)
            ids[silent, at] = self._silent_of_kind[kind[silent]]
            ascends = (kind == Kind.PITCH) & (floor < 127) & ~wrong
            pitch = np.minimum(floor + rng.integers(1, 30, count), 127)
            ids[ascends, at] = self._starts[Kind.PITCH] + pitch[ascends]
            floor = np.where(ascends, pitch, np.where(kind == Kind.TEMPO, -1, floor))
            after = self.grammar.table[phase, kind].astype(np.int64)
            after = np.where(after == ILLEGAL, restart[kind], after)
            phase = np.where(after >= 0, after, phase)
        return ids

    def _likely_with_ties(self, rng: np.random.Generator, wrong_share: float) -> list[int]:
        """[L] a walk as in `_likely` along the states of a grammar with ties."""
        ids, state = list[int](), self.grammar.start()
        while len(ids) < LONGEST:
            wrong = rng.random() < wrong_share
            likely = self._likely_kinds[state.phase]
            kind = int(rng.integers(len(Kind)) if wrong else (rng.random() > likely).sum())
            token = int(self._of_kinds(rng, np.array([kind]))[0])
            if self._silent_of_kind[kind] >= 0 and rng.random() < 0.15:
                token = int(self._silent_of_kind[kind])
            if kind == Kind.DURATION and state.ties.pending and not wrong:
                token = self._starts[Kind.DURATION] + self.grammar.duration_bin(state)
            elif state.phase == Phase.DURATION and not wrong:
                token = self._starts[Kind.PITCH] + state.pitch
            elif kind == Kind.PITCH and state.last_pitch < 127 and not wrong:
                token = self._starts[Kind.PITCH] + min(state.last_pitch + int(rng.integers(1, 30)), 127)
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


def _likely_kinds(table: np.ndarray) -> np.ndarray:
    """[phase, kind − 1] cumulative probabilities of the next kind, such that cells are completed and beats end."""
    weight = np.ones(len(Kind))
    weight[[Kind.TEMPO, Kind.PITCH, Kind.EOS, Kind.L1]] = 0.2, 0.8, 0.004, 2.0
    shares = np.where(table == ILLEGAL, 0, weight)
    shares[shares.sum(axis=1) == 0] = 1  # a phase that is never reached, such as velocity in base mode
    return np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)[:, :-1]


def excerpts(ids: np.ndarray, tokenizer: PianoTokenizer) -> list[np.ndarray]:
    """Cuts a piece's tokens at its beats into well-formed sequences of one beat to about `LONGEST` tokens."""
    vocabulary, rng = tokenizer.vocabulary, np.random.default_rng(ids.size)
    beats = [*np.flatnonzero(vocabulary.kind_of[ids] == Kind.TEMPO).tolist(), ids.size - 1]
    parts, start, longest = [], 0, int(rng.integers(LONGEST))
    for end in range(1, len(beats)):
        if end + 1 == len(beats) or beats[end + 1] - beats[start] > longest:
            head = [vocabulary.bos, *vocabulary.tuning_id(ids)]
            parts.append(np.concatenate([head, ids[beats[start] : beats[end]], [vocabulary.eos]]))
            start, longest = end, int(rng.integers(LONGEST))
    return parts
