"""Stage `generate`: its files with and without prompts, plain weights files, and one sentence for each wrong input."""

from __future__ import annotations

import json
import re
import shutil
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import torch

from pianolm.errors import UserError
from pianolm.music.cells import FRAMES
from pianolm.music.midi import MidiContent, read_midi, write_midi
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece
from pianolm.run import execute
from pianolm.tokenizer.tokenizer import DEFAULT_VELOCITY
from tests.music.midi_events import control, notes, signature, tempo, write_events
from tests.report.test_html import Outline
from tests.test_chain import run_cli
from tests.tiny import tiny

PROMPT_BEATS = 16
HOT = 20  # temperature at which an untrained model seldom repeats itself and seldom ends a piece
MIDI_ONLY = ("generate.audio=false", "generate.page=false", "generate.pieces=1")
MidiFile = Callable[..., Path]


def generate(root: Path, model: Path, *overrides: str) -> tuple[dict[str, Any], Path]:
    run_dir = root / "run"
    settings = ("stage=generate", f"upstream.model={model}", "generate.soundfont=null", *overrides)
    return execute(tiny(root, *settings), run_dir), run_dir


def outline(path: Path) -> Outline:
    parsed = Outline()
    parsed.feed(path.read_text("utf-8"))
    return parsed


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
    for key in ("tokens_per_second", "beats_per_second", "first_beat_seconds"):
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


def beats_of(run_dir: Path) -> list[int]:
    """Beats of each piece as the page shows them; silent beats at the end are not in the MIDI file."""
    facts = " ".join(outline(run_dir / "index.html").text)
    return [int(number) for number in re.findall(r"notes · (\d+) beats", facts)]


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


def headings(run_dir: Path) -> list[str]:
    """Names of the pieces on a page, in order."""
    return [str(link["download"]).removesuffix(".mid") for link in outline(run_dir / "index.html").of("a")]


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


def broken_model(source: Path, target: Path, content: bytes | None) -> Path:
    shutil.copytree(source, target)
    weights = target / "model.safetensors"
    if content is None:
        torch.save({"weight": torch.zeros(2)}, weights)
    else:
        weights.write_bytes(content)
    return target


