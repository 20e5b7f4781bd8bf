"""Seeded composition of small piano pieces: the built-in data set that needs no download."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pianolm.data.sources.demo.performance import beat_ticks, play, play_flat
from pianolm.data.sources.demo.random_stream import RandomStream
from pianolm.data.sources.demo.writing import write

__all__ = ["Composition", "compose"]


@dataclass(frozen=True)
class Composition:
    """A piece as performed: N notes sorted by (onset_sec, pitch), B beats.

    Attributes:
        title: style and key, such as "Nocturne in E-flat major".
        onset_sec, offset_sec: float64 [N]; notes of one pitch never overlap.
        pitch, velocity: uint8 [N]; velocities are 1–127.
        beats_sec: float64 [B], strictly increasing; the last one closes the last beat.
        downbeat: bool [B].
        metre: (count, unit); in (6, 8) a beat is a dotted quarter, so a bar has two.
        key: for example "E-flat major".
        texture: name of the accompaniment the piece begins with.
        flat: whether this is an exact rendering: one tempo, one velocity.
    """

    title: str
    onset_sec: NDArray[np.float64]
    offset_sec: NDArray[np.float64]
    pitch: NDArray[np.uint8]
    velocity: NDArray[np.uint8]
    beats_sec: NDArray[np.float64]
    downbeat: NDArray[np.bool_]
    metre: tuple[int, int]
    key: str
    texture: str
    flat: bool


def compose(seed: int, index: int, flat: bool = False) -> Composition:
    """Composes and performs piece `index` of the collection `seed`.

    The result depends on the arguments alone, on any platform and NumPy version.

    Args:
        seed: names a collection of pieces, 0 or more.
        index: names a piece in it, 0 or more; every 13 pieces in a row hold each style once.
        flat: render the same score exactly instead of performing it.

    Raises:
        ValueError: seed or index is negative.
    """
    score = write(seed, index)
    played = play_flat(score) if flat else play(score, RandomStream(seed, index, 1))
    pitch = np.array([note.pitch for note in score.notes], dtype=np.uint8)
    # Microseconds hide any last-digit differences between platforms.
    onset_sec, offset_sec = played.onset_sec.round(6), played.offset_sec.round(6)
    order = np.lexsort((pitch, onset_sec))
    return Composition(
        title=score.title,
        onset_sec=onset_sec[order],
        offset_sec=offset_sec[order],
        pitch=pitch[order],
        velocity=played.velocity[order],
        beats_sec=played.beats_sec.round(6),
        downbeat=beat_ticks(score) % score.metre.bar == 0,
        metre=(score.metre.count, score.metre.unit),
        key=score.key.name,
        texture=score.phrases[0].texture,
        flat=flat,
    )
