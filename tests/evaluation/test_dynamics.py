"""`evaluate=dynamics`: a model that copies the pianist, second pianists, the whole stage."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pianolm import PianoLM, Piece
from pianolm.data.cell_store import CellStore, CellStoreWriter, PieceRow
from pianolm.data.reading import downbeat_flags
from pianolm.errors import UserError
from pianolm.evaluation.dynamics import HIDDEN_VELOCITY, measure
from pianolm.evaluation.dynamics_report import PieceDynamics
from pianolm.evaluation.velocity_agreement import PAIR_FRAMES, Agreement, compare
from pianolm.music.beats import FRAMES, BeatAnnotation
from pianolm.music.cells import FRAME_NOTE_DTYPE, FrameNotes
from pianolm.music.notes import make_notes
from pianolm.run import execute
from tests.evaluation.toys import model_directory
from tests.stages.playing import outline
from tests.tiny import tiny

N_BEATS = 16
N_NOTES = 40
MidiFile = Callable[..., Path]
Humans = list[tuple[str, Piece]]


def score(seed: int = 0) -> FrameNotes:
    """A chord of two on each quarter of a beat of the first ten, over many pitches."""
    rng = np.random.default_rng(seed)
    notes = np.zeros(N_NOTES, FRAME_NOTE_DTYPE)
    notes["onset"] = np.repeat(np.arange(N_NOTES // 2), 2) * FRAMES // 2
    notes["end"] = notes["onset"] + rng.integers(10, 80, N_NOTES)
    notes["pitch"] = np.tile([40, 70], N_NOTES // 2) + rng.integers(0, 20, N_NOTES)
    return notes


def human(seed: int, tempo_bpm: float, ahead: bool = False, notes: FrameNotes | None = None) -> Piece:
    """Plays the score in a varying tempo, each note a little early or late; `ahead` adds a note before beat 0."""
    rng = np.random.default_rng(seed)
    notes = score() if notes is None else notes
    beats_sec = 5 + np.cumsum(np.append(0, 60 / tempo_bpm * rng.uniform(0.8, 1.25, N_BEATS)))
    late = rng.integers(-PAIR_FRAMES // 2, PAIR_FRAMES // 2 + 1, notes.size)

    def seconds(frames: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.interp(np.maximum(frames, 0) / FRAMES, np.arange(beats_sec.size), beats_sec)

    onset_sec, offset_sec, pitch = (
        seconds(notes["onset"] + late),
        seconds(notes["end"] + late),
        notes["pitch"],
    )
    if ahead:
        onset_sec, offset_sec = np.append(onset_sec, 4.7), np.append(offset_sec, 4.9)
        pitch = np.append(pitch, 100)
    played = make_notes(onset_sec, offset_sec, pitch, rng.integers(20, 110, pitch.size))
    downbeat = np.arange(beats_sec.size) % 4 == 0
    return Piece.from_notes(played, BeatAnnotation(beats_sec, downbeat))


def store_of(path: Path, humans: Humans, flat: tuple[int, ...] = ()) -> CellStore:
    """Performances by (data set/composition); all for validation."""
    with CellStoreWriter(path) as store:
        for number, (name, piece) in enumerate(humans):
            cells = piece.cells
            row = PieceRow(
                id=f"human {number}",
                source=name.split("/")[0],
                composition=name.split("/")[1],
                split="validation",
                kind="performance",
                flat=number in flat,
                licence="",
                path=f"{number}.mid",
                notes=cells.struck_notes,
                cells=len(cells),
                beats=piece.n_beats,
                segments=cells.segment_velocity.size,
            )
            store.add(row, cells, piece.beats_sec, downbeat_flags(piece))
    return CellStore.open(path)


def sonata(*pieces: Piece) -> Humans:
    return [("toy/sonata", piece) for piece in pieces]


def copying(humans: Humans) -> Callable[[Piece, int, float], Piece]:
    """A model that returns the velocities of the pianist; the piece it is given has one velocity."""

    def render(piece: Piece, number: int, median: float) -> Piece:
        assert np.unique(piece.notes["velocity"]).size == 1
        known = {(n["pitch"], n["onset"]): n["velocity"] for n in humans[number][1].frame_notes}
        velocity = [known[n["pitch"], n["onset"]] for n in piece.frame_notes]
        assert median == np.median(velocity)
        order = np.lexsort((piece.frame_notes["pitch"], piece.frame_notes["onset"]))
        notes = piece.notes.copy()
        notes["velocity"] = np.array(velocity)[order]
        return replace(piece, notes=notes)

    return render


def measured(tmp_path: Path, humans: Humans, beats: int | None = None) -> list[PieceDynamics]:
    store = store_of(tmp_path / "cells", humans)
    return list(measure(copying(humans), store, range(len(humans)), beats))


def test_a_model_that_copies_makes_no_error(tmp_path: Path) -> None:
    (result,) = measured(tmp_path, sonata(human(0, 90)))
    assert result.agreements[""] == Agreement(N_NOTES, 0, pytest.approx(1), 0)
    assert set(result.agreements) == {"", "constant_"}
    assert result.second_pianist == ""


def test_a_constant_is_the_median_of_the_notes(tmp_path: Path) -> None:
    piece = human(0, 90)
    (result,) = measured(tmp_path, sonata(piece))
    velocity = piece.notes["velocity"].astype(float)
    assert result.agreements["constant_"].mae == np.abs(velocity - round(np.median(velocity))).mean()


@pytest.mark.parametrize("ahead", [False, True])
def test_two_pianists_are_paired_on_the_beats_of_the_score(tmp_path: Path, ahead: bool) -> None:
    """In their own tempi, one of them with a note before the first beat."""
    slow, fast = human(1, 50), human(2, 120, ahead)
    assert fast.repairs.added_before == ahead
    results = measured(tmp_path, sonata(slow, fast))
    assert [result.second_pianist for result in results] == ["human 1", "human 0"]

    def of_score(piece: Piece) -> NDArray[np.float64]:
        frames = np.sort(piece.frame_notes[piece.frame_notes["pitch"] < 100], order=["pitch", "onset"])
        return frames["velocity"].astype(float)

    one, other = of_score(slow), of_score(fast)
    assert one.size == N_NOTES
    for result in results:
        figures = result.agreements["human_"]
        assert figures.notes == N_NOTES, "the note before the beats has no partner"
        assert result.agreements["paired_"] == Agreement(figures.notes, 0, pytest.approx(1), 0)
        assert result.agreements["paired_constant_"].notes == N_NOTES
        assert figures.mae == np.abs(one - other).mean()
        assert figures.r == pytest.approx(np.corrcoef(one, other)[0, 1])


def test_the_opening_alone_is_rendered_and_paired(tmp_path: Path) -> None:
    humans = sonata(human(1, 50), human(2, 120, ahead=True))
    for (_, piece), result in zip(humans, measured(tmp_path, humans, beats=4), strict=True):
        onset = piece.frame_notes["onset"]
        expected = int((onset // FRAMES < onset.min() // FRAMES + 4).sum())
        assert result.agreements[""].notes == expected < N_NOTES
        assert expected - 4 <= result.agreements["human_"].notes <= expected


def test_other_beats_other_notes_and_copies_are_no_second_pianist(tmp_path: Path) -> None:
    first = human(1, 50)
    longer = Piece.from_notes(
        first.notes, BeatAnnotation(np.append(first.beats_sec, 60.0), np.zeros(18, bool))
    )
    elsewhere = human(4, 50, notes=score(seed=9))
    once_more = [("copies/sonata", first), ("toy/rondo", human(2, 80))]
    humans = [*sonata(first, first, longer, elsewhere), *once_more]
    assert [result.second_pianist for result in measured(tmp_path / "none", humans)] == [""] * 6
    humans.append(*sonata(human(3, 70)))
    others = [result.second_pianist for result in measured(tmp_path / "one", humans)]
    assert others == ["human 6", "human 6", "", "", "", "", "human 0"]


def evaluated(tmp_path: Path, *overrides: str) -> dict[str, float]:
    pages = ("generate.audio=false", "generate.page=false")
    cfg = tiny(tmp_path, "stage=evaluate", "evaluate=dynamics", *pages, *overrides)
    return execute(cfg, tmp_path / "run")


def given_parts(tmp_path: Path, humans: Humans, flat: tuple[int, ...] = ()) -> list[str]:
    store_of(tmp_path / "cells", humans, flat)
    model = model_directory(tmp_path / "model", velocity=True)
    return [f"upstream.model={model}", f"upstream.cells={tmp_path}/cells"]


def test_the_stage_weighs_pieces_by_their_notes(tmp_path: Path) -> None:
    short = human(5, 100, notes=score()[:12])
    humans = [*sonata(human(0, 60), human(1, 90)), ("toy/rondo", short), ("toy/rondo", human(6, 80))]
    parts = given_parts(tmp_path, humans, flat=(3,))
    metrics = evaluated(tmp_path, *parts, "evaluate.temperature=0.9", "seed=3")
    assert (metrics["pieces"], metrics["flat_pieces_left_out"], metrics["notes"]) == (
        3,
        1,
        2 * N_NOTES + 12,
    )
    assert (metrics["paired_pieces"], metrics["paired_notes"], metrics["paired_fraction"]) == (
        2,
        2 * N_NOTES,
        1.0,
    )
    lm = PianoLM.from_pretrained(tmp_path / "model")
    found = []
    for index in range(3):
        piece = humans[index][1]
        lively = lm.render_dynamics(piece, 0.9, 1.0, seed=3 + index, language_model=True)
        found.append(compare(lively.frame_notes["velocity"], piece.frame_notes["velocity"]))
    notes = sum(figures.notes for figures in found)
    for name in ("mae", "r", "js"):
        mean = sum(figures.notes * getattr(figures, name) for figures in found) / notes
        assert metrics[f"velocity_{name}"] == pytest.approx(mean)
    assert metrics["paired_velocity_mae"] == pytest.approx((found[0].mae + found[1].mae) / 2)
    assert "human_velocity_r" in metrics
    assert "constant_velocity_js" in metrics
    assert "constant_velocity_r" not in metrics
    with (tmp_path / "run" / "pieces.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["second_human"]) for row in rows] == [
        ("human 0", "human 1"),
        ("human 1", "human 0"),
        ("human 2", ""),
    ]
    assert [float(row["velocity_r"]) for row in rows] == pytest.approx([f.r for f in found], abs=1e-4)
    assert rows[2]["paired_notes"] == rows[2]["human_velocity_mae"] == ""
    assert not (tmp_path / "artifacts").exists(), "nothing had to be built"


def test_pieces_are_evenly_spaced_and_seeds_change_the_result(tmp_path: Path) -> None:
    parts = given_parts(tmp_path, sonata(*(human(i, 60) for i in range(5))))
    metrics = evaluated(tmp_path, *parts, "evaluate.pieces=3", "evaluate.beats=2")
    with (tmp_path / "run" / "pieces.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["human 0", "human 2", "human 4"]
    assert metrics["notes"] == sum(int(row["notes"]) for row in rows) < 3 * 12
    again = evaluated(tmp_path, *parts, "evaluate.pieces=3", "evaluate.beats=2")
    other = evaluated(tmp_path, *parts, "evaluate.pieces=3", "evaluate.beats=2", "seed=1")
    assert again["velocity_mae"] == metrics["velocity_mae"] != other["velocity_mae"]


def test_the_page_has_each_piece_flat_rendered_and_as_it_was_played(tmp_path: Path) -> None:
    parts = given_parts(tmp_path, sonata(human(0, 60), human(1, 90)))
    evaluated(tmp_path, *parts, "generate.page=true", "evaluate.temperature=2")
    page = outline(tmp_path / "run" / "index.html")
    names = [
        f"{index:03d}_{index}_{version}" for index in range(2) for version in ("flat", "rendered", "human")
    ]
    assert [text for text in page.text if text in names] == names
    assert sum(text.startswith("correlation with the pianist") for text in page.text) == 3, "each, and all"
    assert (tmp_path / "run" / "rolls.png").stat().st_size > 1000
    flat, rendered, played = (
        Piece.from_midi(tmp_path / "run" / "midi" / f"{name}.mid") for name in names[:3]
    )
    assert set(flat.notes["velocity"]) == {HIDDEN_VELOCITY}
    assert len(set(rendered.notes["velocity"])) > 3
    assert sorted(played.notes["velocity"]) == sorted(human(0, 60).notes["velocity"])


def test_without_a_second_pianist_there_are_no_metrics_of_one(tmp_path: Path) -> None:
    metrics = evaluated(tmp_path, *given_parts(tmp_path, sonata(human(0, 60))), "evaluate.temperature=0")
    assert metrics["paired_pieces"] == 0
    assert not [name for name in metrics if name.startswith(("human_", "paired_v"))]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["evaluate.pieces=0"],
            "evaluate.pieces=0 found, expected a whole number of at least 1 or null",
        ),
        (["evaluate.temperature=-1"], "temperature=-1.0 found, expected"),
        (["evaluate.split=test"], "no performance in it; its performances are in validation"),
        (
            ["upstream.model={tmp}/base"],
            "/base holds a model of mode base, whose tokens have no velocity; give one",
        ),
        (["upstream.cells={tmp}/flat"], "all 1 performances have flat velocities"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(tmp_path: Path, overrides: list[str], message: str) -> None:
    parts = given_parts(tmp_path, sonata(human(0, 60)))
    store_of(tmp_path / "flat", sonata(human(0, 60)), flat=(0,))
    model_directory(tmp_path / "base", velocity=False)
    with pytest.raises(UserError, match=message):
        evaluated(tmp_path, *parts, *(override.format(tmp=tmp_path) for override in overrides))


def test_an_opening_of_one_velocity_is_flat(tmp_path: Path) -> None:
    piece = human(0, 60)
    piece.notes["velocity"][:10] = 64
    parts = given_parts(tmp_path, sonata(human(1, 60), piece))
    metrics = evaluated(tmp_path, *parts, "evaluate.beats=1")
    assert (metrics["pieces"], metrics["flat_pieces_left_out"]) == (1, 1)


def test_a_given_model_measures_a_folder_that_is_prepared_first(tmp_path: Path, midi_file: MidiFile) -> None:
    """On MIDI files, one of them flat."""
    for i in range(6):
        midi_file(tmp_path / f"music/{i}.mid", seed=i, velocity=64 if i == 2 else None)
    model = model_directory(tmp_path / "model", velocity=True)
    folder = ("data=folder", f"data.root={tmp_path}/music", f"upstream.model={model}")
    metrics = evaluated(tmp_path, *folder, "evaluate.split=all", "evaluate.beats=8")
    assert (metrics["pieces"], metrics["flat_pieces_left_out"], metrics["notes"]) == (5, 1, 80)
    assert 0 < metrics["velocity_mae"] < 127
    assert -1 <= metrics["velocity_r"] <= 1
    assert (tmp_path / "run" / "pieces.csv").is_file()
