"""Token features: numbers that describe every id, from which an embedding can be computed. NumPy only.

Ids alone do not show that code 813 is struck a frame later than code 812. Features do: similar tokens have similar
features, whatever the codebook, so that training on one token also teaches its neighbours. Features depend on the
tokenizer alone. In base mode the velocity columns of velocity codes are zero, and all others are as in velocity mode.

Shapes: V ids, F features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells, segment_lengths, segment_starts
from pianolm.tokenizer.codebook import LEVEL_FRAMES
from pianolm.tokenizer.controls import LOUDNESS_CENTRES
from pianolm.tokenizer.sequence import LAST_POSITION
from pianolm.tokenizer.tempo import LOWEST_BPM, RANGE_BPM
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.vocabulary import (
    CODE_KINDS,
    CONTROLS,
    DURATION_BINS,
    FILL_MARKS,
    LEVELS,
    TUNINGS,
    Kind,
    Vocabulary,
)

_KINDS = tuple(
    kind
    for kind in Kind
    if kind not in (Kind.BAR, Kind.PEDAL, Kind.DURATION, Kind.TUNING, *FILL_MARKS, *CONTROLS)
)
"""Kinds with a column in every tokenizer; kinds that an option adds have a column only with that option."""
_SECOND_KIND = {
    Kind.GAP: Kind.BOS,
    Kind.SUFFIX: Kind.EOS,
    Kind.MIDDLE: Kind.PAD,
    Kind.PREFIX: Kind.TEMPO,
    Kind.LOUDNESS: Kind.VELOCITY,
    Kind.DENSITY: Kind.PITCH,
}
"""Of marks and controls: a second kind whose column they have, so that they differ without columns that other
tokenizers lack."""
BLUR_FRAMES = 1.5
"""Standard deviation of the bell that smooths onsets and ends of patterns, so that neighbouring frames are similar."""
_PITCH_CENTRES = np.arange(0.0, 129.0, 8.0)
_VELOCITY_CENTRES = np.arange(0.0, 129.0, 8.0)
_TEMPO_CENTRES = np.linspace(0.0, 1.0, 13)
_DURATION_CENTRES = np.linspace(0.0, np.log2(FRAMES), 12)
Array32 = NDArray[np.float32]


def token_features(tokenizer: PianoTokenizer) -> Array32:
    """float32 [V, F] features of every id, each row of norm 1; equal for equal tokenizers."""
    features_VF = np.concatenate(list(feature_groups(tokenizer).values()), axis=1)
    return features_VF / np.linalg.norm(features_VF, axis=1, keepdims=True)


def feature_groups(tokenizer: PianoTokenizer) -> dict[str, Array32]:
    """Columns [V, f] by the name of their group, zero for ids of other kinds.

    Groups of all kinds:
        kind: One-hot kind of token; for L1 to L4 this is also the length.

    Groups of pattern codes:
        onset, end: Frame by frame; `onset_blurred` and `end_blurred` are smoothed.
        sustain: Frame by frame.
        edges: Whether the pattern begins held, and whether it sounds to its end.
        duration: Lengths of its segments.
        segments: Their number.

    Groups of one kind:
        pitch: Class, octave and height.
        velocity: Decoded velocity in a cell of one note; `velocity_of_two` in a cell of two notes of half a beat each;
            `velocity_alone`, whether the encoder uses the code for cells of one note.
        tempo: Place on a logarithmic scale.
        bar: Position in the bar; only in tokenizers with bars.
        tie_duration: Duration bin; only in tokenizers with explicit ties.
        tuning: Tuning of the tempo scale; only in tokenizers with a tuned tempo.

    Controls have a level's velocity and, for density, a place on the scale of tempi, as no column may be their own.
    """
    vocabulary = tokenizer.vocabulary
    groups = {"kind": _kinds(tokenizer), **_patterns(tokenizer)}
    rows = {Kind.PITCH: {"pitch": _pitches()}, Kind.TEMPO: {"tempo": _tempi(tokenizer.tempo.bpm)}}
    rows[Kind.VELOCITY] = _velocities(tokenizer.codec)
    rows |= _controls(vocabulary)
    if tokenizer.bars:
        rows[Kind.BAR] = {"bar": _neighbours(LAST_POSITION)}
    if tokenizer.ties == "explicit":
        rows[Kind.DURATION] = {"tie_duration": _neighbours(DURATION_BINS)}
    if tokenizer.tempo.tuned:
        rows[Kind.TUNING] = {"tuning": _neighbours(TUNINGS)}
    for kind, of_kind in rows.items():
        for name, values in of_kind.items():
            groups.setdefault(name, np.zeros((vocabulary.size, values.shape[1])))
            start = vocabulary.offset(kind)
            groups[name][start : start + len(values)] = values
    return {name: values.astype(np.float32) for name, values in groups.items()}


def _kinds(tokenizer: PianoTokenizer) -> NDArray[np.float64]:
    """[V, k] one-hot kinds; kinds that the tokenizer does not use count as reserved."""
    optional = {
        Kind.BAR: tokenizer.bars,
        Kind.DURATION: tokenizer.ties == "explicit",
        Kind.TUNING: tokenizer.tempo.tuned,
    }
    shown = (*_KINDS, *(kind for kind, used in optional.items() if used))
    column = [shown.index(kind if kind in shown else Kind.RESERVED) for kind in Kind]
    of_kind = np.eye(len(shown))[column]
    of_kind[list(_SECOND_KIND), [shown.index(kind) for kind in _SECOND_KIND.values()]] = 1
    return of_kind[tokenizer.vocabulary.kind_of]


def _patterns(tokenizer: PianoTokenizer) -> dict[str, NDArray[np.float64]]:
    """[V, …] of every code, zero for other ids. Frames count from the beginning of the code's pattern."""
    sustain, onset = tokenizer.codebook.id_patterns
    frames = np.zeros(tokenizer.vocabulary.size, np.uint64)
    for kind, length in zip(CODE_KINDS, LEVEL_FRAMES, strict=True):
        frames[tokenizer.vocabulary.ids(kind)] = length
    last = np.where(frames > 0, np.uint64(1) << (np.maximum(frames, 1) - np.uint64(1)), np.uint64(0))
    # a note that sounds in the last frame may go on in the next code: it has no end, but an edge
    goes_on = ((sustain & ~onset) >> np.uint64(1)) | last
    end = sustain & ~goes_on
    edges = np.stack([sustain & ~onset & np.uint64(1), sustain & last], axis=1) != 0
    struck, ends = _bits(onset), _bits(end)
    return {
        "onset": struck,
        "onset_blurred": _blur(struck),
        "end": ends,
        "end_blurred": _blur(ends),
        "sustain": _bits(sustain) / np.sqrt(FRAMES),
        "edges": edges.astype(float),
        "duration": _durations(sustain, onset),
        "segments": _counts(segment_starts(sustain, onset)),
    }


