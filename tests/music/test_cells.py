"""Notes ↔ cells, compared with a piano roll in plain Python, and round trips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pianolm.music.cells import (
    FRAME_MASK,
    FRAMES,
    Cells,
    Collisions,
    cells_to_frames,
    frame_velocity,
    frames_to_cells,
    frames_to_notes,
    frames_to_seconds,
    notes_to_frames,
    resolve_collisions,
    seconds_to_frames,
    segment_of_frame,
    segment_starts,
    strike_after_silence,
)

N_BEATS = 5
N_FRAMES = N_BEATS * FRAMES
NoteTuple = tuple[int, int, int, int]

# Few pitches and short pieces, so that notes of one pitch often overlap.
raw_notes = st.lists(
    st.tuples(
        st.integers(0, N_FRAMES - 1),
        st.one_of(st.integers(1, 6), st.integers(1, 130)),
        st.sampled_from([0, 60, 61, 127]),
        st.integers(1, 127),
    ),
    max_size=40,
)
grids = st.lists(st.floats(0.125, 4.0), min_size=N_BEATS, max_size=N_BEATS).map(
    lambda seconds: np.concatenate([[0.3], 0.3 + np.cumsum(seconds)])
)


def resolved(raw: list[NoteTuple]) -> tuple[Any, Collisions]:
    columns = np.array(raw, np.int64).reshape(-1, 4)
    onset, length, pitch, velocity = columns.T
    return resolve_collisions(onset, onset + length, pitch.astype("u1"), velocity.astype("u1"), N_FRAMES)


def plain_resolved(raw: list[NoteTuple]) -> list[NoteTuple]:
    """(onset, end, pitch, velocity) by the rules in the module's docstring, one note at a time."""
    merged: dict[tuple[int, int], tuple[int, int]] = {}
    for onset, length, pitch, velocity in raw:
        end, loud = merged.get((pitch, onset), (0, 0))
        merged[pitch, onset] = max(end, min(onset + length, N_FRAMES)), max(loud, velocity)
    keys = sorted(merged)
    out = []
    for i, (pitch, onset) in enumerate(keys):
        end, velocity = merged[pitch, onset]
        if i + 1 < len(keys) and keys[i + 1][0] == pitch:
            end = min(end, keys[i + 1][1])
        out.append((onset, end, pitch, velocity))
    return out


def plain_roll(notes: list[NoteTuple]) -> dict[tuple[int, int], dict[str, Any]]:
    """(beat, pitch) → masks, segment velocities and velocity in every frame, one frame at a time."""
    cells: dict[tuple[int, int], dict[str, Any]] = {}
    for onset, end, pitch, velocity in sorted(notes):
        for frame in range(onset, end):
            beat, at = divmod(frame, FRAMES)
            cell = cells.setdefault(
                (beat, pitch), {"sustain": 0, "onset": 0, "velocity": [], "frames": [0] * FRAMES}
            )
            cell["sustain"] |= 1 << at
            cell["frames"][at] = velocity
            if frame == onset:
                cell["onset"] |= 1 << at
            if frame == onset or at == 0:
                cell["velocity"].append(velocity)
    return dict(sorted(cells.items()))


@given(raw_notes)
def test_collisions_are_resolved_as_the_rules_say(raw: list[NoteTuple]) -> None:
    notes, collisions = resolved(raw)
    assert notes.tolist() == plain_resolved(raw)
    assert collisions.merged == len(raw) - len(notes)
    assert (notes["end"] > notes["onset"]).all()


@given(raw_notes)
def test_cells_are_those_of_a_roll_drawn_frame_by_frame(raw: list[NoteTuple]) -> None:
    notes, _ = resolved(raw)
    cells = frames_to_cells(notes, N_BEATS)
    roll = plain_roll(notes.tolist())
    assert list(zip(cells.beat.tolist(), cells.pitch.tolist(), strict=True)) == list(roll)
    assert cells.sustain.tolist() == [cell["sustain"] for cell in roll.values()]
    assert cells.onset.tolist() == [cell["onset"] for cell in roll.values()]
    assert cells.segment_count.tolist() == [len(cell["velocity"]) for cell in roll.values()]
    assert cells.segment_velocity.tolist() == [v for cell in roll.values() for v in cell["velocity"]]
    assert frame_velocity(cells).tolist() == [cell["frames"] for cell in roll.values()]
    assert cells.struck_notes == len(notes)


@given(raw_notes)
def test_cells_convert_back_to_their_notes(raw: list[NoteTuple]) -> None:
    notes, _ = resolved(raw)
    cells = frames_to_cells(notes, N_BEATS)
    np.testing.assert_array_equal(cells_to_frames(cells), notes)
    assert not (cells.onset & ~cells.sustain).any()
    assert (cells.sustain != 0).all()
    assert (strike_after_silence(cells.sustain, cells.onset) == cells.onset).all()


@given(raw_notes, grids)
def test_notes_in_seconds_keep_their_frames(raw: list[NoteTuple], beats_sec: np.ndarray) -> None:
    notes, _ = resolved(raw)
    again, collisions = notes_to_frames(frames_to_notes(notes, beats_sec), beats_sec)
    np.testing.assert_array_equal(again, notes)
    assert collisions == Collisions()


