"""`evaluate=beats`: beats and downbeats found from the notes of annotated performances, beside two simple baselines.

Only the notes are read, so that neither tempo map nor beat track helps. The baselines: a constant 120 BPM from the
first onset on, and librosa's beat tracker on an onset envelope made of the notes, which needs the extra `evaluate` of
this package. Both count bars of four beats.

Shapes: N notes, B annotated beats, E estimated ones, T frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.csv_file import write_csv
from pianolm.data.reading import ReadingOptions, select_records
from pianolm.data.sources import Record, collect
from pianolm.errors import UserError
from pianolm.evaluation.measure import Measure, report_progress
from pianolm.evaluation.selection import evenly_spaced, performances
from pianolm.music.beat_agreement import best_f_measure, f_measure, without_start
from pianolm.music.beat_estimation import BeatEstimate, estimate_beats, load_tracker
from pianolm.music.beat_features import FRAMES_PER_SEC
from pianolm.music.beats import BeatAnnotation, beat_file_beside, read_beats
from pianolm.music.midi import read_midi
from pianolm.music.notes import Notes
from pianolm.stage import Metrics, StageContext

_CONSTANT_SEC = 0.5
_BAR_BEATS = 4
_OTHER_LEVEL_GAIN = 0.2
"""An estimate is at another metrical level than the annotation if its F-measure rises by this much at another one."""
TRACKER, CONSTANT, LIBROSA = "", "constant_", "librosa_"
_BASS_PITCH = 48


@dataclass(frozen=True)
class Agreement:
    """How an estimate agrees with the annotation.

    Attributes:
        beat_f: F-measure of beats.
        downbeat_f: F-measure of downbeats; NaN where none are annotated.
        any_level_f: The best F-measure of beats at this or another metrical level.
    """

    beat_f: float
    downbeat_f: float
    any_level_f: float

    @property
    def is_other_level(self) -> bool:
        """Whether the estimate is at another metrical level than the annotation."""
        return self.any_level_f >= self.beat_f + _OTHER_LEVEL_GAIN


@dataclass(frozen=True)
class Compared:
    """One performance.

    Attributes:
        record: The performance.
        bar_beats: Beats of most annotated bars, 0 where no two downbeats are annotated.
        notes: Number of its notes.
        seconds: Time from its first onset to its last.
        estimate: What the tracker found.
        seconds_taken: Time that this took.
        agreement: Of the tracker and the baselines, by the prefix of their metrics.
    """

    record: Record
    bar_beats: int
    notes: int
    seconds: float
    estimate: BeatEstimate
    seconds_taken: float
    agreement: Mapping[str, Agreement]


def agreement(
    annotated: BeatAnnotation, beats_sec: NDArray[np.float64], downbeat: NDArray[np.bool_]
) -> Agreement:
    """Compares beats [E] with the annotated ones, without the first five seconds."""
    reference, estimated = without_start(np.unique(annotated.beats_sec)), without_start(beats_sec)
    downbeat_f = float("nan")
    if annotated.downbeat is not None and annotated.downbeat.any():
        bars = np.unique(annotated.beats_sec[annotated.downbeat])
        downbeat_f = f_measure(without_start(bars), without_start(beats_sec[downbeat]))
    return Agreement(f_measure(reference, estimated), downbeat_f, best_f_measure(reference, estimated))


def constant_beats(notes: Notes) -> NDArray[np.float64]:
    """[E] a beat every half second from the first onset to the last."""
    onset_sec = notes["onset_sec"]
    return np.arange(onset_sec[0], onset_sec[-1] + _CONSTANT_SEC, _CONSTANT_SEC)


def onset_envelope(notes: Notes) -> NDArray[np.float64]:
    """[T] strength of the onsets in frames of 20 ms: louder, longer and lower notes count more."""
    frame = np.rint((notes["onset_sec"] - notes["onset_sec"][0]) * FRAMES_PER_SEC).astype(np.int64)
    duration = np.clip(notes["offset_sec"] - notes["onset_sec"], 0.05, 2)
    weight = notes["velocity"] / 64 * np.sqrt(duration) * np.where(notes["pitch"] < _BASS_PITCH, 2.0, 1.0)
    return np.sqrt(np.bincount(frame, weight))


def librosa_beats(notes: Notes) -> NDArray[np.float64]:
    """[E] beats that librosa's tracker (Ellis 2007) finds on the onset envelope of notes."""
    from librosa.beat import beat_track  # slow to import, and optional

    envelope = onset_envelope(notes)
    _, frames = beat_track(
        onset_envelope=envelope, sr=FRAMES_PER_SEC, hop_length=1, trim=False, units="frames"
    )
    return notes["onset_sec"][0] + np.asarray(frames, np.float64) / FRAMES_PER_SEC


def usual_bar(downbeat: NDArray[np.bool_] | None) -> int:
    """Beats of most bars, the fewer of two numbers that are as frequent; 0 where there are no two downbeats.

    Args:
        downbeat: [E] whether each beat is one; None where that is not known.
    """
    lengths = np.diff(np.flatnonzero(downbeat)) if downbeat is not None else np.zeros(0, np.int64)
    return int(np.bincount(lengths).argmax()) if lengths.size else 0


def every_bar(n_beats: int) -> NDArray[np.bool_]:
    """[E] downbeats of bars of four beats."""
    return np.arange(n_beats) % _BAR_BEATS == 0


