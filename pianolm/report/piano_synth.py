"""Sound by a built-in piano: partials added up, without any program or file.

A partial is a decaying sine, `Re(a · exp(s t))` with complex a and s. With time as the start of a block plus an offset,
all partials of a note are one matrix product of their values at the starts and at the offsets, and only the offsets
need exponentials, once a key.

Shapes: B blocks, K partials, N samples, P partials of the strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pianolm.music.piece import Piece

_LOUDEST = 0.25  # root mean energy of one note at velocity 127, low enough for chords
_BLOCK = 256  # samples; both factors of the matrix product then have about one size for a note of a second
_LONGEST_SEC = 60.0  # a note is silent after this, however long it is held
_MAX_PARTIALS = 48
_HIGHEST_PARTIAL_HZ = 7000  # above the fundamental; higher partials are too faint to hear
_BEATING = 2 ** (0.5 / 1200)  # the strings of one key are half a cent apart
_KNOCK_MODES = 10  # of case and soundboard, heard as the thud of the key
_ROOM_SEC, _ROOM_LEVEL = 0.9, 0.10


def synthesize(piece: Piece, n_samples: int, sample_rate_hz: int) -> NDArray[np.float32]:
    """[N] samples of a piece, from its first beat on, in a small room."""
    return _add_room(_mix_notes(piece, n_samples, sample_rate_hz), sample_rate_hz)


def _mix_notes(piece: Piece, n_samples: int, sample_rate_hz: int) -> NDArray[np.float32]:
    mix = np.zeros(n_samples, np.float32)
    for onset_sec, offset_sec, pitch, velocity in piece.notes.tolist():
        first = round((onset_sec - piece.beats_sec[0]) * sample_rate_hz)
        sound = _note(pitch, velocity, offset_sec - onset_sec, sample_rate_hz)[: n_samples - first]
        mix[first : first + sound.size] += sound
    return mix


def _note(pitch: int, velocity: int, held_sec: float, sample_rate_hz: int) -> NDArray[np.float32]:
    """[N] one note from its onset until it is silent."""
    key = _key(pitch, sample_rate_hz)
    held_sec = min(held_sec, _LONGEST_SEC)
    damp_sec = 0.03 + 0.05 * 2 ** ((60 - pitch) / 24)  # thick strings stop more slowly
    samples = int((held_sec + 6 * damp_sec) * sample_rate_hz)
    block_start_BK = np.empty((-(-samples // _BLOCK), key.step.size), np.complex128)
    block_start_BK[0], block_start_BK[1:] = _amplitudes(key, velocity), key.step
    np.cumprod(block_start_BK, axis=0, out=block_start_BK)
    starts = np.concatenate(
        [block_start_BK.real, block_start_BK.imag], axis=1, dtype=np.float32, casting="same_kind"
    )
    sound = (starts @ key.in_block).ravel()[:samples]
    attack = min(int((0.001 + 0.004 * (1 - velocity / 127)) * sample_rate_hz), samples)
    sound[:attack] *= np.sin(np.linspace(0, np.pi / 2, attack, dtype=np.float32)) ** 2
    release = samples - int(held_sec * sample_rate_hz)
    release_sec = np.arange(release, dtype=np.float32) / sample_rate_hz
    sound[samples - release :] *= np.exp(-release_sec / damp_sec) * np.linspace(
        1, 0, release, dtype=np.float32
    )
    return sound


@dataclass(frozen=True)
class _Key:
    """One key of the piano: partials of its strings, each with two stages of decay, and the knock of the key.

    Attributes:
        hz: [P] frequencies of the P partials of the strings; K is 2 P plus the number of modes of the knock.
        shape: [P] complex amplitudes before the hammer's hardness is applied.
        knock: [modes] complex amplitudes of the knock.
        step: [K] complex factors of the partials from block to block.
        in_block: [2 K, block] real and negative imaginary parts of each partial within a block.
    """

    hz: NDArray[np.float64]
    shape: NDArray[np.complex128]
    knock: NDArray[np.complex128]
    step: NDArray[np.complex128]
    in_block: NDArray[np.float32]


@lru_cache(maxsize=256)
def _key(pitch: int, sample_rate_hz: int) -> _Key:
    """Partials of a key.

    Inharmonicity has a term for the treble and one for the wound strings of the bass (Rigaud, David and Daudet, A
    parametric model of piano tuning, 2011). The decay has two stages, a fast one while the strings move in phase and a
    slow one of the rest (Weinreich, Coupled piano strings, 1977).
    """
    rng = np.random.default_rng(pitch)  # every key always has the same phases
    fundamental_hz = 440 * 2 ** ((pitch - 69) / 12)
    stiffness = np.exp(0.0926 * pitch - 13.64) + np.exp(-0.0847 * pitch - 5.82)
    number_P = np.arange(1, _MAX_PARTIALS + 1)
    hz_P = fundamental_hz * number_P * np.sqrt((1 + stiffness * number_P**2) / (1 + stiffness))
    audible = hz_P < min(0.45 * sample_rate_hz, fundamental_hz + _HIGHEST_PARTIAL_HZ)
    number_P, hz_P = number_P[audible], hz_P[audible]
    level_P = 0.12 + np.abs(np.sin(np.pi * number_P / 8))  # the hammer strikes at an eighth of the string
    level_P /= number_P**0.7
    level_P *= hz_P / np.hypot(hz_P, 90)  # the soundboard radiates the lowest frequencies weakly
    level_P *= 10 ** (rng.normal(0, 2, hz_P.size) / 20)
    knock_hz = rng.uniform(70, 500, _KNOCK_MODES)
    fast_P = 10 * 2 ** ((pitch - 45) / 24) * (1 + 0.15 * (number_P - 1)) * np.log(10) / 20
    hertz_K = np.concatenate([hz_P, hz_P * _BEATING, knock_hz])
    decay_K = np.concatenate([fast_P, fast_P / 5, np.full(_KNOCK_MODES, 1 / 0.02)])
    exponent_K = -decay_K + 2j * np.pi * hertz_K
    in_block = np.exp(np.outer(exponent_K, np.arange(_BLOCK) / sample_rate_hz))
    return _Key(
        hz=hz_P,
        shape=level_P * np.exp(1j * rng.uniform(0, 2 * np.pi, hz_P.size)),
        knock=0.16 * np.exp(1j * rng.uniform(0, 2 * np.pi, _KNOCK_MODES)) / np.sqrt(_KNOCK_MODES),
        step=np.exp(exponent_K * (_BLOCK / sample_rate_hz)),
        in_block=np.concatenate([in_block.real, -in_block.imag]).astype(np.float32),
    )


def _amplitudes(key: _Key, velocity: int) -> NDArray[np.complex128]:
    """[K] complex amplitudes of a key's partials: a faster hammer is harder, so the tone is brighter."""
    brightness_hz = 720 * 2 ** ((velocity - 64) / 45)
    string_P = key.shape * np.exp(-(key.hz - key.hz[:1]) / brightness_hz)
    string_P /= np.sqrt((np.abs(string_P) ** 2).sum() / 2)
    loudness = _LOUDEST * (velocity / 127) ** 1.8
    return loudness * np.concatenate([0.78 * string_P, 0.22 * string_P, key.knock])


