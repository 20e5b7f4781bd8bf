"""Performs a score: tempo, dynamics, articulation and small human deviations.

Arrays are over notes [N] in score order or over beats [B]; times are seconds unless a name says ticks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.data.sources.demo.random_stream import RandomStream
from pianolm.data.sources.demo.score import Phrase, Role, Score
from pianolm.data.sources.demo.styles import STYLES, Style
from pianolm.data.sources.demo.theory import TICKS

Floats = NDArray[np.float64]

_ROLE_VELOCITY = np.array([9.0, -4.0, -10.0, -3.0])
SHORTEST_SEC = 0.02
FLAT_VELOCITY = 80


class Performance(NamedTuple):
    """Played notes in score order [N], and beat times [B]."""

    onset_sec: Floats
    offset_sec: Floats
    velocity: NDArray[np.uint8]
    beats_sec: Floats


def beat_ticks(score: Score) -> NDArray[np.int64]:
    """Ticks of all beats [B], the upbeat's and the one that closes the last bar included."""
    return np.arange(-score.lead_in, score.length + 1, TICKS)


def play_flat(score: Score) -> Performance:
    """Plays as a notation program does: one tempo, one velocity."""
    sec_per_tick = 60.0 / score.tempo_bpm / TICKS
    onset = np.array([note.onset for note in score.notes], dtype=np.float64)
    duration = np.array([note.duration for note in score.notes], dtype=np.float64)
    origin = float(score.lead_in)
    velocity = np.full(len(onset), FLAT_VELOCITY, dtype=np.uint8)
    beats_sec = (beat_ticks(score).astype(np.float64) + origin) * sec_per_tick
    return Performance(
        (onset + origin) * sec_per_tick, (onset + duration + origin) * sec_per_tick, velocity, beats_sec
    )


def play(score: Score, rng: RandomStream) -> Performance:
    """Plays with rubato, dynamics and articulation of the score's style."""
    style = next(style for style in STYLES if style.name == score.style)
    beats_sec = _beats(score, style, rng)
    ticks = beat_ticks(score)
    onset_ticks = np.array([note.onset for note in score.notes])
    duration_ticks = np.array([note.duration for note in score.notes])
    onset = np.interp(onset_ticks, ticks, beats_sec) + _asynchrony(score, style, rng)
    offset = np.interp(onset_ticks + duration_ticks * _gates(score, style), ticks, beats_sec)
    offset = np.maximum(offset + 0.006 * rng.normal(len(offset)), onset + 2 * SHORTEST_SEC)
    onset, offset = _release_keys(np.array([note.pitch for note in score.notes]), onset, offset)
    return Performance(onset, offset, _velocities(score, rng), beats_sec)


def phrase_position(phrase: Phrase, tick: NDArray[np.int64] | int) -> Floats:
    """Position of ticks in their phrase, 0–1; an upbeat counts as the beginning."""
    return np.clip((np.asarray(tick, dtype=np.float64) - phrase.onset) / phrase.duration, 0.0, 1.0)


def swell(position: Floats) -> Floats:
    """Dynamic arch over a phrase, 0 to 1, with its highest point at 60 %."""
    return np.where(
        position < 0.6, position * (1.2 - position) / 0.36, (1.0 - position) * (position - 0.2) / 0.16
    )


def _beats(score: Score, style: Style, rng: RandomStream) -> Floats:
    """Beat times [B]: faster in mid-phrase, broader at its end, and a ritardando over the last two bars."""
    ticks = beat_ticks(score)[:-1]
    rate = np.ones(len(ticks))
    for phrase in score.phrases:
        inside = (ticks >= phrase.onset) & (ticks < phrase.onset + phrase.duration)
        position = phrase_position(phrase, ticks[inside])
        rate[inside] *= 1.0 + style.rubato * 0.1 * (swell(position) - 0.55)
        beats_left = (phrase.onset + phrase.duration - ticks[inside]) / TICKS
        broaden = np.clip((3.0 - beats_left) / 2.0, 0.0, 1.0) * phrase.closing
        rate[inside] /= 1.0 + (0.03 + 0.17 * style.rubato) * broaden
        rate[inside] *= 1.0 + 0.03 * style.rubato * (phrase.level - style.level) / 8.0
    left = (score.length - ticks) / score.metre.bar
    rate /= 1.0 + (0.35 + 0.35 * style.rubato) * np.clip((2.0 - left) / 2.0, 0.0, 1.0)
    rate *= 1.0 + 0.012 * _correlated_noise(len(ticks), 0.6, rng)
    lead_sec = rng.between(0.3, 1.0)
    return lead_sec + np.append(0.0, np.cumsum(60.0 / (score.tempo_bpm * rate))).astype(np.float64)


