"""Expressive performances of scores, made at random: what the beat tracker learns to hear through.

A score says on which beat every note stands. Here it is played: at some tempo, with rubato, pauses, hands that do not
strike together, rolled chords, dynamics, articulation and pedal. Each performance draws how much of each it has, from
none to more than a pianist would, so that real ones lie inside.

Shapes: N notes, B beats (a grid has B + 1 beat times), G = 4 · B steps of a quarter beat.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pianolm.beat_tracking.excerpts import Performance
from pianolm.data.beat_notes import BeatNotes
from pianolm.music.notes import Notes, make_notes

Floats = NDArray[np.float64]

SLOWEST_BPM, FASTEST_BPM = 40.0, 220.0
_STEPS = 4
"""Steps of a beat that have a tempo of their own."""
_SHORTEST_BEAT_SEC, _LONGEST_BEAT_SEC = 0.15, 4.0
_SHORTEST_NOTE_SEC = 0.03
_DEFAULT_BAR = 4


def perform(music: BeatNotes, rng: Generator, transpose: int = 0) -> Performance:
    """Plays a piece.

    Scores are played anew; of recorded performances, which have a timing of their own, about a third.

    Args:
        music: The piece; it has notes.
        rng: Random numbers.
        transpose: Largest transposition in semitones, up or down.
    """
    music = _thinned(replace(music, pitch=_transposed(music.pitch, transpose, rng)), rng)
    if music.is_score or rng.random() < 0.35:
        return _played(music, rng)
    return _recorded(music, rng)


def _transposed(pitch: NDArray[np.int64], most: int, rng: Generator) -> NDArray[np.int64]:
    step = int(rng.integers(-most, most + 1))
    moved = pitch + step
    return moved if moved.min() >= 0 and moved.max() <= 127 else pitch


def _thinned(music: BeatNotes, rng: Generator) -> BeatNotes:
    """Leaves out a few notes, as transcriptions do, and sometimes one of the hands."""
    kept = rng.random(music.pitch.size) >= rng.choice([0.0, 0.01, 0.04])
    if rng.random() < 0.08:
        upper = music.pitch >= 60
        kept &= upper if rng.random() < 0.5 else ~upper
    if kept.sum() < 0.3 * kept.size or kept.all():
        return music
    fields = ("onset_beat", "end_beat", "pitch", "velocity")
    return replace(music, **{name: getattr(music, name)[kept] for name in fields})


def _recorded(music: BeatNotes, rng: Generator) -> Performance:
    """A performance as it was played, at a slightly other tempo and loudness."""
    stretch = np.exp(rng.normal(0, 0.15))
    jitter = rng.normal(0, rng.uniform(0.001, 0.006), music.pitch.size)
    onset_sec = music.seconds(music.onset_beat) * stretch + jitter
    offset_sec = music.seconds(music.end_beat) * stretch
    velocity = music.velocity + rng.integers(-15, 16)
    return _performance(music, onset_sec, offset_sec, velocity, music.beats_sec * stretch)


def _played(music: BeatNotes, rng: Generator) -> Performance:
    step_sec = _step_seconds(music, rng)
    times_sec = np.concatenate([[0.0], np.cumsum(step_sec)])
    places = np.arange(times_sec.size) / _STEPS
    onset_sec = np.interp(music.onset_beat, places, times_sec) + _asynchrony(music, rng)
    offset_sec = np.interp(_ends(music, rng), places, times_sec)
    velocity = _velocities(music, rng) if music.is_score else music.velocity
    return _performance(music, onset_sec, offset_sec, velocity, times_sec[::_STEPS])


def _performance(
    music: BeatNotes, onset_sec: Floats, offset_sec: Floats, velocity: NDArray[np.int64], beats_sec: Floats
) -> Performance:
    notes = _struck(onset_sec, offset_sec, music.pitch, np.clip(velocity, 1, 127))
    downbeats_sec = beats_sec[music.bar_start] if music.bar_start.size else None
    return Performance(notes, beats_sec, downbeats_sec)


def _struck(
    onset_sec: Floats, offset_sec: Floats, pitch: NDArray[np.int64], velocity: NDArray[np.int64]
) -> Notes:
    """A note array in which every note ends before its key is struck again."""
    order = np.lexsort((onset_sec, pitch))
    onset, key = onset_sec[order], pitch[order]
    next_onset = np.append(np.where(key[1:] == key[:-1], onset[1:], np.inf), np.inf)
    offset = np.minimum(np.maximum(offset_sec[order], onset + _SHORTEST_NOTE_SEC), next_onset)
    return make_notes(onset, offset, key, velocity[order])


def _step_seconds(music: BeatNotes, rng: Generator) -> Floats:
    """[G] durations of quarter beats."""
    size = music.n_beats * _STEPS
    rubato = 0.0 if rng.random() < 0.1 else 0.1 + 1.9 * rng.random()
    slowness = rubato * (
        rng.uniform(0.02, 0.16) * _smooth(size, _STEPS * rng.uniform(8, 40), rng)
        + rng.uniform(0.02, 0.12) * _smooth(size, _STEPS * rng.uniform(1.5, 5), rng)
        + rng.uniform(0, 0.06) * np.repeat(rng.normal(size=music.n_beats), _STEPS)
        + rng.uniform(0, 0.08) * rng.normal(size=size)
        + _phrases(music, rng)
        + _bar_pattern(music, rng)
    )
    slowness += _sections(music, rng)
    slowness += np.log1p(rubato * rng.uniform(0, 1.0) * np.linspace(-8, 1, size).clip(0) ** 2)
    slowness[_pauses(music, rubato, rng)] += rng.uniform(0.5, 1.5)
    shortest, longest = _SHORTEST_BEAT_SEC / _STEPS, _LONGEST_BEAT_SEC / _STEPS
    return np.clip(_beat_interval(music, rng) / _STEPS * np.exp(slowness), shortest, longest)


def _beat_interval(music: BeatNotes, rng: Generator) -> float:
    """Seconds of a beat: near the piece's own tempo, or so that its notes come at a usual rate."""
    own = float(np.median(np.diff(music.beats_sec))) * np.exp(rng.normal(0, 0.2))
    onsets = np.unique(music.onset_beat)
    beats = max(np.unique(np.floor(onsets)).size, 1)
    dense = onsets.size / beats / np.exp(rng.normal(np.log(4.5), 0.4))
    chosen = own if rng.random() < 0.6 else dense
    return float(np.clip(chosen, 60 / FASTEST_BPM, 60 / SLOWEST_BPM))


