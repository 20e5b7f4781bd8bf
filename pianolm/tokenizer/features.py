"""What each token is, in numbers: the features that an embedding can be computed from. NumPy only.

Ids are names: nothing in 812 and 813 tells that one is struck a frame later. Features do: tokens that are alike have
like features, whatever the codebook, so that what is learned of one is learned of its neighbours. They depend on the
tokenizer alone. In base mode the columns of velocities are empty and all others as in velocity mode.

Shapes: V ids, F features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells, segment_lengths, segment_starts
from pianolm.tokenizer.ages import AGES
from pianolm.tokenizer.codebook import LEVEL_FRAMES
from pianolm.tokenizer.tempo import LOWEST_BPM, RANGE_BPM
from pianolm.tokenizer.tokenizer import LAST_POSITION, PianoTokenizer
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.vocabulary import CODE_KINDS, Kind

_KINDS = tuple(kind for kind in Kind if kind not in (Kind.BAR, Kind.PEDAL, Kind.AGE))
"""Kinds with a column in every tokenizer: what only an option brings adds none to those without it."""
BLUR_FRAMES = 1.5
"""Standard deviation of what smooths a pattern's onsets and ends, so that neighbouring frames look alike."""
_PITCH_CENTRES = np.arange(0.0, 129.0, 8.0)
_VELOCITY_CENTRES = np.arange(0.0, 129.0, 8.0)
_TEMPO_CENTRES = np.linspace(0.0, 1.0, 13)
_DURATION_CENTRES = np.linspace(0.0, np.log2(FRAMES), 12)
Array32 = NDArray[np.float32]


def token_features(tokenizer: PianoTokenizer) -> Array32:
    """float32 [V, F] features of every id, each row of norm 1. The same tokenizer always gives the same."""
    features_VF = np.concatenate(list(feature_groups(tokenizer).values()), axis=1)
    return features_VF / np.linalg.norm(features_VF, axis=1, keepdims=True)


def feature_groups(tokenizer: PianoTokenizer) -> dict[str, Array32]:
    """Columns [V, f] by what they tell, zero for ids that they say nothing of.

    Only a tokenizer with bars has `bar`, the place of a position among those of a bar, and a kind for it; only one with
    ages `age`, the place of an age among all, and a kind for it.

    `kind` is the kind of token, for L1 to L4 the level and with it the length. Of pattern codes: `onset` and `end`
    frame by frame, both also blurred; `sustain`; `edges`, whether the pattern begins held and whether it ends sounding;
    `duration`, how long what sounds of its notes lasts; `segments`, how many those are. `pitch`: class, octave, and
    position. `velocity`: what a code says in a cell of one note, and in one of two notes of half a beat each;
    `velocity_alone`, whether it is the code that cells of one note take for that. `tempo`: place on the scale of
    ratios.
    """
    vocabulary = tokenizer.vocabulary
    groups = {"kind": _kinds(tokenizer), **_patterns(tokenizer)}
    rows = {Kind.PITCH: {"pitch": _pitches()}, Kind.TEMPO: {"tempo": _tempi(tokenizer.tempo.bpm)}}
    rows[Kind.VELOCITY] = _velocities(tokenizer.codec)
    if tokenizer.bars:
        rows[Kind.BAR] = {"bar": _positions()}
    if tokenizer.held == "ages":
        rows[Kind.AGE] = {"age": _ages()}
    for kind, of_kind in rows.items():
        for name, values in of_kind.items():
            groups[name] = np.zeros((vocabulary.size, values.shape[1]))
            start = vocabulary.offset(kind)
            groups[name][start : start + len(values)] = values
    return {name: values.astype(np.float32) for name, values in groups.items()}


def _kinds(tokenizer: PianoTokenizer) -> NDArray[np.float64]:
    """[V, k] one of each kind; those put by count as reserved."""
    shown = (
        *_KINDS,
        *([Kind.BAR] if tokenizer.bars else ()),
        *([Kind.AGE] if tokenizer.held == "ages" else ()),
    )
    column = [shown.index(kind if kind in shown else Kind.RESERVED) for kind in Kind]
    return np.eye(len(shown))[np.array(column)[tokenizer.vocabulary.kind_of]]