def run(ctx: StageContext) -> Metrics:
    """Measures, and writes `beats.csv` and `rejects.csv` to the run directory.

    Raises:
        UserError: The tracker or the data cannot be used, or no performance has annotated beats.
    """
    data = ctx.cfg["data"]
    records = select_records(collect(data, ctx.work / "midi").records, data)
    chosen = evenly_spaced(performances(records, ctx.cfg), ctx.cfg["evaluate"]["pieces"])
    baselines = {CONSTANT: constant_beats, LIBROSA: librosa_beats}
    if find_spec("librosa") is None:
        del baselines[LIBROSA]
        print(
            "evaluate: without librosa's baseline; pip install '.[evaluate]' in the checkout adds it",
            flush=True,
        )
    rejects: list[tuple[str, str]] = []
    compared = list(
        report_progress(
            _compared([records[i] for i in chosen], data, baselines, rejects),
            len(chosen),
            lambda results: f"beat F {np.mean([one.agreement[TRACKER].beat_f for one in results]):.3f}",
        )
    )
    if not compared:
        raise UserError(
            f"none of {len(rejects)} performances can be measured, the first: {': '.join(rejects[0])}; choose data "
            "with annotated beats"
        )
    write_csv(ctx.run_dir / "beats.csv", _columns(compared[0]), map(_row, compared))
    write_csv(ctx.run_dir / "rejects.csv", ("path", "reason"), rejects)
    return {"pieces": len(compared), "rejected": len(rejects), **_metrics(compared)}


MEASURE = Measure("beats", needs=(), run=run)


def _compared(
    records: list[Record],
    data: Mapping[str, Any],
    baselines: Mapping[str, Callable[[Notes], NDArray[np.float64]]],
    rejects: list[tuple[str, str]],
) -> Iterator[Compared]:
    network, options = load_tracker(data["tracker"]), ReadingOptions.of(data)
    for record in records:
        try:
            annotated = _annotation(record)
            notes = read_midi(record.midi_path, options.programs, options.pedal).notes
            if not notes.size:
                raise UserError(f"{record.midi_path}: holds no notes; expected a performance")
        except (UserError, OSError) as error:
            rejects.append((record.path, str(error)))
            continue
        start = time.perf_counter()
        estimate = estimate_beats(notes, network)
        taken = time.perf_counter() - start
        found = {TRACKER: agreement(annotated, estimate.beats_sec, estimate.downbeat)}
        for prefix, baseline in baselines.items():
            beats_sec = baseline(notes)
            found[prefix] = agreement(annotated, beats_sec, every_bar(beats_sec.size))
        seconds = float(notes["onset_sec"][-1] - notes["onset_sec"][0])
        bar_beats = usual_bar(annotated.downbeat)
        yield Compared(record, bar_beats, notes.size, seconds, estimate, taken, found)


def _annotation(record: Record) -> BeatAnnotation:
    path = record.beats if isinstance(record.beats, Path) else beat_file_beside(record.midi_path)
    if path is None:
        raise UserError(
            f"{record.midi_path}: no annotated beats; expected a beat file beside it, and data.beats=auto"
        )
    return read_beats(path)


def _metrics(compared: list[Compared]) -> Metrics:
    metrics: Metrics = {}
    for prefix in compared[0].agreement:
        found = [one.agreement[prefix] for one in compared]
        downbeats = [one.downbeat_f for one in found if not np.isnan(one.downbeat_f)]
        metrics |= {
            f"{prefix}beat_f": _mean([one.beat_f for one in found]),
            **({f"{prefix}downbeat_f": _mean(downbeats)} if downbeats else {}),
            f"{prefix}tempo_octave_errors": _mean([one.is_other_level for one in found]),
            f"{prefix}beat_f_any_level": _mean([one.any_level_f for one in found]),
        }
    beat_f = np.array([one.agreement[TRACKER].beat_f for one in compared])
    sure = np.array([one.estimate.confidence for one in compared])
    if beat_f.std() and sure.std():
        metrics["confidence_r"] = round(float(np.corrcoef(beat_f, sure)[0, 1]), 4)
    taken = sum(one.seconds_taken for one in compared)
    metrics["times_real_time"] = round(sum(one.seconds for one in compared) / max(taken, 1e-9), 1)
    return metrics


def _mean(values: list[float] | list[bool]) -> float:
    return round(float(np.mean(values)), 4)


def _columns(first: Compared) -> tuple[str, ...]:
    scores = [
        f"{prefix}{name}" for prefix in first.agreement for name in ("beat_f", "downbeat_f", "any_level_f")
    ]
    bars = ("bar_beats", "bar_beats_found")
    return ("path", "composer", "notes", "seconds", "beats", "confidence", *bars, *scores)


def _row(one: Compared) -> tuple[object, ...]:
    scores = [
        round(value, 4)
        for found in one.agreement.values()
        for value in (found.beat_f, found.downbeat_f, found.any_level_f)
    ]
    estimate = one.estimate
    known = (one.notes, round(one.seconds, 1), estimate.beats_sec.size, round(estimate.confidence, 4))
    bars = (one.bar_beats, usual_bar(estimate.downbeat))
    return (one.record.path, one.record.composer, *known, *bars, *scores)