def _smooth(size: int, length: float, rng: Generator) -> Floats:
    """[size] smooth noise of deviation about 1, with a random value every `length` steps."""
    knots = rng.normal(size=int(size / length) + 3)
    place = np.arange(size) / length + rng.random()
    at = place.astype(np.int64)
    part = 0.5 - 0.5 * np.cos(np.pi * (place - at))
    return 1.2 * (knots[at] * (1 - part) + knots[at + 1] * part)


def _bars(music: BeatNotes) -> NDArray[np.intp]:
    """Beats at which bars start, also where none are known."""
    return music.bar_start if music.bar_start.size > 1 else np.arange(0, music.n_beats, _DEFAULT_BAR)


def _phrases(music: BeatNotes, rng: Generator) -> Floats:
    """[G] slowing towards the ends of phrases of two, four or eight bars."""
    place = np.arange(music.n_beats * _STEPS) / _STEPS
    starts = _bars(music)[:: int(rng.choice([2, 4, 8]))].astype(np.float64)
    edges = np.concatenate([[-1.0], starts[starts > 0], [music.n_beats]])
    phrase = np.searchsorted(edges, place, side="right") - 1
    length = edges[phrase + 1] - edges[phrase]
    position = (place - edges[phrase]) / length
    arc = rng.uniform(0, 0.25) * (2 * position - 1) ** 2
    return arc + rng.uniform(0, 0.5) * np.clip(1 - (1 - position) * length / rng.uniform(0.5, 3), 0, 1)