def _correlated_noise(size: int, memory: float, rng: RandomStream) -> Floats:
    """[size] noise of deviation about 1 whose neighbours correlate by `memory`."""
    steps = rng.normal(size) * np.sqrt(1.0 - memory * memory)
    for index in range(1, size):
        steps[index] += memory * steps[index - 1]
    return steps


def _asynchrony(score: Score, style: Style, rng: RandomStream) -> Floats:
    """[N] seconds by which notes deviate from the beat: the melody leads, chords are spread upwards, plus jitter."""
    role = np.array([note.role for note in score.notes])
    lag = (0.006 + 0.012 * style.rubato) * (role >= Role.INNER)
    jitter = np.clip(0.004 * rng.normal(len(role)), -0.008, 0.008)
    spread = np.zeros(len(role))
    for index in range(1, len(role)):
        here, below = score.notes[index], score.notes[index - 1]
        if here.onset == below.onset and here.role >= Role.INNER and below.role >= Role.INNER:
            spread[index] = spread[index - 1] + 0.003 + 0.004 * style.rubato
    return lag + spread + jitter


def _gates(score: Score, style: Style) -> Floats:
    """[N] part of its written length for which each note sounds; detached notes on weak beats are shorter."""
    tune, left = style.gate
    role = np.array([note.role for note in score.notes])
    ticks = np.array([note.onset for note in score.notes])
    gate = np.where(role <= Role.DESCANT, tune, left)
    weak = np.array([score.metre.strength(int(tick)) < 0.5 for tick in ticks])
    return np.where((gate < 1.0) & weak, gate - 0.08, gate)


def _release_keys(pitch: NDArray[np.int64], onset: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """Ends every note before its key is struck again."""
    onset, offset = onset.copy(), offset.copy()
    last: dict[int, int] = {}
    for index in np.argsort(onset, kind="stable"):
        key = int(pitch[index])
        if key in last:
            before = last[key]
            onset[index] = max(onset[index], onset[before] + 2 * SHORTEST_SEC)
            offset[index] = max(offset[index], onset[index] + SHORTEST_SEC)
            offset[before] = min(offset[before], onset[index] - SHORTEST_SEC)
        last[key] = int(index)
    return onset, offset


def _velocities(score: Score, rng: RandomStream) -> NDArray[np.uint8]:
    """[N] velocities from phrase, section, metric position, pitch, harmonic tension, role and noise."""
    ticks = np.array([note.onset for note in score.notes])
    pitch = np.array([note.pitch for note in score.notes], dtype=np.float64)
    role = np.array([note.role for note in score.notes])
    level = np.full(len(ticks), score.phrases[0].level)
    for phrase in score.phrases:
        inside = (ticks >= phrase.onset) & (ticks < phrase.onset + phrase.duration)
        level[inside] = phrase.level + 13.0 * (swell(phrase_position(phrase, ticks[inside])) - 0.6)
    strength = np.array([score.metre.strength(int(tick)) for tick in ticks])
    starts = np.array([span.onset for span in score.spans])
    tension = np.array([span.chord.tension for span in score.spans])
    sounding = np.clip(np.searchsorted(starts, ticks, side="right") - 1, 0, None)
    tune = role <= Role.DESCANT
    centre = pitch[role == Role.MELODY].mean()
    height = np.where(tune, 0.45 * (pitch - centre), 0.1 * (pitch - 54.0))
    left = (score.length - ticks) / score.metre.bar
    fading = -10.0 * np.clip((3.0 - left) / 3.0, 0.0, 1.0)
    velocity = (
        level
        + _ROLE_VELOCITY[role]
        + 7.0 * (strength - 0.4)
        + height
        + 6.0 * (tension[sounding] - 0.3)
        + fading
    )
    velocity += 1.2 * _correlated_noise(len(ticks), 0.7, rng) + 1.2 * rng.normal(len(ticks))
    return np.clip(np.rint(velocity), 14, 122).astype(np.uint8)
