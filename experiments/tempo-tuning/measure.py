"""Measures the tempo tokens of the validation performances of cell stores; writes results.jsonl.

python measure.py OUT NAME=CELLS …    a row for each cell store and scheme, and one with the beats of an example
"""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.results import RESULTS, Row, write_rows
from pianolm.data.cell_store import CellStore
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import TUNINGS

SCHEMES = ("log50", "log50_tuned")
ORDER = 2
EXAMPLE_BEATS = slice(16, 80)


class AdaptiveModel:
    """Learns the symbols that follow each context of up to `ORDER` symbols while it codes them.

    The probability of a symbol behind a context is that of the context shorter by one, updated by what has followed
    the context before: p_k(x) = (n_k(x) + p_{k-1}(x)) / (N_k + 1). The shortest one is uniform.
    """

    def __init__(self, symbols: int) -> None:
        self._symbols = symbols
        self._counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)

    def bits(self, sequence: Sequence[int]) -> float:
        """Bits of a sequence, whose symbols are learned."""
        return sum(
            self._bits(tuple(sequence[max(at - ORDER, 0) : at]), one) for at, one in enumerate(sequence)
        )

    def _bits(self, context: tuple[int, ...], symbol: int) -> float:
        p = 1 / self._symbols
        for length in range(len(context) + 1):
            counts = self._counts[context[len(context) - length :]]
            p = (counts[symbol] + p) / (counts.total() + 1)
            counts[symbol] += 1
        return -math.log2(p)


def measure(store: CellStore, scheme: str) -> Row:
    """Cost, changes and errors of the tempo tokens of the validation performances."""
    tempo = TempoBins(scheme)
    bin_model, tuning_model = AdaptiveModel(tempo.bins), AdaptiveModel(TUNINGS)
    bits, notes, beats, changes, errors_ms = 0.0, 0, 0, 0, []
    pieces = [index for index in store.split("validation") if store.pieces[index].kind == "performance"]
    for index in pieces:
        times = np.asarray(store.beats_sec(index))
        tuning = tempo.best_tuning(times)
        bins = tempo.encode(times, tuning)
        bits += bin_model.bits(bins.tolist()) + (tuning_model.bits([tuning]) if tempo.tuned else 0)
        errors_ms.append(1000 * np.abs(tempo.decode(bins, times[0], tuning) - times)[1:])
        changes += int(np.count_nonzero(np.diff(bins)))
        notes, beats = notes + store.pieces[index].notes, beats + bins.size
    p50, p95 = np.percentile(np.concatenate(errors_ms), [50, 95]).tolist()
    return {
        "pieces": len(pieces),
        "beats": beats,
        "notes": notes,
        "tempo_bits_per_note": bits / notes,
        "changes_per_100_beats": 100 * changes / beats,
        "beat_ms_p50": p50,
        "beat_ms_p95": p95,
    }


def example(store: CellStore) -> Row:
    """Beats of the first validation piece: its tempi, and those that each scheme decodes."""
    index = store.split("validation")[0]
    times = np.asarray(store.beats_sec(index))
    row: Row = {"example": store.pieces[index].id, "first_beat": EXAMPLE_BEATS.start}
    row["file"] = (60 / np.diff(times))[EXAMPLE_BEATS].round(2).tolist()
    for scheme in SCHEMES:
        tempo = TempoBins(scheme)
        tuning = tempo.best_tuning(times)
        row[scheme] = (
            tempo.bpm_of_tuning[tuning][tempo.encode(times, tuning)][EXAMPLE_BEATS].round(2).tolist()
        )
    return row


def main(out: Path, stores: dict[str, Path]) -> None:
    opened = {name: CellStore.open(path) for name, path in stores.items()}
    rows = [
        {"data": name, "scheme": scheme, **measure(store, scheme)}
        for name, store in opened.items()
        for scheme in SCHEMES
    ]
    write_rows(out / RESULTS, [*rows, example(next(iter(opened.values())))])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), {name: Path(path) for name, path in (arg.split("=", 1) for arg in sys.argv[2:])})
