"""Stage `generate`: its files with and without a prompt, its options, and what it says."""

from __future__ import annotations

import json
import re
import shutil
import wave
from collections.abc import Callable
from pathlib import Path

import mido
import numpy as np
import pytest

from pianolm.lm.sampling_file import write_sampling
from pianolm.music.cells import FRAMES
from pianolm.music.midi import MidiContent, read_midi
from pianolm.music.piece import Piece
from pianolm.tokenizer.tokenizer import DEFAULT_VELOCITY
from tests.music.midi_events import notes, write_events
from tests.stages.playing import HOT, MIDI_ONLY, PROMPT_BEATS, MidiFile, beats_of, generate, outline
from tests.test_chain import run_cli


def test_a_prompt_and_a_model_give_midi_pictures_sound_and_a_page(
    models: Path, midi_file: MidiFile, tmp_path: Path
) -> None:
    prompt = midi_file(tmp_path / "my music.mid")
    metrics, run_dir = generate(tmp_path, models / "velocity", f"prompt={prompt}")
    assert not (tmp_path / "artifacts").exists(), "nothing is built"
    names = [f"piece_{number:02d}.{ending}" for number in range(2) for ending in ("mid", "png", "wav")]
    assert sorted(p.name for p in run_dir.iterdir()) == sorted([*names, "index.html", "metrics.json"])
    assert metrics["pieces"] == 2
    assert metrics["valid_fraction"] == 1.0
    assert metrics["distinct_velocities"] > 1
    for key in (
        "tokens_per_second",
        "beats_per_second",
        "first_beat_seconds",
        "notes_per_beat",
        "mean_velocity",
    ):
        assert metrics[key] > 0
    given = Piece.from_midi(prompt).frame_notes
    for number in range(2):
        piece = Piece.from_midi(run_dir / f"piece_{number:02d}.mid", beats="tempo_map")
        old = piece.frame_notes[piece.frame_notes["onset"] < PROMPT_BEATS * FRAMES]
        assert np.array_equal(old, given), "the piece begins with the prompt"
        with wave.open(str(run_dir / f"piece_{number:02d}.wav")) as sound:
            assert sound.getnframes() / sound.getframerate() > piece.notes["offset_sec"].max()


@pytest.mark.usefixtures("no_pictures")
def test_tempo_changes_lie_on_beats(models: Path, tmp_path: Path) -> None:
    _, run_dir = generate(tmp_path, models / "velocity", *MIDI_ONLY)
    assert not list(run_dir.glob("*.wav"))
    assert not (run_dir / "index.html").exists()
    content = read_midi(run_dir / "piece_00.mid")
    assert content.tempo.tick.size > 1
    assert (content.tempo.tick % content.tempo.ticks_per_quarter == 0).all()


def test_the_page_shows_every_piece_and_the_settings(
    models: Path, midi_file: MidiFile, tmp_path: Path
) -> None:
    prompt = midi_file(tmp_path / "<b>mine.mid")
    _, run_dir = generate(
        tmp_path,
        models / "velocity",
        f'prompt="{prompt}"',
        "generate.temperature=0.8",
        "seed=7",
        "generate.audio=false",
    )
    page = outline(run_dir / "index.html")
    assert len(page.of("img")) == 2
    assert "2 pieces after <b>mine.mid" in page.text
    rows = dict(
        zip(
            page.text[page.text.index("model") :: 3],
            page.text[page.text.index("model") + 1 :: 3],
            strict=False,
        )
    )
    assert {"temperature": "0.8", "seed": "7"}.items() <= rows.items()
    assert not page.of("b")