BAD_INPUT = {
    "no file": (["prompt={tmp}/none.mid"], r"none\.mid: no such file"),
    "no MIDI": (["prompt={tmp}/text.mid"], r"text\.mid: not a readable MIDI file"),
    "a folder": (["prompt={tmp}"], r"no such file"),
    "no notes": (["prompt={tmp}/silent.mid"], r"silent\.mid: holds no notes"),
    "no beat track": (
        ["prompt={tmp}/my.mid", "generate.prompt_grid=track"],
        r"my\.mid: no track called beats",
    ),
    "no beat file": (
        ["prompt={tmp}/my.mid", "generate.prompt_grid=file"],
        r"my\.mid: no beat file beside it",
    ),
    "wrong beat file": (["prompt={tmp}/my.mid", "generate.prompt_grid={tmp}/text.mid"], r"text\.mid: line 1"),
    "no such mode": (
        ["generate.mode=improvise"],
        r"generate\.mode=improvise found, expected one of",
    ),
    "dynamics of nothing": (["generate.mode=dynamics"], r"add prompt=FILE\.mid"),
    "dynamics without velocities": (
        ["generate.mode=dynamics", "prompt={tmp}/my.mid", "upstream.model={models}/base"],
        r"model of mode base",
    ),
    "another tokenizer": (
        ["upstream.tokenizer={models}/base"],
        r"upstream\.tokenizer=\S*base: its velocity none is not",
    ),
    "a crowded beat": (["prompt={tmp}/crowded.mid"], r"its last beat has \d+ tokens.*context is 256"),
    "one of them crowded": (
        ["prompt=[{tmp}/my.mid,{tmp}/crowded.mid]"],
        r"^prompt \S*crowded\.mid: its last beat has",
    ),
    "one of them silent": (["prompt=[{tmp}/my.mid,{tmp}/silent.mid]"], r"silent\.mid: holds no notes"),
    "no prompts": (["prompt=[]"], r"prompt=\[\]: an empty list"),
    "a pattern of nothing": (["prompt={tmp}/none*.mid"], r"none\*\.mid: no file matches this pattern"),
    "two of one name": (
        ["prompt=[{tmp}/my.mid,{tmp}/other/my.mid]"],
        r"/my\.mid and \S*other/my\.mid have one name",
    ),
    "one beat file for two": (
        ["prompt=[{tmp}/my.mid,{tmp}/crowded.mid]", "generate.prompt_grid={tmp}/text.mid"],
        r"one beat file for 2 prompts; put a beat file beside each",
    ),
    "no such kind": (
        ["+generate.by_kind.mood={{temperature: 1}}"],
        r"no option 'generate\.by_kind\.mood': the kinds of token are",
    ),
    "too hot": (["generate.temperature=-1"], r"generate\.temperature=-1\.0 found"),
    "no soundfont": (["generate.soundfont={tmp}/none.sf2"], r"soundfont \S*none\.sf2: "),
    "no pieces": (["generate.pieces=0"], r"pieces=0"),
    "no model": (["upstream.model={tmp}/text.mid"], r"text\.mid"),
    "a pickle": (["upstream.model={tmp}/pickle"], r"a pickle found, expected .* safetensors"),
    "half a file": (["upstream.model={tmp}/half"], r"half/model\.safetensors: not readable"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_wrong_input_is_one_sentence_and_leaves_no_files(
    case: str, models: Path, midi_file: MidiFile, tmp_path: Path
) -> None:
    overrides, expected = BAD_INPUT[case]
    for folder in (tmp_path, tmp_path / "other"):
        midi_file(folder / "my.mid")
    (tmp_path / "text.mid").write_text("no music at all\n")
    mido.MidiFile(tracks=[mido.MidiTrack()]).save(tmp_path / "silent.mid")
    crowd = np.arange(128)
    crowded = make_notes(np.zeros(128), 0.1 + crowd / 400, crowd, 1 + crowd % 127)
    write_midi(tmp_path / "crowded.mid", crowded, np.array([0.0, 0.5]))
    broken_model(models / "velocity", tmp_path / "pickle", None)
    broken_model(models / "velocity", tmp_path / "half", b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(UserError, match=expected) as error:
        generate(
            tmp_path, models / "velocity", *(text.format(tmp=tmp_path, models=models) for text in overrides)
        )
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").glob("*")) or not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_prompt_is_never_overwritten(models: Path, midi_file: MidiFile, tmp_path: Path) -> None:
    _, run_dir = generate(
        tmp_path, models / "velocity", f"prompt={midi_file(tmp_path / 'my.mid')}", *MIDI_ONLY
    )
    before = (run_dir / "piece_00.mid").read_bytes()
    with pytest.raises(UserError, match=r"choose another hydra\.run\.dir"):
        generate(tmp_path, models / "velocity", f"prompt={run_dir / 'piece_00.mid'}", *MIDI_ONLY)
    assert (run_dir / "piece_00.mid").read_bytes() == before


def test_an_interrupted_run_leaves_no_files(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pianolm.generation.output.save_page", fail)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, models / "velocity", "generate.audio=false")
    assert list((tmp_path / "run").iterdir()) == []


def test_from_the_command_line(models: Path, midi_file: MidiFile, tmp_path: Path) -> None:
    midi_file(tmp_path / "my.mid")
    model = f"upstream.model={models / 'velocity'}"
    settings = ("stage=generate", model, "prompt=my.mid", "generate.beats=2", *MIDI_ONLY)
    done = run_cli(tmp_path, *settings)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / done.stdout.strip().splitlines()[-1]).read_text())
    assert metrics["pieces"] == 1
    assert (Path(metrics["artifact"]) / "piece_00.mid").is_file()
