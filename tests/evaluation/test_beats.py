"""`evaluate=beats`: agreement with annotated beats, and the baselines."""

from __future__ import annotations

import csv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.evaluation.beats import (
    agreement,
    constant_beats,
    every_bar,
    librosa_beats,
    onset_envelope,
    usual_bar,
)
from pianolm.music.beats import BeatAnnotation
from pianolm.music.midi import write_midi
from pianolm.music.notes import make_notes
from pianolm.run import execute
from tests.music.test_beat_estimation import BEAT_SEC, waltz
from tests.music.toy_tracker import bass_tracker
from tests.tiny import tiny

MidiFile = Callable[..., Path]
BEATS = np.arange(80) * 0.6
DOWNBEAT = np.arange(80) % 4 == 0


def test_an_estimate_at_twice_the_tempo_is_told_apart() -> None:
    annotated = BeatAnnotation(BEATS, DOWNBEAT)
    same = agreement(annotated, BEATS + 0.03, DOWNBEAT)
    assert (same.beat_f, same.downbeat_f, same.any_level_f, same.is_other_level) == (1, 1, 1, False)
    double = agreement(annotated, np.arange(160) * 0.3, np.arange(160) % 4 == 0)
    assert double.beat_f == pytest.approx(2 / 3, abs=0.02)
    assert double.is_other_level
    assert double.any_level_f > 0.95
    wrong = agreement(annotated, BEATS * 1.13, DOWNBEAT)
    assert wrong.beat_f < 0.4
    assert not wrong.is_other_level


def test_unknown_downbeats_have_no_measure() -> None:
    assert np.isnan(agreement(BeatAnnotation(BEATS), BEATS, DOWNBEAT).downbeat_f)
    assert np.isnan(agreement(BeatAnnotation(BEATS, np.zeros(80, bool)), BEATS, DOWNBEAT).downbeat_f)


def test_baselines_begin_with_the_first_onset() -> None:
    notes = make_notes([2.2, 3.9], [2.4, 4.0], [60, 60], [64, 64])
    np.testing.assert_allclose(constant_beats(notes), [2.2, 2.7, 3.2, 3.7, 4.2])
    assert every_bar(6).tolist() == [True, False, False, False, True, False]


def test_the_onset_envelope_weighs_loud_long_and_low_notes() -> None:
    def strength(velocity: int, seconds: float, pitch: int) -> float:
        return float(onset_envelope(make_notes([1.0], [1.0 + seconds], [pitch], [velocity]))[0])

    assert strength(64, 0.5, 60) < min(strength(90, 0.5, 60), strength(64, 1, 60), strength(64, 0.5, 40))
    envelope = onset_envelope(make_notes([1, 1.5], [1.2, 1.7], [60, 60], [64, 64]))
    assert np.flatnonzero(envelope).tolist() == [0, 25]


def test_the_usual_bar_has_the_most_frequent_number_of_beats() -> None:
    assert usual_bar(np.array([0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0], bool)) == 3
    assert usual_bar(np.array([1, 0, 1, 0, 0, 1], bool)) == 2
    assert usual_bar(np.array([0, 1, 0, 0], bool)) == 0
    assert usual_bar(None) == 0


@pytest.mark.slow
def test_librosa_finds_a_steady_beat() -> None:
    """That of the bass notes, or that of all notes, which is twice as fast."""
    pytest.importorskip("librosa", reason="without the extra evaluate")
    period_sec = np.diff(librosa_beats(waltz(60, 2.0)))
    assert np.median(period_sec) == pytest.approx(
        BEAT_SEC / round(BEAT_SEC / np.median(period_sec)), rel=0.05
    )
    assert BEAT_SEC / 2.1 < np.median(period_sec) < BEAT_SEC * 1.05
    assert np.std(period_sec) < 0.1 * np.median(period_sec)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three performances with beat files and one without."""
    root = tmp_path / "music"
    root.mkdir()
    for i in range(4):
        notes = waltz(30 + i, 1.0)
        write_midi(root / f"{i}.mid", notes, np.arange(80) * 0.5)
        if i:
            rows = (f"{1 + BEAT_SEC * b:.6f}\t0\t{'b' if b % 3 else 'db'}\n" for b in range(30 + i))
            (root / f"{i}_annotations.txt").write_text("".join(rows))
    bass_tracker().save(tmp_path)
    return root


def test_the_stage_measures_annotated_performances(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pianolm.evaluation.beats.librosa_beats", lambda notes: notes["onset_sec"][::3])
    data = ("data=folder", f"data.root={folder}", f"data.tracker={tmp_path}")
    cfg = tiny(tmp_path, "stage=evaluate", "evaluate=beats", "evaluate.split=all", *data)
    metrics = execute(cfg, tmp_path / "run")
    assert (metrics["pieces"], metrics["rejected"]) == (3, 1)
    assert metrics["beat_f"] == 1
    assert metrics["downbeat_f"] == pytest.approx(2 / 3, abs=0.01)  # bars of six beats instead of three
    assert metrics["tempo_octave_errors"] == 0
    assert float(metrics["constant_beat_f"]) < 0.6
    assert ("librosa_beat_f" in metrics) == (find_spec("librosa") is not None)
    assert float(metrics["times_real_time"]) > 1
    with (tmp_path / "run" / "beats.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["path"] for row in rows) == ["1.mid", "2.mid", "3.mid"]
    assert all(0.5 < float(row["confidence"]) <= 1 for row in rows)
    assert {(row["bar_beats"], row["bar_beats_found"]) for row in rows} == {("3", "6")}
    with (tmp_path / "run" / "rejects.csv").open(newline="") as file:
        (reject,) = csv.DictReader(file)
    assert reject["path"] == "0.mid"
    assert "no annotated beats" in reject["reason"]


def test_without_annotations_nothing_is_measured(tmp_path: Path, midi_file: MidiFile) -> None:
    for i in range(3):
        midi_file(tmp_path / "music" / f"{i}.mid", seed=i)
    bass_tracker().save(tmp_path)
    data = ("data=folder", f"data.root={tmp_path}/music", f"data.tracker={tmp_path}", "evaluate.split=all")
    with pytest.raises(UserError, match="none of 3 performances can be measured"):
        execute(tiny(tmp_path, "stage=evaluate", "evaluate=beats", *data), tmp_path / "run")