def _durations(sustain: NDArray[np.uint64], onset: NDArray[np.uint64]) -> NDArray[np.float64]:
    """[V, d] sums of bells at the logarithmic lengths of each pattern's segments, of norm 1."""
    length = segment_lengths(sustain, onset)
    owner = np.repeat(np.arange(sustain.size), np.bitwise_count(segment_starts(sustain, onset)))
    summed = np.zeros((sustain.size, _DURATION_CENTRES.size))
    np.add.at(summed, owner, _bells(np.log2(length), _DURATION_CENTRES, _DURATION_CENTRES[1]))
    norm = np.linalg.norm(summed, axis=1, keepdims=True)
    return summed / np.where(norm > 0, norm, 1)


def _counts(starts: NDArray[np.uint64]) -> NDArray[np.float64]:
    """[V, 4] one-hot number of segments: 1, 2, 3, or more."""
    count = np.minimum(np.bitwise_count(starts).astype(np.int64), 4)
    return (count[:, None] == np.arange(1, 5)).astype(float)


def _bits(masks: NDArray[np.uint64]) -> NDArray[np.float64]:
    """[V, 48] bits of masks [V], frame 0 first."""
    return ((masks[:, None] >> np.arange(FRAMES, dtype=np.uint64)) & np.uint64(1)).astype(float)


