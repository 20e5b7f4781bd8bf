"""A piece as audio: by FluidSynth with a soundfont, or by the built-in piano."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pianolm.music.piece import Piece
from pianolm.report import fluidsynth, piano_synth

SAMPLE_RATE_HZ = 44_100
TAIL_SEC = 1.5
"""Audio after the last note, for its decay and the reverberation."""

_HALF_BAND_TAPS = 32
"""Odd taps of the filter before the rate is halved: it passes up to 9.7 kHz of 44.1 and stops above 12.4."""
_PEAK = 0.89
"""Highest amplitude, 1 dB below full scale; louder audio is scaled down to it."""


def render(
    piece: Piece, sample_rate_hz: int = SAMPLE_RATE_HZ, soundfont: Path | None = None
) -> NDArray[np.float32]:
    """A piece as audio; time 0 is its first beat, as in the MIDI file that it writes.

    Args:
        piece: Any piece.
        sample_rate_hz: Samples a second.
        soundfont: For FluidSynth; None for the built-in piano.

    Returns:
        [samples] mono, within ±1, ending `TAIL_SEC` after the last note and the last beat.

    Raises:
        UserError: FluidSynth is not installed, or fails with this soundfont.
    """
    end_sec = max(piece.beats_sec[-1], piece.notes["offset_sec"].max(initial=-np.inf)) - piece.beats_sec[0]
    n_samples = round((end_sec + TAIL_SEC) * sample_rate_hz)
    if soundfont is None:
        mix = piano_synth.synthesize(piece, n_samples, sample_rate_hz)
    else:
        samples = fluidsynth.synthesize(piece, sample_rate_hz, soundfont)[:n_samples]
        mix = np.concatenate([samples, np.zeros(n_samples - samples.size, np.float32)])
    peak = float(np.abs(mix).max(initial=0.0))
    return mix * np.float32(min(1.0, _PEAK / peak)) if peak > 0 else mix


def wav_bytes(samples_N: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """Samples within ±1 as a WAV file, 16 bit, mono."""
    integers = np.rint(np.clip(samples_N, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(integers.tobytes())
    return buffer.getvalue()


def page_mp3(samples_N: NDArray[np.float32], soundfont: Path | None) -> bytes:
    """Audio of `render` at `SAMPLE_RATE_HZ` as an MP3 file for a page.

    The built-in piano has no partials above 11 kHz, so its sound is encoded at half the rate: the same to hear, in
    two thirds of the time.
    """
    if soundfont is None:
        return mp3_bytes(halve_rate(samples_N), SAMPLE_RATE_HZ // 2)
    return mp3_bytes(samples_N, SAMPLE_RATE_HZ)


def halve_rate(samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """[⌈N / 2⌉] every other sample, after a half-band filter without delay (a windowed sinc)."""
    offset = np.arange(1 - _HALF_BAND_TAPS, _HALF_BAND_TAPS, 2)
    window = 0.5 + 0.5 * np.cos(np.pi * offset / _HALF_BAND_TAPS)
    taps = (np.sin(np.pi * offset / 2) / (np.pi * offset) * window).astype(np.float32)
    even, odd = samples_N[::2], samples_N[1::2]
    # odd sample m lies at 2 m + 1; the taps reach _HALF_BAND_TAPS / 2 odd samples to either side of an even one
    filtered = np.convolve(odd, taps) if odd.size else np.zeros(taps.size, np.float32)
    reach = _HALF_BAND_TAPS // 2 - 1
    halved = np.float32(0.5) * even
    halved[: filtered.size - reach] += filtered[reach:][: halved.size]
    return halved


def mp3_bytes(samples_N: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """Samples within ±1 as an MP3 file of 56 kbit/s, from 16 kHz on.

    The bit rate is constant: players find a second of such a file by its position. With a variable rate they estimate
    it, and land up to half a second beside it. At lower bit rates the file does not tell players to skip its first
    26 ms of silence.
    """
    import soundfile  # needed for the page only

    # a fraction of the range of rates, 32 to 320 kbit/s from 32 kHz on, 8 to 160 below
    level = 0.9 if sample_rate_hz >= 32_000 else 0.7
    buffer = io.BytesIO()
    soundfile.write(
        buffer, samples_N, sample_rate_hz, format="MP3", compression_level=level, bitrate_mode="CONSTANT"
    )
    return buffer.getvalue()