@pytest.mark.usefixtures("no_pictures")
def test_a_models_own_sampling_holds_is_told_and_gives_way_to_options(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(models / "velocity", tmp_path / "model"))
    own = {"temperature": 5.0, "top_p": 0.5, "by_kind": {"tempo": {"temperature": 0.1}}}
    write_sampling(model, own)

    sampling: dict[str, str] = {}

    def played(name: str, *overrides: str, path: Path = model) -> tuple[bytes, str]:
        settings = ("generate.audio=false", "generate.pieces=1", *overrides)
        metrics, run_dir = generate(tmp_path / name, path, *settings)
        sampling[name] = metrics["sampling"]
        return (run_dir / "piece_00.mid").read_bytes(), capsys.readouterr().out

    plain = models / "velocity"
    as_options = ("generate.temperature=5", "generate.top_p=0.5", "generate.by_kind.tempo.temperature=0.1")
    midi, told = played("own")
    assert midi == played("options", *as_options, path=plain)[0]
    assert "generate: samples as the model suggests; generate=plain does without" in told
    assert sampling["own"] == sampling["options"] == "temperature=5 top_p=0.5 by_kind.tempo.temperature=0.1"
    page = outline(tmp_path / "own" / "run" / "index.html").text
    assert all(
        page[page.index(name) + 1] == value for name, value in (("temperature", "5.0"), ("top p", "0.5"))
    )
    assert page[page.index("tempo temperature") + 1] == "0.1"
    midi, told = played("preset", "generate=plain")
    assert midi == played("nothing", path=plain)[0]
    assert "samples as" not in told
    assert sampling["preset"] == ""
    midi, told = played("one option", "generate.temperature=3")
    assert midi == played("two", "generate.temperature=3", "generate.top_p=0.5", path=plain)[0]
    assert "samples as the model suggests where no option says otherwise" in told
    assert sampling["one option"] == "temperature=3 top_p=0.5"
    generate(tmp_path / "plan", model, "plan=true")
    planned = capsys.readouterr().out
    assert "generate: samples with temperature=5 top_p=0.5 by_kind.tempo.temperature=0.1, as " in planned
    assert str(model / "generation_config.json") in planned


def test_the_same_seed_gives_the_same_files(models: Path, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        _, run_dir = generate(
            tmp_path / name, models / "velocity", f"seed={seed}", "generate.page=false", "generate.pieces=1"
        )
        files.append([(run_dir / f"piece_00.{ending}").read_bytes() for ending in ("mid", "wav", "png")])
    assert files[0] == files[1]
    assert files[0][0] != files[2][0]


def test_velocities_depend_on_the_model(models: Path, midi_file: MidiFile, tmp_path: Path) -> None:
    prompt = midi_file(tmp_path / "my.mid")
    metrics, run_dir = generate(tmp_path, models / "base", f"prompt={prompt}", "generate.audio=false")
    assert metrics["valid_fraction"] == 1.0
    given = Piece.from_midi(prompt)
    for number in range(2):
        notes = Piece.from_midi(run_dir / f"piece_{number:02d}.mid").notes
        assert np.array_equal(notes["velocity"][: given.notes.size], given.notes["velocity"])
        assert set(notes["velocity"][given.notes.size :].tolist()) <= {DEFAULT_VELOCITY}
    assert "<audio" not in (run_dir / "index.html").read_text("utf-8")


@pytest.mark.usefixtures("no_pictures")
def test_the_prompt_grid_is_read_as_chosen(
    models: Path, midi_file: MidiFile, beat_file: Callable[..., Path], tmp_path: Path
) -> None:
    prompt = midi_file(tmp_path / "my.mid")
    beats = []
    for grid in ("tempo_map", str(beat_file(tmp_path / "half.txt", beat_sec=1.0))):
        _, run_dir = generate(
            tmp_path, models / "velocity", f"prompt={prompt}", f"generate.prompt_grid={grid}", *MIDI_ONLY
        )
        content = read_midi(run_dir / "piece_00.mid")
        beats.append(float(content.tempo.seconds(np.array([content.tempo.ticks_per_quarter]))[0]))
    assert beats == pytest.approx([0.5, 1.0], abs=1e-6)


@pytest.mark.usefixtures("no_pictures")
def test_length_tempo_and_prompt_options_have_their_effect(
    models: Path, midi_file: MidiFile, tmp_path: Path
) -> None:
    def first(name: str, *overrides: str) -> tuple[MidiContent, Path]:
        settings = (f"prompt={prompt}", f"generate.temperature={HOT}", *MIDI_ONLY, "generate.page=true")
        _, run_dir = generate(tmp_path / name, models / "velocity", *settings, *overrides)
        return read_midi(run_dir / "piece_00.mid"), run_dir

    prompt = midi_file(tmp_path / "my.mid")
    given = Piece.from_midi(prompt).frame_notes
    _, run_dir = first("whole", "generate.beats=5")
    assert PROMPT_BEATS + 1 < beats_of(run_dir)[0] <= PROMPT_BEATS + 5, "several beats, or fewer by EOS"
    cut, run_dir = first("cut", "generate.prompt_beats=2", "generate.beats=1")
    assert beats_of(run_dir) == [2 + 1]
    assert np.isin(given["pitch"][given["onset"] < 2 * FRAMES], cut.notes["pitch"]).all()
    assert cut.notes.size < given.size
    length = ("generate.tempo_bpm=90", "generate.seconds=0.6")
    new, run_dir = first("new", "generate.with_prompt=false", *length)
    assert beats_of(run_dir) == [PROMPT_BEATS, 1], "the prompt is shown, too"
    assert (run_dir / "prompt.mid").is_file()
    assert new.tempo.tempo_us.tolist() == [round(1e6 * 60 / 90)]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("option", "has_effect"),
    [("top_k=0", False), ("temperature=0.3", True), ("by_kind.pitch.top_k=1", True)],
)
def test_sampling_options_have_their_effect(
    option: str, has_effect: bool, models: Path, tmp_path: Path
) -> None:
    notes = []
    for name, options in (("plain", ()), ("changed", (f"generate.{option}",))):
        settings = (f"generate.temperature={HOT}", "generate.beats=5", *MIDI_ONLY, *options)
        _, run_dir = generate(tmp_path / name, models / "velocity", *settings)
        notes.append(read_midi(run_dir / "piece_00.mid").notes.tolist())
    assert (notes[0] != notes[1]) == has_effect


