"""MIDI files: round trips, and comparison with pretty_midi as an independent reader."""

from __future__ import annotations

import warnings
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm.errors import UserError
from pianolm.music.cells import FRAMES, frames_to_notes, notes_to_frames, resolve_collisions
from pianolm.music.midi import TICKS_PER_BEAT, read_midi, write_midi
from pianolm.music.notes import make_notes
from tests.music.midi_events import note, write_events

N_BEATS = 6
TICK_SEC = 1e-6  # a written tempo is rounded to a microsecond a beat
AGREE_SEC = 2e-6

raw_notes = st.lists(
    st.tuples(
        st.integers(0, N_BEATS * FRAMES - 1), st.integers(1, 100), st.integers(0, 127), st.integers(1, 127)
    ),
    min_size=1,
    max_size=40,
)
grids = st.lists(st.floats(0.125, 4.0), min_size=N_BEATS, max_size=N_BEATS).map(
    lambda seconds: np.concatenate([[0], np.cumsum(seconds)])
)


@given(raw_notes, grids)
def test_notes_on_frames_are_restored_exactly(
    tmp_path_factory: pytest.TempPathFactory, raw: list[tuple[int, int, int, int]], beats_sec: np.ndarray
) -> None:
    onset, length, pitch, velocity = np.array(raw).T
    frames, _ = resolve_collisions(
        onset, onset + length, pitch.astype("u1"), velocity.astype("u1"), N_BEATS * FRAMES
    )
    path = tmp_path_factory.mktemp("midi") / "piece.mid"
    write_midi(path, frames_to_notes(frames, beats_sec), beats_sec)
    content = read_midi(path)
    assert content.tempo.ticks_per_quarter % FRAMES == 0
    grid = content.tempo.seconds(np.arange(N_BEATS + 1) * content.tempo.ticks_per_quarter)
    np.testing.assert_allclose(grid, beats_sec, atol=N_BEATS * TICK_SEC)
    again, collisions = notes_to_frames(content.notes, grid)
    np.testing.assert_array_equal(again, frames)
    assert (collisions.merged, collisions.cut) == (0, 0)


def test_a_written_file_plays_at_its_tempo_in_another_reader(tmp_path: Path) -> None:
    beats_sec = np.array([0.0, 0.5, 1.3, 1.9, 5.9, 6.025])
    onset = np.array([0.0, 0.9, 1.3, 3.9, 5.9])
    path = tmp_path / "rubato.mid"
    write_midi(path, make_notes(onset, onset + 0.1, [60, 61, 62, 63, 64], [10, 20, 30, 40, 127]), beats_sec)
    notes = pretty_midi.PrettyMIDI(str(path)).instruments[0].notes
    np.testing.assert_allclose(
        [n.start for n in notes], onset, atol=0.5 * 4 / TICKS_PER_BEAT
    )  # within half a tick at 15 BPM
    assert [(n.pitch, n.velocity) for n in notes] == [(60, 10), (61, 20), (62, 30), (63, 40), (64, 127)]


def test_equal_tempi_are_written_once(tmp_path: Path) -> None:
    path = tmp_path / "steady.mid"
    write_midi(path, make_notes([0.0], [1.0], [60], [64]), np.arange(9) * 0.5)
    assert read_midi(path).tempo.tempo_us.tolist() == [500_000]
    assert [path] == list(tmp_path.iterdir()), "no partial file is left"


def time_signatures(path: Path) -> list[tuple[float, int, int]]:
    """(beat, numerator, denominator) as mido reads them."""
    at, found = 0, []
    midi = mido.MidiFile(path)
    for message in mido.merge_tracks(midi.tracks):
        at += message.time
        if message.type == "time_signature":
            found.append((at / midi.ticks_per_beat, message.numerator, message.denominator))
    return found


