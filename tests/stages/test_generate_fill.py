"""Stage `generate` with `generate.mode=fill`: beats of the prompt written anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pianolm.errors import UserError
from pianolm.lm.llama import FILL_SHARE
from pianolm.music.piece import Piece
from tests.stages.playing import HOT, MidiFile, generate, outline


@pytest.fixture
def filling(models: Path, tmp_path: Path) -> Path:
    """The untrained model with velocities, said to be trained to fill gaps."""
    directory = tmp_path / "filling"
    shutil.copytree(models / "velocity", directory)
    config = directory / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), FILL_SHARE: 0.3}))
    return directory


def test_a_gap_is_filled_and_shown_before_and_after(
    filling: Path, midi_file: MidiFile, beat_file: Callable[..., Path], tmp_path: Path
) -> None:
    prompt = midi_file(tmp_path / "song.mid")
    beat_file(tmp_path / "song_annotations.txt")
    fill = ("generate.mode=fill", "generate.fill=[4,8]", f"generate.temperature={HOT}", f"prompt={prompt}")
    metrics, run_dir = generate(tmp_path, filling, *fill, "generate.audio=false")
    assert (metrics["pieces"], metrics["valid_fraction"]) == (2, 1.0)
    assert metrics["beats_per_second"] > 0
    given = Piece.from_midi(prompt, beats=tmp_path / "song_annotations.txt")
    for number in range(2):
        made = Piece.from_midi(run_dir / f"piece_{number:02d}.mid", beats="tempo_map")
        outside = [
            [
                (int(n["onset"]), int(n["pitch"]), int(n["velocity"]))
                for n in piece.frame_notes
                if not 4 * 48 <= n["onset"] < 8 * 48
            ]
            for piece in (given, made)
        ]
        assert outside[0] == outside[1]
    page = outline(run_dir / "index.html")
    facts = [text for text in page.text if text.startswith(("before", "after"))]
    assert len(facts) == 3
    assert "gap from" in (run_dir / "index.html").read_text("utf-8")


def test_what_cannot_be_filled_is_one_sentence(
    models: Path, filling: Path, midi_file: MidiFile, tmp_path: Path
) -> None:
    prompt = f"prompt={midi_file(tmp_path / 'song.mid')}"
    for model, options, words in (
        (filling, ("generate.fill=[0,2]",), "generate.mode=fill needs a piece"),
        (filling, (prompt,), "neither found, expected one of them"),
        (filling, (prompt, "generate.fill=[0,2]", "generate.fill_bars=[1,2]"), "both found"),
        (filling, (prompt, "generate.fill=[0,2000]"), r"generate.fill=\[0, 2000\] found"),
        (filling, (prompt, "generate.fill_bars=[7,2]"), r"generate.fill_bars=\[7, 2\] found"),
        (models / "velocity", (prompt, "generate.fill=[0,2]"), "was not trained to fill gaps"),
    ):
        with pytest.raises(UserError, match=words):
            generate(tmp_path, model, "generate.mode=fill", *options)
