"""Pieces: reading with every source of beats, and writing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import symusic
from hypothesis import given
from hypothesis import strategies as st

from experiments.written_pieces import differences_over_round_trips
from pianolm.errors import UserError
from pianolm.music.beats import BeatAnnotation, Repairs
from pianolm.music.cells import FRAMES, Collisions
from pianolm.music.midi import write_midi
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece
from tests.music.midi_events import note, write_events

Writer = Callable[..., Path]


def test_auto_takes_the_beat_file_beside_else_the_tempo_map(
    tmp_path: Path, midi_file: Writer, beat_file: Writer
) -> None:
    path = midi_file(tmp_path / "a.mid")
    by_tempo = Piece.from_midi(path)
    np.testing.assert_allclose(by_tempo.beats_sec, np.arange(by_tempo.n_beats + 1) * 0.5)
    assert by_tempo.downbeats_sec is None
    beat_file(tmp_path / "a_annotations.txt", beat_sec=0.6)
    by_file = Piece.from_midi(path)
    np.testing.assert_allclose(np.diff(by_file.beats_sec), 0.6)
    np.testing.assert_allclose(by_file.downbeats_sec, np.arange(5) * 2.4)
    np.testing.assert_array_equal(Piece.from_midi(path, "file").beats_sec, by_file.beats_sec)
    np.testing.assert_array_equal(Piece.from_midi(path, "tempo_map").beats_sec, by_tempo.beats_sec)


def test_known_bars_reach_the_file(tmp_path: Path, midi_file: Writer, beat_file: Writer) -> None:
    beat_file(tmp_path / "a_annotations.txt", beat_sec=0.6)
    piece = Piece.from_midi(midi_file(tmp_path / "a.mid"))
    piece.to_midi(tmp_path / "b.mid")
    written = symusic.Score(str(tmp_path / "b.mid"))
    assert [(s.time, s.numerator, s.denominator) for s in written.time_signatures] == [(0, 4, 4)]


def test_beats_from_a_path_an_array_and_a_track(tmp_path: Path, midi_file: Writer, beat_file: Writer) -> None:
    path = midi_file(tmp_path / "a.mid")
    annotation = beat_file(tmp_path / "elsewhere.txt", beat_sec=0.75)
    for beats in (annotation, str(annotation), np.arange(17) * 0.75, [0.0, 0.75]):
        np.testing.assert_allclose(np.diff(Piece.from_midi(path, beats).beats_sec), 0.75)
    with pytest.raises(UserError, match="no track called beats"):
        Piece.from_midi(path, "track")
    with pytest.raises(UserError, match="no beat file beside it; expected one of a_annotations"):
        Piece.from_midi(path, "file")


def test_a_file_without_notes_gives_one_sentence(tmp_path: Path) -> None:
    write_midi(tmp_path / "a.mid", make_notes([], [], [], []), np.arange(3.0))
    with pytest.raises(UserError, match="holds no notes"):
        Piece.from_midi(tmp_path / "a.mid")


def test_one_velocity_is_flat(tmp_path: Path, midi_file: Writer) -> None:
    assert Piece.from_midi(midi_file(tmp_path / "a.mid", velocity=64)).flat
    lively = Piece.from_midi(midi_file(tmp_path / "b.mid"))
    assert not lively.flat
    assert lively.with_flat(True).flat
    assert Piece.from_midi(tmp_path / "b.mid", flat=True).flat


def test_repairs_and_extension_are_counted() -> None:
    notes = make_notes([-0.7, 5.0], [0.0, 6.2], [60, 62], [64, 65])
    piece = Piece.from_notes(notes, [0.0, 0.5, 0.500001, 1.0, 2.0])
    assert piece.repairs == Repairs(merged=1, added_before=2, added_after=9)
    assert piece.beats_sec[piece.repairs.added_before] == 0.0
    assert piece.beats_sec[-1 - piece.repairs.added_after] == 2.0


def test_cells_of_a_piece_match_its_notes() -> None:
    notes = make_notes([0.0, 0.5, 0.75], [0.75, 0.5, 1.0], [60, 60, 62], [10, 20, 30])
    piece = Piece.from_notes(notes, [0.0, 0.5, 1.0])
    assert piece.frame_notes.tolist() == [(0, 48, 60, 10), (48, 49, 60, 20), (72, 96, 62, 30)]
    assert piece.collisions.cut == 1
    assert piece.cells.beat.tolist() == [0, 1, 1]
    assert piece.cells.pitch.tolist() == [60, 60, 62]
    assert piece.cells.onset.tolist() == [1, 1, 1 << 24]
    assert piece.cells.sustain.tolist() == [2**48 - 1, 1, (2**24 - 1) << 24]


def test_a_piece_survives_its_cells_and_its_file(tmp_path: Path, midi_file: Writer) -> None:
    piece = Piece.from_midi(midi_file(tmp_path / "a.mid", seed=3), np.cumsum(np.linspace(0, 1, 20)))
    from_cells = Piece.from_cells(piece.cells, piece.beats_sec)
    np.testing.assert_array_equal(from_cells.frame_notes, piece.frame_notes)
    from_cells.to_midi(tmp_path / "b.mid")
    again = Piece.from_midi(tmp_path / "b.mid", "tempo_map")
    np.testing.assert_array_equal(again.frame_notes, piece.frame_notes)
    shared = min(again.beats_sec.size, piece.beats_sec.size)
    np.testing.assert_allclose(
        again.beats_sec[:shared], piece.beats_sec[:shared] - piece.beats_sec[0], atol=1e-5
    )


def test_pretty_midi_gets_the_notes_in_seconds(tmp_path: Path, midi_file: Writer) -> None:
    piece = Piece.from_midi(midi_file(tmp_path / "a.mid"))
    notes = piece.to_pretty_midi().instruments[0].notes
    assert [(n.start, n.end, n.pitch, n.velocity) for n in notes] == piece.notes.tolist()


def test_real_pieces_survive_their_cells(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("asap/Chopin/**/[A-Z]*.mid"))[::25]
    paths += sorted(shared_data.glob("pop909/POP909/*/*.mid"))[::100]
    assert len(paths) > 10
    for path in paths:
        piece = Piece.from_midi(path)
        again = Piece.from_cells(piece.cells, piece.beats_sec)
        np.testing.assert_array_equal(again.frame_notes, piece.frame_notes, str(path))
        assert again.notes.size == piece.notes.size - piece.collisions.merged
        # Without collisions the notes are the same, each moved to its nearest frame.
        if piece.collisions == Collisions():
            order = np.lexsort((piece.notes["onset_sec"], piece.notes["pitch"]))
            back = np.lexsort((again.notes["onset_sec"], again.notes["pitch"]))
            moved_sec = np.abs(again.notes[back]["onset_sec"] - piece.notes[order]["onset_sec"])
            assert moved_sec.max() <= np.diff(piece.beats_sec).max() / FRAMES / 2 + 1e-9, path
            np.testing.assert_array_equal(again.notes[back]["velocity"], piece.notes[order]["velocity"])


TIMES = 3


@given(
    st.lists(
        st.tuples(
            st.floats(-5, 40),
            st.one_of(st.floats(0, 0.01), st.floats(0, 9)),
            st.sampled_from([0, 60, 61, 127]),
            st.integers(1, 127),
        ),
        min_size=1,
        max_size=30,
    ),
    st.lists(
        st.one_of(st.floats(0.125, 4), st.just(0.5), st.just(4.0), st.just(0.125)), min_size=1, max_size=30
    ),
    st.one_of(st.none(), st.sets(st.integers(0, 30))),
    st.floats(-2, 200),
)
def test_a_written_piece_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    raw: list[tuple[float, float, int, int]],
    intervals: list[float],
    down: set[int] | None,
    start_sec: float,
) -> None:
    """Overlapping notes, notes between frames, silence, any bars and tempi; any number of times."""
    onset, length, pitch, velocity = np.array(raw).T
    beats_sec = start_sec + np.concatenate([[0], np.cumsum(intervals)])
    notes = make_notes(onset + start_sec, onset + length + start_sec, pitch.astype(int), velocity.astype(int))
    downbeat = None if down is None else np.isin(np.arange(beats_sec.size), list(down))
    piece = Piece.from_notes(notes, BeatAnnotation(beats_sec, downbeat))
    assert differences_over_round_trips(piece, tmp_path_factory.mktemp("trip") / "a.mid", TIMES) == []


def test_a_nested_note_keeps_its_end(tmp_path: Path) -> None:
    path = write_events(
        tmp_path / "a.mid", note(60, 400, velocity=40), note(60, 100, 90, channel=1, wait=100)
    )
    piece = Piece.from_midi(path)
    assert piece.frame_notes.tolist() == [(0, 48, 60, 40), (48, 96, 60, 90)]
    assert differences_over_round_trips(piece, tmp_path / "b.mid", TIMES) == []


def test_pieces_from_cells_and_long_silence_are_read_as_they_were(tmp_path: Path) -> None:
    notes = make_notes([100.0, 100.1], [100.2, 103.0], [60, 60], [50, 60])
    piece = Piece.from_notes(notes, np.arange(250) * 0.5)
    for written in (piece, Piece.from_cells(piece.cells, piece.beats_sec, bar_starts=np.array([1, 7, 240]))):
        assert differences_over_round_trips(written, tmp_path / "a.mid", TIMES) == []


def test_a_silence_longer_than_the_longest_delta_time_is_kept(tmp_path: Path) -> None:
    notes = make_notes([0.0, 15_000.0], [0.2, 15_001.0], [60, 62], [50, 60])
    piece = Piece.from_notes(notes, np.arange(60_003) * 0.25)
    assert differences_over_round_trips(piece, tmp_path / "a.mid", 2) == []


def test_a_written_file_whose_tempi_were_edited_is_read_as_any_other(tmp_path: Path) -> None:
    """Its marker then describes another grid, whose last beat is merged away by the repairs."""
    notes = make_notes([0.1, 2.9], [0.2, 3.4], [60, 62], [50, 60])
    Piece.from_notes(notes, np.arange(8) * 0.5).to_midi(tmp_path / "a.mid")
    score = symusic.Score(tmp_path / "a.mid")
    assert score.markers
    score.tempos.append(symusic.Tempo(6 * score.ticks_per_quarter, 100_000))
    score.dump_midi(tmp_path / "b.mid")
    piece = Piece.from_midi(tmp_path / "b.mid")
    assert piece.notes["offset_sec"].max() <= piece.beats_sec[-1]
    assert differences_over_round_trips(piece, tmp_path / "c.mid", TIMES) == []


def test_real_pieces_are_read_as_they_were(shared_data: Path, tmp_path: Path) -> None:
    beats = {
        path: path.with_name("beat_midi.txt")
        for path in sorted(shared_data.glob("pop909/POP909/*/*.mid"))[::80]
    }
    beats |= dict.fromkeys(sorted(shared_data.glob("asap/*/**/[A-Z]*.mid"))[::90], "auto")
    assert len(beats) >= 20
    for path, source in beats.items():
        assert differences_over_round_trips(Piece.from_midi(path, source), tmp_path / "a.mid", TIMES) == [], (
            path
        )


def test_a_piece_is_shown_in_one_line() -> None:
    notes = make_notes([0, 1], [1, 2], [60, 62], [64, 70])
    beats = BeatAnnotation(np.arange(9) * 0.5, np.arange(9) % 4 == 0)
    assert repr(Piece.from_notes(notes, beats)) == "Piece(2 notes, 8 beats, bars of 4 beats, 4.0 s)"
    assert (
        repr(Piece.from_notes(notes, np.arange(9) * 0.5)) == "Piece(2 notes, 8 beats, no bars known, 4.0 s)"
    )


def test_a_part_of_a_piece_ends_at_a_beat() -> None:
    onset = np.arange(16) * 0.25
    notes = make_notes(onset, onset + 0.2, np.full(16, 60) + np.arange(16), np.full(16, 70))
    beats = BeatAnnotation(np.arange(10) * 0.5, np.arange(10) % 4 == 0)
    piece = Piece.from_notes(notes, beats)
    part = piece.from_beat(2, 3)
    assert part.n_beats == 3
    np.testing.assert_allclose(part.beats_sec, [0, 0.5, 1.0, 1.5])
    np.testing.assert_array_equal(part.bar_starts, [2])
    assert part.notes["offset_sec"].max() <= 1.5
    np.testing.assert_array_equal(
        part.cells.onset, piece.cells.onset[(piece.cells.beat >= 2) & (piece.cells.beat < 5)]
    )
    rest = piece.from_beat(2)
    np.testing.assert_array_equal(piece.from_beat(2, 99).cells.sustain, rest.cells.sustain)