@pytest.mark.usefixtures("no_pictures")
def test_what_is_left_out_or_shorter_than_asked_for_is_said(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pitches = np.tile([60, 62, 64, 65, 67, 69], 20).tolist()
    doubled = [mido.Message("note_on", note=60, velocity=50), mido.Message("note_on", note=60, velocity=50)]
    prompt = write_events(tmp_path / "song.mid", [*doubled, *notes(pitches)], notes([36] * 3, channel=9))
    settings = (f"prompt={prompt}", "generate.temperature=3", "generate.beats=60", *MIDI_ONLY)
    said = {}
    for end in ("model", "never"):
        metrics, _ = generate(
            tmp_path / end, models / "velocity", *settings, "generate.pieces=4", f"generate.end={end}"
        )
        lines = capsys.readouterr().out.splitlines()
        said[end] = [line for line in lines if "the model ended it at beat" in line]
        about_prompt = [line for line in lines if line.startswith(f"generate: prompt {prompt}: ")]
        assert metrics["valid_fraction"] == 1.0
        assert sum("3 drum note(s) left out" in line for line in about_prompt) == 1
        assert sum("begin together with a note of their pitch" in line for line in about_prompt) == 1
        assert sum("the model sees the last" in line for line in about_prompt) == 1
    assert said["never"] == []
    assert said["model"], "an untrained model ends some pieces"
    assert re.fullmatch(
        r"generate: piece_0\d: the model ended it at beat \d+ of 60; generate\.end=never goes on",
        said["model"][0],
    )


def test_an_interrupted_run_leaves_no_files(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pianolm.generation.output.save_page", fail)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, models / "velocity", "generate.audio=false")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow  # a process; tests/pipeline/test_model_choice.py plays from the command line, too
def test_from_the_command_line(models: Path, midi_file: MidiFile, tmp_path: Path) -> None:
    midi_file(tmp_path / "my.mid")
    model = f"upstream.model={models / 'velocity'}"
    settings = ("stage=generate", model, "prompt=my.mid", "generate.beats=2", *MIDI_ONLY)
    done = run_cli(tmp_path, *settings)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / done.stdout.strip().splitlines()[-1]).read_text())
    assert metrics["pieces"] == 1
    assert (Path(metrics["artifact"]) / "piece_00.mid").is_file()
