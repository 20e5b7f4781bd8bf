"""How well estimated beats agree with annotated ones: the F-measure of beat tracking.

The definition is that of `mir_eval.beat.f_measure` (Davies, Degara and Plumbley 2009): an estimate within 70 ms of an
annotated beat is a hit, each beat counts once, and the first five seconds are left out.

Shapes: B annotated beats, E estimated ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

TOLERANCE_SEC = 0.07
SKIPPED_SEC = 5.0


def without_start(beats_sec: NDArray[np.float64]) -> NDArray[np.float64]:
    """The beats from 5 seconds on."""
    return beats_sec[beats_sec >= SKIPPED_SEC]


def f_measure(annotated_sec: NDArray[np.float64], estimated_sec: NDArray[np.float64]) -> float:
    """Harmonic mean of precision and recall, 0–1; 0 where either has no beats.

    Args:
        annotated_sec: [B] ascending times.
        estimated_sec: [E] ascending times.
    """
    if not annotated_sec.size or not estimated_sec.size:
        return 0.0
    return 2 * _hits(annotated_sec, estimated_sec) / (annotated_sec.size + estimated_sec.size)


def _hits(annotated_sec: NDArray[np.float64], estimated_sec: NDArray[np.float64]) -> int:
    """Size of the largest matching; on a line, taking the earliest pair each time is best."""
    annotated, estimated = annotated_sec.tolist(), estimated_sec.tolist()
    hits = a = e = 0
    while a < len(annotated) and e < len(estimated):
        difference = estimated[e] - annotated[a]
        if abs(difference) <= TOLERANCE_SEC:
            hits += 1
        a += difference >= -TOLERANCE_SEC
        e += difference <= TOLERANCE_SEC
    return hits


def other_levels(beats_sec: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """The beats at other metrical levels: half, a third, double and three times the tempo, in every phase."""
    for factor in (2, 3):
        for phase in range(factor):
            yield beats_sec[phase::factor]
        if beats_sec.size:
            places = np.arange((beats_sec.size - 1) * factor + 1) / factor
            yield np.interp(places, np.arange(beats_sec.size), beats_sec)


def best_f_measure(annotated_sec: NDArray[np.float64], estimated_sec: NDArray[np.float64]) -> float:
    """The F-measure if errors of the metrical level are forgiven: the best of the estimate and `other_levels` of it."""
    levels = (estimated_sec, *other_levels(estimated_sec))
    return max(f_measure(annotated_sec, level) for level in levels)
