"""Stage `generate` with several prompts and with bars; prompts stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mido
import pytest

from pianolm.errors import UserError
from tests.stages.playing import HOT, MIDI_ONLY, MidiFile, generate, headings, outline


@pytest.mark.usefixtures("no_pictures")
def test_several_prompts_give_the_pieces_that_each_gives_alone(
    models: Path, midi_file: MidiFile, tmp_path: Path
) -> None:
    songs = [midi_file(tmp_path / "songs" / f"{name}.mid", seed) for seed, name in enumerate("ba")]
    settings = (*MIDI_ONLY, "generate.pieces=2", f"generate.temperature={HOT}")
    metrics, run_dir = generate(tmp_path, models / "velocity", f"prompt=[{songs[0]},{songs[1]}]", *settings)
    assert (metrics["pieces"], metrics["valid_fraction"]) == (4, 1.0)
    together = {path.stem: path.read_bytes() for path in run_dir.glob("*.mid")}
    assert sorted(together) == ["a_00", "a_01", "b_00", "b_01"]
    for song in songs:
        _, run_dir = generate(tmp_path / song.stem, models / "velocity", f"prompt={song}", *settings)
        for number in range(2):
            alone = (run_dir / f"piece_{number:02d}.mid").read_bytes()
            assert alone == together[f"{song.stem}_{number:02d}"]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("option", ["with_prompt=false", "mode=dynamics"])
def test_prompts_of_a_pattern_are_shown_before_pieces_that_do_not_begin_with_them(
    option: str, models: Path, midi_file: MidiFile, tmp_path: Path
) -> None:
    for name in ("b", "a [1]"):
        midi_file(tmp_path / "my [set]" / f"{name}.mid")
    prompt = f'prompt=["{tmp_path}/my [set]/*.mid","{tmp_path}/my [set]/b.mid"]'
    settings = (prompt, *MIDI_ONLY, "generate.page=true", f"generate.{option}")
    _, run_dir = generate(tmp_path, models / "velocity", *settings)
    assert headings(run_dir) == ["a [1]_prompt", "a [1]_00", "b_prompt", "b_00"]
    assert "2 prompts" in " ".join(outline(run_dir / "index.html").text)
    assert all((run_dir / f"{name}.mid").is_file() for name in headings(run_dir))


@pytest.mark.usefixtures("no_pictures")
def test_bars_of_a_prompt_continue_in_the_midi_file(
    models: Path, midi_file: MidiFile, beat_file: Callable[..., Path], tmp_path: Path
) -> None:
    prompt = midi_file(tmp_path / "my.mid")
    for prompt_beats, signatures in ((16, [(0, 4)]), (-14, [(0, 2), (2, 4)])):
        beat_file(tmp_path / "my.beats.txt")
        _, run_dir = generate(
            tmp_path / str(prompt_beats),
            models / "velocity",
            f"prompt={prompt}",
            f"generate.prompt_beats={prompt_beats}",
            *MIDI_ONLY,
        )
        midi = mido.MidiFile(run_dir / "piece_00.mid")
        found, tick = [], 0
        for message in mido.merge_tracks(midi.tracks):
            tick += message.time
            if message.type == "time_signature":
                found.append((tick // midi.ticks_per_beat, message.numerator))
        assert found == signatures


@pytest.mark.usefixtures("no_pictures")
def test_a_prompt_is_never_overwritten(models: Path, midi_file: MidiFile, tmp_path: Path) -> None:
    _, run_dir = generate(
        tmp_path, models / "velocity", f"prompt={midi_file(tmp_path / 'my.mid')}", *MIDI_ONLY
    )
    before = (run_dir / "piece_00.mid").read_bytes()
    with pytest.raises(UserError, match=r"choose another hydra\.run\.dir"):
        generate(tmp_path, models / "velocity", f"prompt={run_dir / 'piece_00.mid'}", *MIDI_ONLY)
    assert (run_dir / "piece_00.mid").read_bytes() == before
