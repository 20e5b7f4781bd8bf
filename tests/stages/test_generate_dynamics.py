"""Stage `generate` with `generate.mode=dynamics`: the notes of the prompt with new velocities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mido
import numpy as np
import pytest

from pianolm.music.piece import Piece
from tests.music.midi_events import control, notes, signature, tempo, write_events
from tests.stages.playing import HOT, MIDI_ONLY, MidiFile, generate, outline


def test_a_flat_prompt_gets_dynamics_and_keeps_its_notes(
    models: Path, midi_file: MidiFile, beat_file: Callable[..., Path], tmp_path: Path
) -> None:
    prompt = midi_file(tmp_path / "score.mid", velocity=64)
    beat_file(tmp_path / "score_annotations.txt")
    dynamics = ("generate.mode=dynamics", f"generate.temperature={HOT}", f"prompt={prompt}")
    dynamics = (*dynamics, "generate.audio=false")
    metrics, run_dir = generate(tmp_path, models / "velocity", *dynamics)
    assert (metrics["pieces"], metrics["valid_fraction"]) == (2, 1.0)
    assert metrics["distinct_velocities"] > 1
    assert metrics["tokens_per_second"] > 0
    given = Piece.from_midi(prompt, beats="tempo_map").frame_notes
    made = [Piece.from_midi(run_dir / f"piece_{n:02d}.mid", beats="tempo_map").frame_notes for n in range(2)]
    for one in made:
        for key in ("onset", "end", "pitch"):
            assert np.array_equal(one[key], given[key])
        assert len(set(one["velocity"].tolist())) > 1
    assert not np.array_equal(made[0]["velocity"], made[1]["velocity"])
    page = outline(run_dir / "index.html")
    assert [text for text in page.text if text in ("prompt", "piece_00", "piece_01")] == [
        "prompt",
        "piece_00",
        "piece_01",
        "prompt",
    ], "before the pieces, and in the table"
    facts = [text for text in page.text if text.startswith(("before", "after"))]
    assert len(facts) == 3
    assert facts[0].endswith("velocity 64–64")


def velocities_and_rest(path: Path) -> tuple[list[int], bytes]:
    """Velocities of the note-on events of a file, and its other bytes."""
    read = mido.MidiFile(path)
    velocities = [message.velocity for track in read.tracks for message in track if message.type == "note_on"]
    for track in read.tracks:
        for message in track:
            if message.type == "note_on" and message.velocity:
                message.velocity = 1
    read.save(path.with_suffix(".rest"))
    return velocities, path.with_suffix(".rest").read_bytes()


@pytest.mark.usefixtures("no_pictures")
def test_dynamics_copy_the_prompt_file_with_other_velocities(models: Path, tmp_path: Path) -> None:
    """Tempo changes off the beat, doubled notes, overlaps, drums, a lyric and the pedal stay as they are."""
    tempi = [tempo(63), signature(3, 4), tempo(70, wait=130)]
    piano = [
        *notes([60, 62, 64, 65, 67, 62], ticks=70),
        *(mido.Message("note_on", note=50, velocity=v) for v in (40, 90)),
        mido.MetaMessage("lyrics", text="la", time=30),
        control(64, 127),
        *(mido.Message("note_off", note=50, time=20) for _ in range(2)),
    ]
    prompt = write_events(tmp_path / "song.mid", tempi, piano, notes([36, 38, 36], channel=9))
    settings = ("generate.mode=dynamics", f"prompt={prompt}", f"generate.temperature={HOT}", *MIDI_ONLY)
    metrics, run_dir = generate(tmp_path, models / "velocity", *settings)
    given, rest = velocities_and_rest(prompt)
    lively, lively_rest = velocities_and_rest(run_dir / "piece_00.mid")
    assert metrics["valid_fraction"] == 1.0
    assert (run_dir / "prompt.mid").read_bytes() == prompt.read_bytes()
    assert lively_rest == rest
    assert lively[-3:] == given[-3:], "drums"
    assert lively[:-3] != given[:-3]
