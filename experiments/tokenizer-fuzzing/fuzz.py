"""Fuzzing of `PianoTokenizer.decode`: random and corrupted sequences, and everything that must hold of the result.

    python fuzz.py --random 1000000 --corrupted 1000000 --out DIRECTORY

Shapes: N sequences, T tokens of one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from layouts import composed, make_tokenizers, read_folder
from reader import Reader, Reading
from report import headlines, tables
from sequences import OPERATIONS, RANDOM_KINDS, SequenceMaker
from validator import well_formed

from experiments.results import Row, publish
from pianolm import PianoTokenizer, Piece
from pianolm.tokenizer.grammar_table import BETWEEN_CELLS, Phase
from pianolm.tokenizer.tokenizer import DEFAULT_VELOCITY

CHUNK = 1000
"""Sequences that are made by one generator and checked together."""
COUNTED = (
    "sequences",
    "tokens",
    "skipped",  # tokens that decode skipped
    "cells",  # cells kept
    "notes",  # notes decoded
    "whole",  # sequences without skipped tokens
    "beatless",  # sequences without a beat that is kept
    "beatless_incomplete",  # those whose piece does not encode to a complete sequence
    "cross_checked",  # sequences that `Grammar.first_problem` checked, too
)
_CROSS_CHECKED = 4  # sequences per chunk that are also checked by the grammar's own, slower validator
_REPORTED = 20  # failures written out


class Fuzzer:
    """One tokenizer under test.

    Args:
        tokenizer: The tokenizer.
        pieces: Music whose tokens are corrupted.
    """

    def __init__(self, tokenizer: PianoTokenizer, pieces: Sequence[Piece]) -> None:
        self.tokenizer, self.grammar = tokenizer, tokenizer.grammar
        self.sequences, self.reader = SequenceMaker(tokenizer, pieces), Reader(tokenizer)

    def check(
        self, sequences: Sequence[np.ndarray], cross_checked: int = 0
    ) -> tuple[list[Counter], list[str]]:
        """Counts of each sequence, and its problem ("" for none).

        Args:
            sequences: N arrays of ids, each [T].
            cross_checked: Number of sequences that `Grammar.first_problem` checks, too.
        """
        reads = [self.reader.read(ids) for ids in sequences]
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
                encoded = self._encoded(piece, read)
                problem = problem or self._again_problem(piece, self.tokenizer.decode(encoded))
            except Exception as error:  # the test is that nothing is raised, whatever it is
                problem = f"raised {error!r}"
            again.append(encoded)
            wrong.append(problem)
        self._check_grammar(sequences, reads, again, counts, wrong, cross_checked)
        return counts, wrong

    def _encoded(self, piece: Piece, read: Reading) -> np.ndarray:
        """The piece's ids, on the tempo scale on which it was read: another may change bins less often."""
        tuning = self.tokenizer.vocabulary.tuning_id(read.kept)
        number = tuning[0] - self.reader.unshifted if tuning else 0
        return self.tokenizer.encode_cells(piece.cells, piece.beats_sec, piece.bar_starts, tuning=number)

    def _decoded_problem(self, piece: Piece, ids: np.ndarray, read: Reading) -> str:
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
        """Compares with the piece after encoding and decoding it; a codec may change velocities."""
        names = ["onset_sec", "offset_sec", "pitch"] + ([] if self.tokenizer.codec else ["velocity"])
        if not np.array_equal(back.beats_sec, piece.beats_sec):
            return "beats move when encoded again"
        # on equal beats, equal seconds are equal frames
        changed = back.notes.size != piece.notes.size or any(
            (back.notes[name] != piece.notes[name]).any() for name in names
        )
        if changed and self.tokenizer.exact:
            return "notes change when encoded again"
        # beats before the first bar line are counted backwards, in full bars
        first = piece.bar_starts.min(initial=piece.n_beats)
        if not np.array_equal(back.bar_starts[back.bar_starts >= first], piece.bar_starts):
            return "bars change when encoded again"
        return f"skips {back.skipped} tokens of its own encoding" if piece.n_beats and back.skipped else ""

    def _check_grammar(
        self,
        sequences: Sequence[np.ndarray],
        reads: Sequence[Reading],
        again: Sequence[np.ndarray],
        counts: Sequence[Counter],
        wrong: list[str],
        cross_checked: int,
    ) -> None:
        """Validates the given, the kept and the encoded sequences; updates `counts` and `wrong`."""
        given_at, given_phase = well_formed(self.grammar, sequences)
        again_at, again_phase = well_formed(self.grammar, again)
        kept_at, _ = well_formed(self.grammar, [np.array(read.kept, np.int64) for read in reads])
        outside = [Phase.START, Phase.OPENED, Phase.TUNED, *BETWEEN_CELLS, Phase.ENDED]
        between = np.isin(given_phase, outside)  # in no cell
        for n, read in enumerate(reads):
            complete = again_at[n] < 0 and again_phase[n] == Phase.ENDED
            if wrong[n]:
                continue
            if not read.beats:  # without beats there is no valid sequence
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