def _patterns(tokenizer: PianoTokenizer) -> dict[str, NDArray[np.float64]]:
    """Of every id [V, …]; all zero where it is no code. Frames count from the beginning of a code's own pattern."""
    sustain, onset = tokenizer.codebook.id_patterns
    frames = np.zeros(tokenizer.vocabulary.size, np.uint64)
    for kind, length in zip(CODE_KINDS, LEVEL_FRAMES, strict=True):
        frames[tokenizer.vocabulary.ids(kind)] = length
    last = np.where(frames > 0, np.uint64(1) << (np.maximum(frames, 1) - np.uint64(1)), np.uint64(0))
    # of a note that ends in the last frame nothing tells whether it goes on in what follows: no end, but an edge
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
    """[V, d] bells of the lengths of a pattern's segments, by ratio, the sum of norm 1."""
    length = segment_lengths(sustain, onset)
    owner = np.repeat(np.arange(sustain.size), np.bitwise_count(segment_starts(sustain, onset)))
    summed = np.zeros((sustain.size, _DURATION_CENTRES.size))
    np.add.at(summed, owner, _bells(np.log2(length), _DURATION_CENTRES, _DURATION_CENTRES[1]))
    norm = np.linalg.norm(summed, axis=1, keepdims=True)
    return summed / np.where(norm > 0, norm, 1)


def _counts(starts: NDArray[np.uint64]) -> NDArray[np.float64]:
    """[V, 4] which of 1, 2, 3 and more segments a pattern has."""
    count = np.minimum(np.bitwise_count(starts).astype(np.int64), 4)
    return (count[:, None] == np.arange(1, 5)).astype(float)


def _bits(masks: NDArray[np.uint64]) -> NDArray[np.float64]:
    """[V, 48] bits of masks [V], the first frame first."""
    return ((masks[:, None] >> np.arange(FRAMES, dtype=np.uint64)) & np.uint64(1)).astype(float)


def _blur(bits: NDArray[np.float64]) -> NDArray[np.float64]:
    """[V, 48] every set frame as a bell of norm 1."""
    return bits @ _bells(np.arange(FRAMES), np.arange(FRAMES), BLUR_FRAMES)


def _bells(
    at: NDArray[np.floating] | NDArray[np.integer],
    centres: NDArray[np.floating] | NDArray[np.integer],
    width: float,
) -> NDArray[np.float64]:
    """[n, c] radial basis: how near values [n] are to centres [c], each row of norm 1."""
    bells = np.exp(-0.5 * ((at[:, None] - centres) / width) ** 2)
    norm: NDArray[np.float64] = np.linalg.norm(bells, axis=1, keepdims=True)
    return bells / norm


def _pitches() -> NDArray[np.float64]:
    """[128, …] class, octave and position of every pitch."""
    pitch = np.arange(128)
    position = _bells(pitch, _PITCH_CENTRES, 8.0)
    return np.concatenate([np.eye(12)[pitch % 12], np.eye(11)[pitch // 12], position], axis=1)


def _positions() -> NDArray[np.float64]:
    """[8, …] place of every position in a bar; the last is that of all later ones, too."""
    position = np.arange(1, LAST_POSITION + 1)
    return _bells(position, position, 1.0)


def _ages() -> NDArray[np.float64]:
    """[16, …] place of every age."""
    number = np.arange(AGES)
    return _bells(number, number, 1.0)


def _tempi(bpm: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K, …] place of every tempo on the scale of ratios from 15 to 480 BPM."""
    place = np.log(bpm / LOWEST_BPM) / np.log(RANGE_BPM)
    return _bells(np.clip(place, 0, 1), _TEMPO_CENTRES, 1 / 12)


def _velocities(codec: VelocityCodec | None) -> dict[str, NDArray[np.float64]]:
    """[K, …] of every code, or no rows in base mode."""
    size = 0 if codec is None else codec.codebook_size
    said, alone = np.zeros((size, 3)), np.zeros((size, 1))
    if codec is not None:
        codes, whole = np.arange(size), np.full(size, (1 << FRAMES) - 1, np.uint64)
        one, second = np.ones(size, np.uint64), np.full(size, 1 | (1 << FRAMES // 2), np.uint64)
        said[:, 0] = codec.decode(codes, whole, one)
        said[:, 1:] = codec.decode(codes, whole, second).reshape(-1, 2)
        velocity = np.arange(1, 128, dtype=np.uint8)
        cells = Cells(
            velocity.astype(np.int32), velocity, whole[:1].repeat(127), one[:1].repeat(127), velocity, 128
        )
        alone[codec.encode(cells)] = 1
    bells = [_bells(column, _VELOCITY_CENTRES, 8.0) for column in said.T]
    return {
        "velocity": bells[0],
        "velocity_of_two": np.concatenate(bells[1:], axis=1),
        "velocity_alone": alone,
    }
