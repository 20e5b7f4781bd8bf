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


def mp3_bytes(samples_N: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """Samples within ±1 as an MP3 file of 56 kbit/s.

    The bit rate is constant: players find a second of such a file by its position. With a variable rate they estimate
    it, and land up to half a second beside it. At lower rates the file does not tell players to skip its first 26 ms of
    silence.
    """
    import soundfile  # needed for the page only

    buffer = io.BytesIO()
    soundfile.write(
        buffer, samples_N, sample_rate_hz, format="MP3", compression_level=0.9, bitrate_mode="CONSTANT"
    )
    return buffer.getvalue()
