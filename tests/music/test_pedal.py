"""The sustain pedal of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm.errors import UserError
from pianolm.music.midi import read_midi
from pianolm.music.pedal import extend_by_pedal
from pianolm.music.piece import Piece
from pianolm.music.tracks import Track
from tests.music.midi_events import Event, control, name, note, program, write_events

DOWN, UP = 127, 0


def lengths(path: Path, pedal: str = "extend") -> dict[int, float]:
    """Pitch → length in quarter notes of 100 ticks."""
    notes = read_midi(path, pedal=pedal).notes
    return {int(n["pitch"]): round(float(n["offset_sec"] - n["onset_sec"]) * 2, 6) for n in notes}


def test_the_pedal_extends_notes_only_if_asked(tmp_path: Path) -> None:
    events = [control(64, DOWN), *note(60, 10), *note(62, 10, wait=90), control(64, UP, wait=190)]
    path = write_events(tmp_path / "a.mid", [*events, *note(64, 10, wait=50)])
    assert lengths(path, "ignore") == {60: 0.1, 62: 0.1, 64: 0.1}
    assert lengths(path) == {60: 3.0, 62: 2.0, 64: 0.1}
    assert Piece.from_midi(path, pedal="extend").remarks.pedalled_notes == 2
    with pytest.raises(UserError, match="pedal=half: expected one of ignore, extend"):
        Piece.from_midi(path, pedal="half")


def test_a_pedalled_note_ends_where_its_pitch_is_struck_again(tmp_path: Path) -> None:
    events = [control(64, DOWN), *note(60, 10), *note(60, 10, wait=90), control(64, UP, wait=290)]
    notes = read_midi(write_events(tmp_path / "a.mid", events), pedal="extend").notes
    assert notes["onset_sec"].tolist() == [0.0, 0.5]
    assert notes["offset_sec"].tolist() == [0.5, 2.0]


@pytest.mark.parametrize(
    ("pedal", "expected"),
    [
        ([(64, 0), (63, 200)], 2.0),
        ([(63, 0)], 0.5),
        ([(127, 50), (0, 300)], 3.0),  # pressed in the tick of the note's end
        ([(127, 51), (0, 300)], 0.5),  # pressed too late
        ([(127, 10), (0, 40)], 0.5),  # released while the key is down
        ([(127, 0), (100, 100), (0, 200), (0, 300)], 2.0),
        ([(127, 0)], 4.5),  # never released: to the end of the last note
    ],
)
def test_a_value_from_64_on_is_pedal_down(
    pedal: list[tuple[int, int]], expected: float, tmp_path: Path
) -> None:
    events, at = [], 0
    for value, tick in pedal:
        events.append(control(64, value, wait=tick - at))
        at = tick
    path = write_events(tmp_path / "a.mid", note(60, 50), note(40, 50, wait=400), events)
    assert lengths(path)[60] == expected


def test_reset_controllers_releases_the_pedal(tmp_path: Path) -> None:
    events = [control(64, DOWN), *note(60, 10), control(121, 0, wait=90), *note(40, 10, wait=200)]
    assert lengths(write_events(tmp_path / "a.mid", events)) == {60: 1.0, 40: 0.1}


def test_all_piano_tracks_share_one_pedal_and_others_have_theirs(tmp_path: Path) -> None:
    pedal: list[Event] = [control(64, DOWN), control(64, UP, wait=400)]
    left, strings = [name("left"), *note(40, 10), *pedal], [program(48, 1), *note(70, 10, channel=1)]
    path = write_events(tmp_path / "a.mid", note(60, 10), left, strings)
    notes = read_midi(path, programs="all", pedal="extend").notes
    assert dict(zip(notes["pitch"].tolist(), (notes["offset_sec"] * 2).round(6).tolist(), strict=True)) == {
        40: 4.1,
        60: 4.1,
        70: 0.1,
    }


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20), st.integers(60, 62)), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=12),
)
def test_pedalled_ends_match_a_search_tick_by_tick(
    raw: list[tuple[int, int, int]], pedal: list[tuple[int, bool]]
) -> None:
    onset, length, pitch = np.array(raw).T
    events = sorted(pedal, key=lambda event: event[0])
    ticks, down = np.array([e[0] for e in events], np.int64), np.array([e[1] for e in events], bool)
    end = onset + length
    track = Track("", 0, False, onset, end, pitch, np.full_like(pitch, 64), ticks, down)
    (extended,), count = extend_by_pedal([track], [track])
    last = int(end.max())

    def is_down(tick: int) -> bool:
        before = [state for at, state in events if at <= tick]
        return bool(before and before[-1])

    for index in range(onset.size):
        expected = int(end[index])
        struck = {int(o) for o, p in zip(onset, pitch, strict=True) if p == pitch[index] and o > onset[index]}
        while is_down(expected) and expected not in struck:
            if not any(at > expected and not state for at, state in events) and expected >= last:
                break
            expected += 1
            if (expected, False) in events:  # even if the pedal is pressed again in the same tick
                break
        if any(int(end[index]) > o for o in struck):
            expected = int(end[index])
        assert extended.end[index] == expected
    assert count == int((extended.end > end).sum())