@dataclass
class Totals:
    """Counts of all sequences checked so far.

    Attributes:
        by_kind: Counts of each kind of sequence, for each family (random, corrupted).
        by_tokenizer: Counts of each tokenizer.
        failed: Number of failures.
        failures: The first failures with tokenizer, family, chunk, problem and ids.
    """

    by_kind: dict[str, dict[str, Counter[str]]]
    by_tokenizer: dict[str, Counter[str]]
    failed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, where: dict[str, Any], kind: str, counts: Counter[str], problem: str, ids: np.ndarray
    ) -> None:
        self.by_kind[where["family"]].setdefault(kind, Counter()).update(counts)
        self.by_tokenizer[where["tokenizer"]].update(counts)
        if problem:
            self.failed += 1
            if self.failed <= _REPORTED:
                self.failures.append({**where, "wrong": problem, "ids": ids.tolist()})


def run(
    n_random: int,
    n_corrupted: int,
    seed: int,
    tokenizers: Mapping[str, PianoTokenizer],
    pieces: Sequence[Piece],
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Checks `n_random` random and `n_corrupted` corrupted sequences, distributed evenly over the tokenizers.

    Chunk k of a family is made by `default_rng([seed, family, k])` and checked with tokenizer k modulo their number.

    Returns:
        `random` and `corrupted`: counts by kind of sequence; `tokenizers`: counts by tokenizer; `failed` and `failures`
        as in `Totals`.
    """
    fuzzers = {name: Fuzzer(tokenizer, pieces) for name, tokenizer in tokenizers.items()}
    totals = Totals({"random": {}, "corrupted": {}}, {name: Counter() for name in fuzzers})
    names, started = list(fuzzers), time.perf_counter()
    for number, (family, total) in enumerate((("random", n_random), ("corrupted", n_corrupted))):
        size = max(min(CHUNK, -(-total // len(names))), 1)
        for chunk, first in enumerate(range(0, total, size)):
            name, rng = names[chunk % len(names)], np.random.default_rng([seed, number, chunk])
            where = {"tokenizer": name, "family": family, "seed": seed, "chunk": chunk}
            check_chunk(fuzzers[name], where, rng, min(size, total - first), totals)
            if (chunk + 1) % 50 == 0:
                progress(f"{family}: {first + size} of {total}, {totals.failed} failed")
    order = [*RANDOM_KINDS, *OPERATIONS, "several"]
    return {
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "excerpts": {name: len(fuzzer.sequences.excerpts) for name, fuzzer in fuzzers.items()},
        **{
            family: {kind: _in_order(counts[kind]) for kind in order if kind in counts}
            for family, counts in totals.by_kind.items()
        },
        "tokenizers": {name: _in_order(counts) for name, counts in totals.by_tokenizer.items()},
        "failed": totals.failed,
        "failures": totals.failures,
    }


def check_chunk(
    fuzzer: Fuzzer, where: dict[str, Any], rng: np.random.Generator, count: int, totals: Totals
) -> None:
    """Makes and checks `count` sequences of the family in `where`, and adds them to the totals."""
    make = fuzzer.sequences.random if where["family"] == "random" else fuzzer.sequences.corrupted
    sequences = make(rng, count)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning, such as an overflow, is a failure
        counts, problems = fuzzer.check(sequences.ids, _CROSS_CHECKED)
    for row in zip(sequences.labels, counts, problems, sequences.ids, strict=True):
        totals.add(where, *row)


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in COUNTED}


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