def _add_room(dry_N: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float32]:
    """Adds the reverberation of a small room: decaying noise."""
    rng = np.random.default_rng(0)
    size = int(_ROOM_SEC * sample_rate_hz)
    delay_sec = np.arange(size) / sample_rate_hz
    response = rng.normal(0, 1, size) * np.exp(-delay_sec * np.log(1000) / _ROOM_SEC)
    response = np.convolve(response, np.hanning(2 + sample_rate_hz // 4000), "same")  # walls absorb treble
    response[: int(0.012 * sample_rate_hz)] = 0  # the first wall is two metres away
    response *= np.linspace(1, 0, size) * _ROOM_LEVEL * 2 / np.sqrt((response**2).sum())
    return dry_N + _convolve(dry_N, response.astype(np.float32))


def _convolve(signal_N: NDArray[np.float32], response_M: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N] the beginning of a convolution, computed in blocks: one transform of the whole would not fit into a cache."""
    width = 1 << (4 * response_M.size).bit_length()
    step, spectrum = width - response_M.size + 1, np.fft.rfft(response_M, width)
    result_N = np.zeros(signal_N.size + width, np.float32)
    for start in range(0, signal_N.size, step):
        block = np.fft.rfft(signal_N[start : start + step], width) * spectrum
        result_N[start : start + width] += np.fft.irfft(block, width).astype(np.float32)
    return result_N[: signal_N.size]