@pytest.mark.parametrize(
    ("downbeats", "expected"),
    [
        (None, []),
        ([], []),
        ([4], []),
        ([0, 4, 8], [(0, 4, 4)]),
        ([1, 4, 7, 10], [(0, 1, 4), (1, 3, 4)]),
        ([5, 8, 11], [(0, 2, 4), (2, 3, 4)]),
        ([0, 3, 6, 8, 10, 13], [(0, 3, 4), (6, 2, 4), (10, 3, 4)]),
        ([-4, 0, 4, 99], [(0, 4, 4)]),
        ([0, 40], [(0, 40, 4)]),
    ],
)
def test_known_bars_become_time_signatures(
    downbeats: list[int] | None, expected: list[tuple[float, int, int]], tmp_path: Path
) -> None:
    beats_sec = 2 + np.cumsum([0, *np.tile([0.4, 0.5, 0.6], 15)])
    on_beats = None if downbeats is None else np.interp(downbeats, np.arange(46), beats_sec, -50, 900)
    notes = make_notes(beats_sec[:-1], beats_sec[1:], [60] * 45, [64] * 45)
    write_midi(tmp_path / "a.mid", notes, beats_sec, on_beats)
    assert time_signatures(tmp_path / "a.mid") == expected
    onsets = read_midi(tmp_path / "a.mid").notes["onset_sec"]
    np.testing.assert_allclose(onsets, beats_sec[:-1] - 2, atol=1e-4)


def test_every_quarter_of_a_written_file_is_a_beat(tmp_path: Path) -> None:
    """The grid that a sequencer draws, as pretty_midi reads it."""
    beats_sec = np.array([0.0, 0.5, 1.3, 1.9, 5.9, 6.025, 6.525])
    write_midi(tmp_path / "a.mid", make_notes([0.0], [6.5], [60], [64]), beats_sec)
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    quarters = [midi.tick_to_time(beat * midi.resolution) for beat in range(beats_sec.size)]
    np.testing.assert_allclose(quarters, beats_sec, atol=beats_sec.size * TICK_SEC)
    assert len(midi.instruments) == 1
    assert (midi.instruments[0].program, midi.instruments[0].is_drum) == (0, False)


def test_tempo_changes_are_followed_within_a_note(tmp_path: Path) -> None:
    tempi = [
        mido.MetaMessage("set_tempo", tempo=400_000),
        mido.MetaMessage("set_tempo", tempo=1_000_000, time=100),
        mido.MetaMessage("set_tempo", tempo=250_000, time=200),
    ]
    content = read_midi(write_events(tmp_path / "a.mid", tempi, note(60, 300, wait=50)))
    assert content.tempo.tick.tolist() == [0, 100, 300]
    assert content.notes.tolist() == [(0.2, 0.4 + 2 + 0.125, 60, 64)]


def test_without_a_tempo_120_bpm_holds_until_the_first(tmp_path: Path) -> None:
    tempi = [mido.MetaMessage("set_tempo", tempo=1_000_000, time=100)]
    content = read_midi(write_events(tmp_path / "a.mid", tempi, note(60, 200)))
    assert content.notes["offset_sec"].tolist() == [0.5 + 1]


def test_of_several_tempi_at_one_tick_the_last_counts(tmp_path: Path) -> None:
    tempi = [mido.MetaMessage("set_tempo", tempo=300_000), mido.MetaMessage("set_tempo", tempo=800_000)]
    content = read_midi(write_events(tmp_path / "a.mid", tempi, note(60, 100)))
    assert content.notes["offset_sec"].tolist() == [0.8]


def test_tracks_are_merged_without_drums_and_beats(tmp_path: Path) -> None:
    beats = [mido.MetaMessage("track_name", name=" Beats "), *note(37, 10), *note(37, 10, wait=90)]
    content = read_midi(
        write_events(tmp_path / "a.mid", note(60, 100), note(72, 50), note(36, 100, channel=9), beats)
    )
    assert content.notes["pitch"].tolist() == [60, 72]
    assert content.track_beats_sec is not None
    assert content.track_beats_sec.tolist() == [0.0, 0.5]


def test_a_note_of_no_length_is_kept(tmp_path: Path) -> None:
    content = read_midi(write_events(tmp_path / "a.mid", note(60, 0)))
    assert content.notes.tolist() == [(0.0, 0.0, 60, 64)]