@given(npst.arrays(np.int64, st.integers(0, 30), elements=st.integers(0, N_FRAMES)), grids)
def test_seconds_and_frames_are_inverse(frames: np.ndarray, beats_sec: np.ndarray) -> None:
    np.testing.assert_array_equal(seconds_to_frames(frames_to_seconds(frames, beats_sec), beats_sec), frames)


def test_a_frame_is_the_nearest_48th_of_its_beat() -> None:
    beats_sec = np.array([0.0, 1.0, 1.5])
    seconds = np.array([0.0, 0.49 / 48, 0.51 / 48, 0.999, 1.0, 1.25, 1.5])
    assert seconds_to_frames(seconds, beats_sec).tolist() == [0, 0, 1, 48, 48, 72, 96]


def test_equal_starts_merge_and_restrikes_cut() -> None:
    notes, collisions = resolved([(0, 10, 60, 50), (0, 20, 60, 40), (15, 5, 60, 70), (20, 5, 61, 9)])
    assert notes.tolist() == [(0, 15, 60, 50), (15, 20, 60, 70), (20, 25, 61, 9)]
    assert collisions == Collisions(merged=1, cut=1)


def test_a_note_of_no_length_lasts_one_frame_and_one_at_the_end_stays_inside() -> None:
    notes, _ = resolve_collisions(
        np.array([3, N_FRAMES]),
        np.array([4, N_FRAMES + 1]),
        np.array([1, 2], "u1"),
        np.array([5, 6], "u1"),
        N_FRAMES,
    )
    assert notes.tolist() == [(3, 4, 1, 5), (N_FRAMES - 1, N_FRAMES, 2, 6)]


@given(
    npst.arrays(np.uint64, 20, elements=st.integers(0, 2**48 - 1)),
    npst.arrays(np.uint64, 20, elements=st.integers(0, 2**48 - 1)),
)
def test_segments_of_any_pattern_are_counted_frame_by_frame(sustain: np.ndarray, struck: np.ndarray) -> None:
    onset = strike_after_silence(sustain, struck & sustain)
    index = segment_of_frame(sustain, onset)
    for c in range(sustain.size):
        expected, current = [], -1
        for f in range(FRAMES):
            sounding, strike = int(sustain[c]) >> f & 1, int(onset[c]) >> f & 1
            before = f > 0 and int(sustain[c]) >> (f - 1) & 1
            current += bool(strike or (sounding and f == 0))
            assert strike or before or not sounding or f == 0, "a sustain after silence is a strike"
            expected.append(current if sounding else -1)
        assert index[c].tolist() == expected
    assert (np.bitwise_count(segment_starts(sustain, onset)) == index.max(axis=1) + 1).all()
    assert not (onset & ~FRAME_MASK).any()


@given(
    npst.arrays(np.uint64, 12, elements=st.integers(1, 2**48 - 1)),
    npst.arrays(np.uint64, 12, elements=st.integers(0, 2**48 - 1)),
)
def test_any_cells_become_notes_that_do_not_overlap(sustain: np.ndarray, struck: np.ndarray) -> None:
    """In generated cells a tied note may follow silence, and a note may break off at the end of a beat."""
    onset = strike_after_silence(sustain, struck & sustain)
    beat, pitch = np.repeat(np.arange(6), 2).astype(np.int32), np.tile([60, 61], 6).astype(np.uint8)
    count = int(np.bitwise_count(segment_starts(sustain, onset)).sum())
    velocity = (np.arange(count) % 127 + 1).astype(np.uint8)
    notes = cells_to_frames(Cells(beat, pitch, sustain, onset, velocity, 6))
    sounding = np.zeros((2, 6 * FRAMES), int)
    for note in notes:
        sounding[note["pitch"] - 60, note["onset"] : note["end"]] += 1
    drawn = (sustain[:, None] >> np.arange(FRAMES, dtype=np.uint64) & np.uint64(1)).astype(int)
    np.testing.assert_array_equal(sounding, drawn.reshape(6, 2, FRAMES).transpose(1, 0, 2).reshape(2, -1))
    again = frames_to_cells(notes, 6)
    np.testing.assert_array_equal(again.sustain, sustain)
    assert not (onset & ~again.onset).any(), "every strike is kept"


def test_a_tied_note_after_silence_starts_a_note() -> None:
    held = Cells(
        beat=np.array([1], np.int32),
        pitch=np.array([60], np.uint8),
        sustain=np.array([0b111], np.uint64),
        onset=np.array([0], np.uint64),
        segment_velocity=np.array([77], np.uint8),
        n_beats=2,
    )
    assert cells_to_frames(held).tolist() == [(48, 51, 60, 77)]


@pytest.mark.parametrize("n_beats", [1, 7])
def test_silence(n_beats: int) -> None:
    cells = frames_to_cells(resolved([])[0], n_beats)
    assert (len(cells), cells.n_beats, cells.struck_notes) == (0, n_beats, 0)
    assert cells_to_frames(cells).size == 0
    assert frame_velocity(cells).shape == (0, FRAMES)