def _bar_pattern(music: BeatNotes, rng: Generator) -> Floats:
    """[G] beats of a bar that are always played longer or shorter."""
    bars = _bars(music)
    beat = np.arange(music.n_beats)
    bar = np.maximum(np.searchsorted(bars, beat, side="right") - 1, 0)
    position = np.abs(beat - bars[bar]) % 12
    return np.repeat(rng.uniform(0, 0.08) * rng.normal(size=12)[position], _STEPS)


def _sections(music: BeatNotes, rng: Generator) -> Floats:
    """[G] sudden changes of tempo at bar lines, in some performances."""
    slowness = np.zeros(music.n_beats * _STEPS)
    if rng.random() < 0.4:
        for start in rng.choice(_bars(music), int(rng.integers(1, 4))):
            slowness[int(start) * _STEPS :] += rng.normal(0, 0.3)
    return slowness


def _pauses(music: BeatNotes, rubato: float, rng: Generator) -> NDArray[np.int64]:
    """Steps before bar lines that are held, like fermatas and breaths."""
    bars = _bars(music)
    count = rng.poisson(rubato * music.n_beats / 60)
    return np.maximum(rng.choice(bars, count) * _STEPS - 1, 0).astype(np.int64)


def _asynchrony(music: BeatNotes, rng: Generator) -> Floats:
    """[N] seconds by which notes are struck beside their time: hands apart, rolled chords, melody ahead, and chance."""
    size = music.pitch.size
    _, first, chord, count = np.unique(
        music.onset_beat, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.arange(size) - first[chord]
    is_top = rank == count[chord] - 1
    shift = rng.normal(0, rng.uniform(0.002, 0.015), size)
    shift += np.where(music.pitch < 60, rng.normal(0, 0.012), 0.0)
    shift -= np.where(is_top & (count[chord] > 1), rng.uniform(0, 0.025), 0.0)
    often = rng.choice([0.0, 0.03, 0.1, 0.5], p=[0.3, 0.4, 0.2, 0.1])
    rolled = (rng.random(count.size) < often) & (count >= 3)
    spread = rng.uniform(0.012, 0.06, count.size) * rolled
    behind = rng.random() < 0.5
    shift += spread[chord] * np.where(behind, rank, rank - count[chord] + 1)
    return shift


def _ends(music: BeatNotes, rng: Generator) -> Floats:
    """[N] places in beats at which notes end: detached to overlapping, or held by the pedal to its next change."""
    length = music.end_beat - music.onset_beat
    end = music.onset_beat + length * rng.uniform(0.4, 1.1) * np.exp(rng.normal(0, 0.15, length.size))
    if rng.random() < 0.3:
        change = float(rng.choice([0.5, 1, 2, 4]))
        held = np.ceil((music.onset_beat + 0.05) / change) * change
        end = np.where(rng.random(length.size) < rng.uniform(0.5, 1), np.maximum(end, held), end)
    return end


def _velocities(music: BeatNotes, rng: Generator) -> NDArray[np.int64]:
    """[N] velocities: swells, melody above the rest, accents on beats, and chance; in some performances all equal."""
    level = rng.uniform(40, 90)
    if rng.random() < 0.15:
        return np.full(music.pitch.size, int(level))
    beat = np.floor(music.onset_beat).astype(np.int64)
    _, chord, count = np.unique(music.onset_beat, return_inverse=True, return_counts=True)
    last = np.append(chord[1:] != chord[:-1], True)
    lowest = np.append(True, chord[1:] != chord[:-1])
    on_beat = music.onset_beat == beat
    velocity = level + rng.uniform(0, 14) * _smooth(music.n_beats + 1, rng.uniform(4, 24), rng)[beat]
    velocity += rng.uniform(0, 14) * (last & (music.pitch >= 60)) + rng.uniform(-4, 6) * lowest
    velocity += rng.uniform(-1, 4) * on_beat
    velocity += rng.uniform(-1, 6) * (on_beat & np.isin(beat, music.bar_start))
    velocity += rng.uniform(-1, 2) * np.log2(count[chord])
    velocity += rng.normal(0, rng.uniform(1, 8), velocity.size)
    return np.clip(np.rint(velocity), 1, 127).astype(np.int64)