@pytest.mark.parametrize("content", [b"", b"MThd", b"RIFF" + bytes(64), b"seconds\tlabel\n" * 9])
def test_a_file_that_is_not_midi_gives_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable MIDI file") as error:
        read_midi(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_gives_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_midi(tmp_path / "none.mid")


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        (([0.0], [1.0], [60], [128]), "velocity 128"),
        (([0.0], [1.0], [60], [0]), "velocity 0"),
        (([0.0], [1.0], [128], [64]), "pitch 128"),
        (([0.0], [1.0], [-1], [64]), "pitch -1"),
        (([1.0], [0.5], [60], [64]), "ends before it starts"),
        (([np.nan], [0.5], [60], [64]), "finite"),
        (([0.0, 1.0], [0.5], [60], [64]), "one length"),
    ],
)
def test_arrays_out_of_range_give_one_sentence(arrays: tuple[list[float], ...], found: str) -> None:
    with pytest.raises(UserError, match=f"^mine: .*{found}"):
        make_notes(*arrays, name="mine")


def differences(path: Path) -> list[str]:
    """Differences between our notes of a file and pretty_midi's.

    Two deliberate differences are ignored: pretty_midi drops notes of zero length, and at a note-off it ends all
    sounding notes of the pitch, whereas we end the earliest one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # about tempi on later tracks, which we read too
        midi = pretty_midi.PrettyMIDI(str(path))
    rows = [(n.start, n.end, n.pitch, n.velocity) for i in midi.instruments if not i.is_drum for n in i.notes]
    theirs = in_order(np.array(rows).reshape(-1, 4))
    notes = read_midi(path).notes
    ours = np.stack([notes[key].astype(float) for key in ("onset_sec", "offset_sec", "pitch", "velocity")], 1)
    ours = in_order(ours[ours[:, 1] > ours[:, 0]])
    if len(theirs) != len(ours):
        return [f"{len(ours)} notes, {len(theirs)} in pretty_midi"]
    overlaps = (ours[1:, 2] == ours[:-1, 2]) & (ours[1:, 0] < ours[:-1, 1])
    alone = ~(np.append(overlaps, False) | np.append(False, overlaps))
    away = np.abs(ours - theirs)
    away[:, 1] *= alone
    return [f"column {c} differs by {away[:, c].max()}" for c in range(4) if away[:, c].max() > AGREE_SEC]


def in_order(rows: np.ndarray) -> np.ndarray:
    """[N, 4] rows of onset, end, pitch, velocity sorted by pitch, onset and velocity."""
    return rows[np.lexsort((rows[:, 3], rows[:, 0].round(5), rows[:, 2]))]


def test_generated_files_read_like_pretty_midi(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    beats_sec = np.concatenate([[0], np.cumsum(rng.uniform(0.2, 2, 64))])
    onset = np.sort(rng.uniform(0, beats_sec[-2], 400))
    notes = make_notes(onset, onset + 0.05, np.arange(400) % 88 + 21, rng.integers(1, 128, 400))
    write_midi(tmp_path / "a.mid", notes, beats_sec)
    assert differences(tmp_path / "a.mid") == []


def test_real_files_read_like_pretty_midi(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("asap/Bach/*/*/[A-Z]*.mid"))[::12]
    paths += sorted(shared_data.glob("acpas/**/*.mid"))[::60]
    assert len(paths) > 10
    assert {path.name: found for path in paths if (found := differences(path))} == {}


@given(raw_notes, grids)
def test_notes_on_frames_need_not_be_resolved(
    tmp_path_factory: pytest.TempPathFactory, raw: list[tuple[int, int, int, int]], beats_sec: np.ndarray
) -> None:
    onset, length, pitch, velocity = np.array(raw).T
    frames, _ = resolve_collisions(
        onset, onset + length, pitch.astype("u1"), velocity.astype("u1"), N_BEATS * FRAMES
    )
    notes, folder = frames_to_notes(frames, beats_sec), tmp_path_factory.mktemp("midi")
    for bars in (None, beats_sec[1::3]):
        write_midi(folder / "resolved.mid", notes, beats_sec, bars)
        write_midi(folder / "given.mid", notes, beats_sec, bars, frames)
        assert (folder / "given.mid").read_bytes() == (folder / "resolved.mid").read_bytes()
