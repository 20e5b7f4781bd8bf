"""The longest run of notes that a piece shares with others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pianolm.evaluation.copied_notes import NoteRuns
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FRAME_NOTE_DTYPE, FrameNotes


def melody(*pitches: int, start: int = 0, step: int = 12, shift: int = 0) -> FrameNotes:
    """One note after the other, sixteenths by default."""
    onset = start + shift + step * np.arange(len(pitches))
    notes = np.zeros(len(pitches), FRAME_NOTE_DTYPE)
    notes["onset"], notes["end"], notes["pitch"], notes["velocity"] = onset, onset + step, pitches, 60
    return notes


def longest(pieces: list[FrameNotes], others: list[FrameNotes]) -> list[int]:
    return NoteRuns.of(pieces).longest_in(NoteRuns.of(others)).tolist()


def test_the_longest_run_is_found_wherever_it_stands_and_whatever_its_rubato() -> None:
    rng = np.random.default_rng(0)
    training = [melody(*rng.integers(40, 80, 300).tolist()) for _ in range(3)]
    copied = training[1]["pitch"][50:71].tolist()
    across = [*training[0]["pitch"][-5:].tolist(), *training[1]["pitch"][:5].tolist()]
    pieces = [
        melody(90, *copied, 91, start=5 * FRAMES, shift=3),
        melody(90, *copied, 91, step=24),
        melody(*across),
        melody(90),
        melody(),
        training[2],
    ]
    found = longest(pieces, training)
    assert found[:2] == [21, 1], "other distances are another run"
    assert 5 <= found[2] < 10, "no run goes from one piece to the next"
    assert found[3:] == [0, 0, 300]


def test_nothing_is_shared_with_nothing() -> None:
    assert longest([melody(60, 62)], []) == [0]
    assert longest([], [melody(60, 62)]) == []


def test_the_order_of_a_chord_does_not_matter() -> None:
    one, other = melody(60, 64, 67, step=0), melody(67, 60, 64, step=0)
    assert longest([one], [other]) == [3]


Songs = st.lists(st.lists(st.tuples(st.integers(60, 61), st.integers(0, 1)), max_size=12), max_size=4)


def _notes(song: list[tuple[int, int]]) -> FrameNotes:
    onset = 12 * np.cumsum([distance for _, distance in song]).astype(int)
    notes = melody(*[pitch for pitch, _ in song])
    notes["onset"] = onset
    return notes


@given(songs=Songs, others=Songs)
def test_it_is_the_longest_of_all_runs_compared_one_by_one(
    songs: list[list[tuple[int, int]]], others: list[list[tuple[int, int]]]
) -> None:
    def runs(song: list[tuple[int, int]]) -> set[tuple[tuple[int, int], ...]]:
        notes = _notes(song)
        notes = notes[np.lexsort((notes["pitch"], notes["onset"]))]
        pairs = list(zip(np.diff(notes["onset"], prepend=0).tolist(), notes["pitch"].tolist(), strict=True))
        ends = range(1, len(pairs) + 1)
        return {((0, pairs[a][1]), *pairs[a + 1 : b]) for b in ends for a in range(b)}

    known = set().union(*map(runs, others))
    expected = [max((len(run) for run in runs(song) & known), default=0) for song in songs]
    assert longest(list(map(_notes, songs)), list(map(_notes, others))) == expected
