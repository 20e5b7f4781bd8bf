"""Beats and downbeats from the logits of frames, by dynamic programming over tempo and metre.

A sequence of beats scores the sum of the logits at its beats, less the changes of tempo between neighbouring intervals;
the best one is found exactly (Viterbi over the last interval, in frames). Then metre and bar lines are chosen likewise
over the beats: the best sequence of bars of 2, 3, 4, 5 or 6 beats.

Shapes: T frames, B beats, I intervals, M states (metre and position in the bar).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beat_features import FRAMES_PER_SEC

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class DecodingSettings:
    """Settings of the decoder; `experiments/beats` compares the defaults with others on validation music.

    Attributes:
        fastest_bpm: Fastest tempo of a beat.
        slowest_bpm: Slowest tempo of a beat.
        tempo_change: Cost of a change of tempo, times |log ratio of the intervals|.
        beat_bias: Added to the logit of every beat, so that beats without a note are bridged, not skipped.
        usual_bpm: The tempo that costs nothing.
        tempo_distance: Cost of a beat of another tempo, times the square of its distance in octaves.
        metre_costs: Cost of a bar of each number of beats.
        metre_change: Cost of another number of beats than in the bar before.
    """

    fastest_bpm: float = 320.0
    slowest_bpm: float = 28.0
    tempo_change: float = 4.0
    beat_bias: float = 1.0
    usual_bpm: float = 100.0
    tempo_distance: float = 0.05
    metre_costs: tuple[tuple[int, float], ...] = ((2, 0.3), (3, 0.2), (4, 0.0), (5, 2.0), (6, 0.8))
    metre_change: float = 3.0


DEFAULT_SETTINGS = DecodingSettings()
_MOST_LOGIT = 8.0
_NEAR_FRAMES = 2
_FREE_FRAMES = 2 * FRAMES_PER_SEC
"""Frames before the first and after the last onset that need no beat: more than there are."""


def decode_beats(beat_logit_T: Floats, settings: DecodingSettings = DEFAULT_SETTINGS) -> NDArray[np.int64]:
    """[B] ascending frames of the best sequence of beats that covers all frames; empty if there are none.

    It begins within the longest interval and two seconds of the first frame and ends so near to the last, so that no
    music is left without beats, however unsure they are.

    Args:
        beat_logit_T: [T] logits of a beat.
        settings: Settings.
    """
    interval_I, change_II, tempo_I = _intervals(settings)
    gain_T = np.clip(beat_logit_T, -_MOST_LOGIT, _MOST_LOGIT) + settings.beat_bias
    longest, n_frames = int(interval_I[-1]), gain_T.size
    if not n_frames:
        return np.zeros(0, np.int64)
    # row t + longest of `best`: scores of the best sequences that end with a beat at frame t after each interval
    best = np.full((n_frames + longest, interval_I.size), -np.inf, np.float32)
    came_from = np.full((n_frames, interval_I.size), -1, np.int16)
    cost_II = change_II + tempo_I[:, None]
    step = int(interval_I[0])  # frames that cannot precede each other are computed together
    for start in range(0, n_frames, step):
        frame = np.arange(start, min(start + step, n_frames))
        reached = best[frame[:, None] + (longest - interval_I)] - cost_II  # [frames, I, I]
        before = reached.argmax(axis=2)
        score = np.take_along_axis(reached, before[:, :, None], axis=2)[:, :, 0]
        # where a sequence may start and that is better than all that lead here
        is_first = (score <= 0) & (frame[:, None] < longest + _FREE_FRAMES)
        best[frame + longest] = np.where(is_first, 0, score) + gain_T[frame, None]
        came_from[frame] = np.where(is_first, -1, before)
    first_end = max(n_frames - longest - _FREE_FRAMES, 0)
    end_frame, end_interval = divmod(int(best[longest + first_end :].argmax()), interval_I.size)
    return _trace_back(came_from, interval_I, first_end + end_frame, end_interval)


def _intervals(settings: DecodingSettings) -> tuple[NDArray[np.int64], Floats, Floats]:
    """[I] intervals in frames, [I, I] costs of one after another, and [I] costs of their tempi."""
    per_minute = 60 * FRAMES_PER_SEC
    shortest = max(round(per_minute / settings.fastest_bpm), 1)
    interval_I = np.arange(shortest, round(per_minute / settings.slowest_bpm) + 1)
    octave_I = np.log2(interval_I)
    change_II = settings.tempo_change * np.log(2) * np.abs(octave_I[:, None] - octave_I[None, :])
    usual = np.log2(per_minute / settings.usual_bpm)
    tempo_I = settings.tempo_distance * (octave_I - usual) ** 2
    return interval_I, change_II.astype(np.float32), tempo_I.astype(np.float32)


def _trace_back(
    came_from: NDArray[np.int16], interval_I: NDArray[np.int64], frame: int, interval: int
) -> NDArray[np.int64]:
    frames = [frame]
    while (before := int(came_from[frame, interval])) >= 0:
        frame -= int(interval_I[interval])
        interval = before
        frames.append(frame)
    return np.array(frames[::-1], np.int64)


def decode_bars(
    logit_T2: Floats, beat_frame_B: NDArray[np.int64], settings: DecodingSettings = DEFAULT_SETTINGS
) -> NDArray[np.bool_]:
    """[B] whether each beat is a downbeat.

    Args:
        logit_T2: [T, 2] logits of beat and downbeat.
        beat_frame_B: [B] frames of the beats.
        settings: Settings.
    """
    if not beat_frame_B.size:
        return np.zeros(0, bool)
    gain_B2 = _downbeat_gains(logit_T2, beat_frame_B)
    states = [(beats, position, cost) for beats, cost in settings.metre_costs for position in range(beats)]
    is_first_M = np.array([position == 0 for _, position, _ in states])
    is_last_M = np.array([position == beats - 1 for beats, position, _ in states])
    cost_M = np.array([cost for *_, cost in states]) * is_first_M
    beats_M = np.array([beats for beats, *_ in states])
    # a bar starts after the last beat of any bar; within a bar the position before it precedes
    change_MM = np.full((len(states), len(states)), np.inf)
    change_MM[np.ix_(is_first_M, is_last_M)] = settings.metre_change
    change_MM[(beats_M[:, None] == beats_M[None]) & is_first_M[:, None] & is_last_M[None]] = 0
    within = np.flatnonzero(~is_first_M)
    change_MM[within, within - 1] = 0
    score_M = gain_B2[0, is_first_M.astype(int)] - cost_M
    came_from = np.zeros((beat_frame_B.size, len(states)), np.int16)
    for b in range(1, beat_frame_B.size):
        reached_MM = score_M[None] - change_MM
        came_from[b] = reached_MM.argmax(axis=1)
        score_M = reached_MM.max(axis=1) + gain_B2[b, is_first_M.astype(int)] - cost_M
    state_B = np.empty(beat_frame_B.size, np.int64)
    state_B[-1] = score_M.argmax()
    for b in range(beat_frame_B.size - 1, 0, -1):
        state_B[b - 1] = came_from[b, state_B[b]]
    return is_first_M[state_B]


def _downbeat_gains(logit_T2: Floats, beat_frame_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """[B, 2] log probabilities that a beat is no downbeat, and that it is one."""
    beat_B, downbeat_B = near_maximum(logit_T2, beat_frame_B).T
    beat, downbeat = _probability(beat_B), _probability(downbeat_B)
    given_beat = np.clip(downbeat / np.maximum(np.maximum(beat, downbeat), 1e-3), 0.02, 0.98)
    return np.log(np.stack([1 - given_beat, given_beat], axis=1))


def near_maximum(logit_TK: Floats, frame_B: NDArray[np.int64]) -> Floats:
    """[B, K] largest logits within 40 ms of frames."""
    offsets = np.arange(-_NEAR_FRAMES, _NEAR_FRAMES + 1)
    at = np.clip(frame_B[:, None] + offsets, 0, len(logit_TK) - 1)
    return logit_TK[at].max(axis=1)


def _probability(logit: Floats) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(logit.astype(np.float64), -30, 30)))


def confidence(beat_logit_T: Floats, beat_frame_B: NDArray[np.int64]) -> float:
    """How sure the beats are, 0–1: the F-measure that the network's own probabilities lead to expect.

    Precision is the mean probability at the beats; recall is their share of the probability of all peaks.
    """
    if not beat_frame_B.size:
        return 0.0
    probability_T = _probability(beat_logit_T)
    at_beats = _probability(near_maximum(beat_logit_T[:, None], beat_frame_B)[:, 0])
    inner = probability_T[1:-1]
    is_peak = (inner > probability_T[:-2]) & (inner >= probability_T[2:])
    peaks = max(float(inner[is_peak].sum()), float(at_beats.sum()), 1e-9)
    precision, recall = float(at_beats.mean()), float(at_beats.sum()) / peaks
    return 2 * precision * recall / max(precision + recall, 1e-9)
