"""The decoder: it finds the beats and bars that the logits show, through gaps and changes of tempo."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pianolm.music.beat_decoding import (
    DecodingSettings,
    confidence,
    decode_bars,
    decode_beats,
    near_maximum,
)

LOW, HIGH = -4.0, 3.0


def logits(frames: np.ndarray, n_frames: int, downbeat: np.ndarray | None = None) -> np.ndarray:
    values = np.full((n_frames, 2), LOW, np.float32)
    values[frames, 0] = HIGH
    if downbeat is not None:
        values[frames[downbeat], 1] = HIGH
    return values


def test_a_change_of_tempo_is_followed() -> None:
    frames = 20 + np.cumsum([0, *[25] * 12, *[26, 28, 30, 33, 36, 38], *[40] * 12])
    found = decode_beats(logits(frames, frames[-1] + 30)[:, 0])
    np.testing.assert_array_equal(found, frames)


def test_beats_without_a_note_are_bridged_in_tempo() -> None:
    frames = 20 + 25 * np.arange(24)
    heard = np.delete(frames, [7, 8, 15])
    np.testing.assert_array_equal(decode_beats(logits(heard, 640)[:, 0]), frames)


def test_doubtful_music_is_covered_too() -> None:
    """A minute in which the network hears nothing, before, between and after beats that are clear."""
    clear = np.concatenate([25 * np.arange(30) + start for start in (3000, 7000)])
    found = decode_beats(logits(clear, 11_000)[:, 0])
    longest = 50 * 60 / DecodingSettings().slowest_bpm
    assert np.isin(clear, found).mean() > 0.95
    assert max(found[0], 11_000 - found[-1], np.diff(found).max()) <= longest + 100


def test_notes_between_beats_are_no_beats() -> None:
    frames = 20 + 30 * np.arange(20)
    values = logits(frames, 640)
    values[frames[:-1] + 15, 0] = -1.5
    np.testing.assert_array_equal(decode_beats(values[:, 0]), frames)


def test_the_best_sequence_is_found_exactly() -> None:
    """The score of the sequence is the largest of all, by comparison with every sequence of a short excerpt."""
    settings = DecodingSettings(fastest_bpm=1000, slowest_bpm=500, tempo_change=2, beat_bias=0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        gain = rng.normal(0, 2, 16).astype(np.float32)

        def score(frames: tuple[int, ...], gain: np.ndarray = gain) -> float:
            steps = [b - a for a, b in pairwise(frames)]
            change = sum(abs(np.log(b / a)) for a, b in pairwise(steps))
            tempo = sum(np.log2(s / 30) ** 2 for s in steps)
            return (
                float(gain[list(frames)].sum())
                - settings.tempo_change * change
                - settings.tempo_distance * tempo
            )

        found = tuple(decode_beats(gain, settings).tolist())
        best = max(score(frames) for frames in _sequences(16, range(3, 7)))
        assert score(found) == pytest.approx(best, abs=1e-4)


def _sequences(n_frames: int, steps: range) -> list[tuple[int, ...]]:
    """All sequences of frames whose distances are among `steps`."""
    ending: list[list[tuple[int, ...]]] = []
    for t in range(n_frames):
        before = [s for step in steps if t - step >= 0 for s in ending[t - step]]
        ending.append([(t,), *((*s, t) for s in before)])
    return [s for sequences in ending for s in sequences]


@pytest.mark.parametrize("beats", [2, 3, 4, 6])
@pytest.mark.parametrize("upbeat", [0, 1])
def test_bars_of_each_metre_are_found(beats: int, upbeat: int) -> None:
    frames = 20 + 25 * np.arange(6 * beats + upbeat)
    downbeat = np.arange(frames.size) % beats == upbeat
    values = logits(frames, 20 + frames[-1], downbeat)
    np.testing.assert_array_equal(decode_bars(values, frames), downbeat)


def test_a_doubtful_downbeat_keeps_the_metre() -> None:
    frames = 20 + 25 * np.arange(32)
    downbeat = np.arange(32) % 4 == 0
    values = logits(frames, 900, downbeat)
    values[frames[12], 1], values[frames[14], 1] = LOW, HIGH
    np.testing.assert_array_equal(decode_bars(values, frames), downbeat)


def test_a_change_of_metre_is_followed() -> None:
    frames = 20 + 25 * np.arange(48)
    downbeat = np.isin(np.arange(48), [*range(0, 24, 4), *range(24, 48, 3)])
    np.testing.assert_array_equal(decode_bars(logits(frames, 1300, downbeat), frames), downbeat)


def test_nothing_gives_nothing() -> None:
    empty = np.zeros((0, 2), np.float32)
    assert decode_beats(empty[:, 0]).size == 0
    assert decode_bars(empty, np.zeros(0, np.int64)).size == 0
    assert confidence(empty[:, 0], np.zeros(0, np.int64)) == 0


def test_confidence_falls_with_doubtful_beats_and_with_peaks_left_out() -> None:
    frames = 20 + 25 * np.arange(20)
    clear = logits(frames, 540)[:, 0]
    doubtful = np.where(clear == HIGH, 0.0, clear).astype(np.float32)
    assert 0.9 < confidence(clear, frames) <= 1
    assert confidence(doubtful, frames) < 0.7
    assert confidence(clear, frames[::2]) < 0.75


def test_the_largest_logit_nearby_counts() -> None:
    values = np.arange(10, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(near_maximum(values, np.array([0, 4, 9]))[:, 0], [2, 6, 9])
