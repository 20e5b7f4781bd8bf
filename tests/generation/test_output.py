"""Files of generated pieces: what pictures and sound hold of a long prompt."""

from __future__ import annotations

import base64
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pianolm import Piece
from pianolm.generation.output import SHOWN_BARS, SHOWN_BEATS, OutputPiece, Page, excerpt, write_output
from pianolm.music.notes import make_notes
from tests.report.test_html import parse

BEAT_SEC = 0.25


def piece(beats: int, bar: int | None) -> Piece:
    """A note on every beat, of rising pitch."""
    at = np.arange(beats)
    notes = make_notes(at * BEAT_SEC, (at + 0.5) * BEAT_SEC, at % 60 + 40, np.full(beats, 70))
    beats_sec = np.arange(beats + 1) * BEAT_SEC
    downbeats_sec = None if bar is None else beats_sec[:-1:bar]
    return replace(Piece.from_notes(notes, beats_sec), downbeats_sec=downbeats_sec)


@pytest.mark.parametrize(
    ("bar", "seam", "kept", "said"),
    [
        (4, 100, 32, "8 bars"),
        (3, 99, 24, "8 bars"),
        (4, 98, 30, "8 bars"),  # the prompt ends within a bar
        (None, 100, 32, "32 beats"),
        (12, 96, 32, "32 beats"),
        (4, 32, 32, ""),
        (None, 32, 32, ""),
        (4, 0, 0, ""),
    ],
)
def test_an_excerpt_begins_some_bars_before_the_new_part(
    bar: int | None, seam: int, kept: int, said: str
) -> None:
    whole = OutputPiece("a", piece(seam + 8, bar), seam, "after")
    shown = excerpt(whole)
    assert shown.prompt_beats == kept
    assert shown.piece.n_beats == kept + 8
    assert np.array_equal(shown.piece.notes["pitch"], whole.piece.notes["pitch"][seam - kept :])
    np.testing.assert_allclose(shown.piece.notes["onset_sec"], np.arange(kept + 8) * BEAT_SEC)
    if said:
        assert shown.remark == f"after · from {said} before the new part on, the MIDI file from the beginning"
    else:
        assert shown is whole


def test_a_long_prompt_is_heard_and_seen_from_its_last_bars_and_written_whole(tmp_path: Path) -> None:
    assert SHOWN_BARS * 4 == SHOWN_BEATS
    whole = piece(80, 4)
    write_output(tmp_path, [OutputPiece("a", whole, 72)], Page("t", "l", {}))
    assert Piece.from_midi(tmp_path / "a.mid").notes.size == 80
    with wave.open(str(tmp_path / "a.wav")) as sound:
        seconds = sound.getnframes() / sound.getframerate()
    assert seconds == pytest.approx((SHOWN_BEATS + 8) * BEAT_SEC + 1.5, abs=0.01)
    page = parse(tmp_path / "index.html")
    (button,) = page.of("button")
    assert float(str(button["data-start"])) == SHOWN_BEATS * BEAT_SEC
    assert any("from 8 bars before the new part on" in text for text in page.text)
    (midi,) = (str(link["href"]) for link in page.of("a") if str(link["download"]).endswith(".mid"))
    assert base64.b64decode(midi.partition(",")[2]) == (tmp_path / "a.mid").read_bytes()