def _blur(bits: NDArray[np.float64]) -> NDArray[np.float64]:
    """[V, 48] every set frame replaced by a bell of norm 1."""
    return bits @ _bells(np.arange(FRAMES), np.arange(FRAMES), BLUR_FRAMES)


def _bells(
    at: NDArray[np.floating] | NDArray[np.integer],
    centres: NDArray[np.floating] | NDArray[np.integer],
    width: float,
) -> NDArray[np.float64]:
    """[n, c] radial basis functions of values [n] around centres [c], each row of norm 1."""
    bells = np.exp(-0.5 * ((at[:, None] - centres) / width) ** 2)
    norm: NDArray[np.float64] = np.linalg.norm(bells, axis=1, keepdims=True)
    return bells / norm


def _pitches() -> NDArray[np.float64]:
    """[128, …] class, octave and height of every pitch."""
    pitch = np.arange(128)
    position = _bells(pitch, _PITCH_CENTRES, 8.0)
    return np.concatenate([np.eye(12)[pitch % 12], np.eye(11)[pitch // 12], position], axis=1)


def _neighbours(count: int) -> NDArray[np.float64]:
    """[count, count] features of ordered values, such as positions in a bar: similar for neighbours."""
    number = np.arange(count)
    return _bells(number, number, 1.0)


def _tempi(bpm: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K, …] place of every tempo on a logarithmic scale from 15 to 480 BPM."""
    place = np.log(bpm / LOWEST_BPM) / np.log(RANGE_BPM)
    return _bells(np.clip(place, 0, 1), _TEMPO_CENTRES, 1 / 12)


def _controls(vocabulary: Vocabulary) -> dict[Kind, dict[str, NDArray[np.float64]]]:
    """Columns [levels, …] of controls, similar for neighbours; no rows where the vocabulary has none."""
    if vocabulary.count(Kind.DENSITY) < LEVELS:
        return {}
    velocity, place = np.array(LOUDNESS_CENTRES), np.linspace(0, 1, LEVELS)
    return {
        Kind.LOUDNESS: {"velocity": _bells(velocity, _VELOCITY_CENTRES, 8.0)},
        Kind.DENSITY: {"tempo": _bells(place, _TEMPO_CENTRES, 1 / 12)},
    }


def _velocities(codec: VelocityCodec | None) -> dict[str, NDArray[np.float64]]:
    """[K, …] of every code; no rows in base mode."""
    size = 0 if codec is None else codec.codebook_size
    decoded, alone = np.zeros((size, 3)), np.zeros((size, 1))
    if codec is not None:
        codes, whole = np.arange(size), np.full(size, (1 << FRAMES) - 1, np.uint64)
        one, second = np.ones(size, np.uint64), np.full(size, 1 | (1 << FRAMES // 2), np.uint64)
        decoded[:, 0] = codec.decode(codes, whole, one)
        decoded[:, 1:] = codec.decode(codes, whole, second).reshape(-1, 2)
        velocity = np.arange(1, 128, dtype=np.uint8)
        cells = Cells(
            velocity.astype(np.int32), velocity, whole[:1].repeat(127), one[:1].repeat(127), velocity, 128
        )
        alone[codec.encode(cells)] = 1
    bells = [_bells(column, _VELOCITY_CENTRES, 8.0) for column in decoded.T]
    return {
        "velocity": bells[0],
        "velocity_of_two": np.concatenate(bells[1:], axis=1),
        "velocity_alone": alone,
    }
