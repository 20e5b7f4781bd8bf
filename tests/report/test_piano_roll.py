"""Piano rolls: what is where in the picture, read from its pixels and its axes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece
from pianolm.report.piano_roll import draw_piano_roll, save_piano_roll


def piece(beats: int = 16, first_sec: float = 0.0, downbeats: list[float] | None = None) -> Piece:
    onset = first_sec + np.arange(beats) * 0.5
    notes = make_notes(onset, onset + 0.4, 48 + np.arange(beats) % 24, 30 + 5 * (np.arange(beats) % 16))
    grid = first_sec + np.arange(beats + 1) * 0.5
    known = None if downbeats is None else np.array(downbeats)
    return Piece(notes=notes, beats_sec=grid, flat=False, downbeats_sec=known)


def pixels(drawn: Figure) -> np.ndarray:
    drawn.canvas.draw()
    return np.asarray(drawn.canvas.buffer_rgba())[..., :3] / 255  # type: ignore[attr-defined]


@pytest.mark.parametrize("first_sec", [0.0, 7.0])
def test_a_note_is_painted_where_and_as_loud_as_it_sounds(first_sec: float) -> None:
    music = piece(first_sec=first_sec)
    drawn, (left, top, right, bottom) = draw_piano_roll(music)
    image = pixels(drawn)
    tempo, roll = drawn.axes[:2]
    assert (roll.get_position().x0, roll.get_position().x1) == pytest.approx((left, right))
    assert (1 - roll.get_position().y1, 1 - tempo.get_position().y0) == pytest.approx((top, bottom))
    notes = next(c for c in roll.collections if isinstance(c, PolyCollection))
    lowness = []
    for index in (0, 5, 15):
        note = music.notes[index]
        middle_sec = float(note["onset_sec"] + note["offset_sec"]) / 2 - first_sec
        x = left + (right - left) * middle_sec / 8.0
        y = roll.transData.transform((middle_sec, float(note["pitch"])))[1]
        colour = image[image.shape[0] - 1 - round(y), round(x * image.shape[1])]
        expected = notes.cmap(notes.norm(float(note["velocity"])))[:3]
        np.testing.assert_allclose(colour, expected, atol=0.02)
        lowness.append(np.abs(colour - np.array(to_rgb(roll.get_facecolor()))).sum())
    assert lowness == sorted(lowness), "the louder, the further from the ground"


def test_pitches_have_names_and_beats_numbers() -> None:
    drawn, _ = draw_piano_roll(piece())
    drawn.canvas.draw()
    roll = drawn.axes[1]
    assert [label.get_text() for label in roll.get_yticklabels()] == ["C3", "C4"]
    above = roll.child_axes[0]
    assert [label.get_text() for label in above.get_xticklabels()] == ["0", "4", "8", "12", "16"]
    np.testing.assert_allclose(above.get_xticks(), [0, 2, 4, 6, 8])
    assert "beats" in [text.get_text() for text in roll.texts]


def test_known_bars_are_numbered_instead() -> None:
    drawn, _ = draw_piano_roll(piece(downbeats=[0.5, 2.0, 3.5, 5.0, 6.5]))
    drawn.canvas.draw()
    above = drawn.axes[1].child_axes[0]
    assert [label.get_text() for label in above.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    np.testing.assert_allclose(above.get_xticks(), [0.5, 2.0, 3.5, 5.0, 6.5])
    assert "bars" in [text.get_text() for text in drawn.axes[1].texts]


def test_the_prompt_is_shaded_to_its_end() -> None:
    plain, (left, _, right, _) = draw_piano_roll(piece())
    marked, _ = draw_piano_roll(piece(), prompt_end_beat=4)
    changed = np.flatnonzero((pixels(plain) != pixels(marked)).any(axis=(0, 2)))
    width = pixels(plain).shape[1]
    end = left + (right - left) * 4 / 16
    assert changed.min() == pytest.approx(left * width, abs=3)
    assert changed.max() == pytest.approx(end * width, abs=3)


@pytest.mark.parametrize("low", [40, 84])
def test_the_word_prompt_covers_no_note(low: int) -> None:
    notes = make_notes([0.0, 1.0], [1.0, 2.0], [low, 90], [80, 80])
    drawn, _ = draw_piano_roll(Piece.from_notes(notes, np.arange(9) * 0.5), prompt_end_beat=4)
    drawn.canvas.draw()
    roll = drawn.axes[1]
    word = next(text for text in roll.texts if text.get_text() == "prompt")
    assert word.get_window_extent().y0 > roll.transData.transform((1.0, 90.45))[1]


def test_a_long_piece_has_a_wider_picture_up_to_a_limit() -> None:
    widths = [draw_piano_roll(piece(beats))[0].get_figwidth() for beats in (16, 160, 2000)]
    assert widths[0] < widths[1] < widths[2] <= 60


def test_a_title_with_signs_of_mathematics_is_text(tmp_path: Path) -> None:
    save_piano_roll(piece(), tmp_path / "a.png", "a $b_1 and \\frac{")
    image = imread(tmp_path / "a.png")
    assert image.shape[1] == 1820
    assert (image[:40, :400, :3] < 0.5).any(), "the title stands at the top left"


@pytest.mark.parametrize("title", ["夜想曲", os.fsdecode(b"f\xfcr"), "two\nlines"])
def test_any_name_of_a_file_can_be_a_title(title: str, tmp_path: Path) -> None:
    save_piano_roll(piece(), tmp_path / "a.png", f"{title}: 16 notes")
    assert (imread(tmp_path / "a.png")[:40, :400, :3] < 0.5).any()


def test_one_silent_beat_can_be_drawn() -> None:
    silent = Piece(notes=make_notes([], [], [], []), beats_sec=np.array([0.0, 0.5]), flat=False)
    drawn, _ = draw_piano_roll(silent, prompt_end_beat=3)
    assert pixels(drawn).std() > 0
