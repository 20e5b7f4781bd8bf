"""The ridge regression that `experiments/dynamics` compares with, and its intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pianolm.data.beat_notes import BeatNotes
from tests.dynamics.toys import make_store, played
from tests.experiment import load

pytest.importorskip("sklearn", reason="the extra bench is not installed")


def test_neighbours_are_those_within_reach() -> None:
    ridge, rng = load("dynamics/ridge.py"), np.random.default_rng(0)
    piece = played()
    music = BeatNotes.of_frames(piece.frame_notes, piece.beats_sec, piece.bar_starts)
    number, from_mean, below, above = ridge._neighbours(music, 1.5)
    for i in rng.integers(0, music.pitch.size, 20):
        near = music.pitch[np.abs(music.onset_beat - music.onset_beat[i]) <= 1.5]
        assert 2 ** number[i] == pytest.approx(near.size)
        assert from_mean[i] * 12 == pytest.approx(music.pitch[i] - near.mean())
        assert (below[i] * 12, above[i] * 12) == pytest.approx(
            (near.max() - music.pitch[i], music.pitch[i] - near.min())
        )


@pytest.mark.parametrize("squares", [False, True])
def test_the_ridge_learns_what_follows_from_the_notes(squares: bool, tmp_path: Path) -> None:
    ridge = load("dynamics/ridge.py")
    store = make_store(tmp_path / "store", ["train"] * 3)
    model = ridge.RidgeDynamics(squares, told=True).fit(ridge.training_music(store))
    piece = played(20, seed=9)
    velocity = model.render(piece, 0, 70.0).notes["velocity"].astype(float)
    assert np.corrcoef(velocity, piece.notes["velocity"])[0, 1] > 0.8
    assert abs(np.median(velocity) - 70) <= 1


def test_intervals_are_of_compositions() -> None:
    report = load("dynamics/report.py")
    pieces = [report.Piece(name, {}) for name in "aabc"]
    values, notes = np.array([0.0, 1.0, 0.5, 0.5]), np.full(4, 10.0)
    assert report.interval(pieces, values, notes) == (0.5, 0.5), "those of `a` are drawn together"
    low, high = report.interval(pieces, np.array([0.0, 0.0, 1.0, 1.0]), notes)
    assert low == 0
    assert 0.9 < high <= 1


def test_figures_are_means_over_the_seeds(tmp_path: Path) -> None:
    report = load("dynamics/report.py")
    for name, r in {"told": 0.5, "told-seed1": 0.6, "told-seed2": 0.7}.items():
        run = tmp_path / name
        run.mkdir()
        figures = {"velocity_mae": 9.0, "velocity_r": r, "velocity_js": 0.2, "constant_velocity_mae": 12.0}
        (run / "metrics.json").write_text(json.dumps({"pieces": 2, "notes": 30, **figures}))
        rows = [f"{i},a/{i}.mid,,{10 * (i + 1)},9,{r},0.2" for i in range(2)]
        head = "id,path,second_human,notes,velocity_mae,velocity_r,velocity_js"
        (run / "pieces.csv").write_text("\n".join([head, *rows]) + "\n")
    row = report._row(tmp_path, "told", "")
    assert row["velocity_r"] == pytest.approx(0.6)
    assert row["velocity_r_seeds"] == [0.5, 0.6, 0.7]
    assert row["velocity_r_95"] == [0.6, 0.6]
    assert row["notes"] == 30
    assert "constant_velocity_mae" not in row
