"""Beat grids: annotation formats, repairs, and extension to cover the notes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm.errors import UserError
from pianolm.music.beats import (
    BEAT_FILE_ENDINGS,
    MAX_BEAT_SEC,
    MAX_BEATS,
    MIN_BEAT_SEC,
    Repairs,
    beat_file_beside,
    extend_beats,
    read_beats,
    repair_beats,
)

SLACK_SEC = 1e-6

FORMATS = {
    "asap": ("0.5\t0.5\tdb,3/4,-4\n1.0\t1.0\tb\n1.5\t1.5\tbR\n2.0\t2.0\tdb\n", [1, 0, 0, 1]),
    "asap, signature on a beat": (
        "0.5\t0.5\tb,4/4,0\n1.0\t1.0\tb\n1.5\t1.5\tdb,2/4\n2.0\t2.0\tb,,1\n",
        [0, 0, 1, 0],
    ),
    "acpas": ("0.5\tdb,3/4,-4\n1.0\tb\n1.5\tb\n2.0\tdb\n", [1, 0, 0, 1]),
    "pop909 in four": ("0.5 1.0 1.0\n1.0 0.0 0.0\n1.5 1.0 0.0\n2.0 0.0 1.0\n", [1, 0, 0, 1]),
    "pop909 in two": ("0.5 1.0 0.0\n1.0 0.0 0.0\n1.5 1.0 0.0\n2.0 0.0 0.0\n", [1, 0, 1, 0]),
    "pop909 audio": ("0.5\t1.0\n1.0\t2.0\n1.5\t3.0\n2.0\t1.0\n", [1, 0, 0, 1]),
    "plain": ("0.5\n1.0\n\n1.5\n2.0\n", None),
    "byte order mark": ("\ufeff0.5\n1.0\n1.5\n2.0\n", None),
}

BAD = {
    "another kind of annotation": ("C:maj 0.5\nG:maj 1.0\n", "line 1 starts with 'C:maj'"),
    "header": ("time,label\n0.5,db\n", "line 1 starts with 'time,label'"),
    "unknown label": ("0.5\t0.5\tchorus\n1.0\t1.0\tverse\n", "line 1 has the label 'chorus'"),
    "label on a later row": ("0.5\tdb\n1.0\tnotes\n", "line 2 has the label 'notes'"),
    "not a number": ("0.5\nnan\n", "line 2 starts with 'nan'"),
    "empty": ("\n \n", "empty"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_recognised_from_its_rows(name: str, tmp_path: Path) -> None:
    text, downbeat = FORMATS[name]
    path = tmp_path / "beats.txt"
    path.write_text(text, "utf-8")
    annotation = read_beats(path)
    assert annotation.beats_sec.tolist() == [0.5, 1.0, 1.5, 2.0]
    if downbeat is None:
        assert annotation.downbeat is None
    else:
        assert annotation.downbeat is not None
        assert annotation.downbeat.tolist() == [bool(flag) for flag in downbeat]


@pytest.mark.parametrize("name", BAD)
def test_an_unknown_format_gives_one_sentence(name: str, tmp_path: Path) -> None:
    text, found = BAD[name]
    path = tmp_path / "beats.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError) as error:
        read_beats(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert found in message
    assert "expected" in message
    assert "\n" not in message


def test_a_missing_and_a_binary_file_give_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such beat file"):
        read_beats(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not a text file"):
        read_beats(tmp_path / "binary.txt")


@given(st.lists(st.one_of(st.floats(0, 1000), st.floats(3, 4), st.just(2.0)), max_size=60))
def test_a_repaired_grid_lies_within_15_and_480_bpm(times: list[float]) -> None:
    given_sec = np.array(times)
    if not times or max(times) - min(times) < MIN_BEAT_SEC:
        with pytest.raises(UserError, match="expected at least 2"):
            repair_beats(given_sec)
        return
    beats, repairs = repair_beats(given_sec)
    intervals = np.diff(beats)
    assert intervals.min() >= MIN_BEAT_SEC - SLACK_SEC
    assert intervals.max() <= MAX_BEAT_SEC + SLACK_SEC
    assert beats.size == given_sec.size - repairs.merged + repairs.inserted
    assert beats[0] == given_sec.min()
    assert beats[-1] > given_sec.max() - MIN_BEAT_SEC, "the last beat is kept, or merged into its neighbour"
    np.testing.assert_array_equal(repair_beats(beats)[0], beats)


@given(st.lists(st.floats(MIN_BEAT_SEC, MAX_BEAT_SEC), min_size=1, max_size=50), st.floats(-10, 10))
def test_a_good_grid_is_unchanged(intervals: list[float], start_sec: float) -> None:
    beats = start_sec + np.concatenate([[0], np.cumsum(intervals)])
    repaired, repairs = repair_beats(beats)
    np.testing.assert_array_equal(repaired, beats)
    assert not repairs.any


def test_each_repair_is_counted() -> None:
    beats, repairs = repair_beats([0.0, 1.0, 1.000001, 0.5, 2.0, 2.05, 11.0])
    np.testing.assert_allclose(beats, [0, 0.5, 1, 2, 5, 8, 11])
    assert repairs == Repairs(reordered=1, merged=2, inserted=2)
    assert repairs.any


@pytest.mark.parametrize("bad", [[], [1.0], [1.0, 1.05], [0.0, np.nan], [0.0, np.inf], [0.0, 1e9]])
def test_beats_that_make_no_grid_give_one_sentence(bad: list[float]) -> None:
    with pytest.raises(UserError, match=r"^mine: .*(expected|finite)"):
        repair_beats(bad, "mine")


@given(
    st.lists(st.floats(MIN_BEAT_SEC, MAX_BEAT_SEC), min_size=1, max_size=20),
    st.lists(st.tuples(st.floats(-60, 150), st.floats(0, 20)), min_size=1, max_size=20),
)
def test_an_extended_grid_keeps_its_beats_and_covers_every_note(
    intervals: list[float], notes: list[tuple[float, float]]
) -> None:
    beats = np.concatenate([[0], np.cumsum(intervals)])
    onset = np.array([start for start, _ in notes])
    offset = onset + [length for _, length in notes]
    grid = extend_beats(beats, onset, offset)
    first = int(np.searchsorted(grid, beats[0]))
    np.testing.assert_array_equal(grid[first : first + beats.size], beats)
    assert grid[0] <= onset.min() + SLACK_SEC
    assert grid[-1] >= offset.max() - SLACK_SEC
    assert grid[-1] > onset.max()
    assert np.diff(grid).min() >= MIN_BEAT_SEC - SLACK_SEC
    assert np.diff(grid).max() <= MAX_BEAT_SEC + SLACK_SEC


def test_beats_are_added_at_the_median_of_the_nearest_eight() -> None:
    intervals = np.array([1.0] * 5 + [0.5] * 3 + [2.0] * 10 + [0.25] * 5 + [3.0] * 3)
    beats = np.concatenate([[10], 10 + np.cumsum(intervals)])
    grid = extend_beats(beats, np.array([7.5]), np.array([beats[-1] + 0.6]))
    np.testing.assert_allclose(grid[:4], [7, 8, 9, 10])
    np.testing.assert_allclose(np.diff(grid)[-3:], 0.25)


def test_no_beat_is_added_if_none_is_needed() -> None:
    beats = np.arange(5.0)
    np.testing.assert_array_equal(extend_beats(beats, np.array([0.0, 3.5]), np.array([1.0, 4.0])), beats)
    np.testing.assert_array_equal(extend_beats(beats, np.zeros(0), np.zeros(0)), beats)


def test_a_note_far_beyond_the_beats_gives_one_sentence() -> None:
    with pytest.raises(UserError, match=f"^mine: .*at most {MAX_BEATS}"):
        extend_beats(np.arange(5.0), np.array([1e9]), np.array([1e9 + 1]), "mine")


def test_the_beat_file_beside_is_found_in_a_fixed_order(tmp_path: Path) -> None:
    midi = tmp_path / "a.b.mid"
    assert beat_file_beside(midi) is None
    for ending in reversed(BEAT_FILE_ENDINGS):
        path = tmp_path / f"a.b{ending}"
        path.write_text("0\n1\n")
        assert beat_file_beside(midi) == path


def test_every_real_annotation_reads(shared_data: Path) -> None:
    paths = [*shared_data.glob("asap/**/*_annotations.txt"), *shared_data.glob("acpas/**/*_annotation.tsv")]
    paths += shared_data.glob("pop909/POP909/*/beat_*.txt")
    assert len(paths) > 2000
    for path in paths[::7]:
        annotation = read_beats(path)
        assert annotation.downbeat is not None, path
        assert annotation.downbeat.any(), path
        repair_beats(annotation.beats_sec)
