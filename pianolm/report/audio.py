"""Sound: a piece as audio, by FluidSynth with a soundfont or by a piano of our own that needs neither.

The own piano adds up partials. A partial is a decaying sine, `Re(a · exp(s t))` with complex a and s. With time
as a block's start plus an offset, all partials of a note are one matrix product of their values at the starts and at
the offsets, and only the latter need exponentials, once a key. Shapes: K partials, N samples.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.midi import write_midi
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece

SAMPLE_RATE_HZ = 44_100
TAIL_SEC = 1.5
"""Audio after the last note ends: what still sounds of it and of the room."""

SOUNDFONT_VARIABLE = "PIANOLM_SOUNDFONT"
_SOUNDFONT_PLACES = (
    "/usr/share/sounds/sf2",
    "/usr/share/soundfonts",
    "/usr/local/share/soundfonts",
    "/opt/homebrew/share/soundfonts",
)
_PREFERRED_SOUNDFONTS = (
    "FluidR3_GM.sf2",
    "FluidR3_GM.sf3",
    "default-GM.sf2",
    "default-GM.sf3",
    "default.sf2",
)
_FLUIDSYNTH_LIMIT_SEC = 600
_FLUIDSYNTH_GAIN = 0.6
_COMPLAINTS = ("not a SoundFont", "ailed to load")

_PEAK = 0.89  # of a mix that would be louder: 1 dB below full scale
_LOUDEST = 0.25  # root of the energy of one note at velocity 127, so that chords fit in
_BLOCK = 256  # samples: the two factors of the matrix product are about as large for a note of a second
_LONGEST_SEC = 60.0  # that a note is heard, however long the key is held
_MAX_PARTIALS = 48
_HIGHEST_PARTIAL_HZ = 7000  # above the fundamental; what lies higher is faint
_BEATING = 2 ** (0.5 / 1200)  # strings of one key are half a cent apart
_KNOCK_MODES = 10  # of case and soundboard, heard as the thud of the key
_ROOM_SEC, _ROOM_LEVEL = 0.9, 0.10


def render(
    piece: Piece, sample_rate_hz: int = SAMPLE_RATE_HZ, soundfont: Path | None = None
) -> NDArray[np.float32]:
    """A piece as sound; time 0 is its first beat, as in the MIDI file that it writes.

    Args:
        piece: Any piece.
        sample_rate_hz: Samples a second.
        soundfont: File for FluidSynth; None for the own piano.

    Returns:
        [samples] mono, within ±1, ending `TAIL_SEC` after the last note and the last beat.

    Raises:
        UserError: FluidSynth is not there or makes no sound of that file.
    """
    end_sec = max(piece.beats_sec[-1], piece.notes["offset_sec"].max(initial=-np.inf)) - piece.beats_sec[0]
    total = round((end_sec + TAIL_SEC) * sample_rate_hz)
    if soundfont is None:
        mix = _add_room(_add_notes(piece, total, sample_rate_hz), sample_rate_hz)
    else:
        played = _fluidsynth(piece, sample_rate_hz, soundfont)[:total]
        mix = np.concatenate([played, np.zeros(total - played.size, np.float32)])
    peak = float(np.abs(mix).max(initial=0.0))
    return mix * np.float32(min(1.0, _PEAK / peak)) if peak > 0 else mix


def save_audio(
    piece: Piece, path: str | Path, sample_rate_hz: int = SAMPLE_RATE_HZ, soundfont: Path | None = None
) -> None:
    """Renders a piece into a WAV file: 16 bit, mono."""
    Path(path).write_bytes(wav_bytes(render(piece, sample_rate_hz, soundfont), sample_rate_hz))


def wav_bytes(samples_N: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """Samples within ±1 as a WAV file, 16 bit, mono."""
    whole = np.rint(np.clip(samples_N, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(whole.tobytes())
    return buffer.getvalue()


def mp3_bytes(samples_N: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """Samples within ±1 as an MP3 file of about 40 kbit/s, a twentieth of the WAV file; every browser plays it."""
    import soundfile  # only who wants a page needs it

    buffer = io.BytesIO()
    soundfile.write(
        buffer, samples_N, sample_rate_hz, format="MP3", compression_level=0.5, bitrate_mode="VARIABLE"
    )
    return buffer.getvalue()


def choose_soundfont(choice: str | None) -> Path | None:
    """Settles what plays: a soundfont by FluidSynth, or None for the own piano.

    Args:
        choice: A path; "auto" for what `PIANOLM_SOUNDFONT` names or lies in the usual places, if it and FluidSynth
            work; None for the own piano.

    Raises:
        UserError: A soundfont that was named does not work.
    """
    named = os.environ.get(SOUNDFONT_VARIABLE) if choice == "auto" else choice
    if named:
        path = Path(named).expanduser()
        _fluidsynth(_one_note(), 8000, path)
        return path
    if choice is None or shutil.which("fluidsynth") is None:
        return None
    for path in _installed_soundfonts():
        try:
            _fluidsynth(_one_note(), 8000, path)
        except UserError:  # one that does not work is as good as none
            continue
        return path
    return None


def _installed_soundfonts() -> list[Path]:
    found = [path for place in _SOUNDFONT_PLACES for path in sorted(Path(place).glob("*.sf[23]"))]
    rank = {name: number for number, name in enumerate(_PREFERRED_SOUNDFONTS)}
    return sorted(found, key=lambda path: rank.get(path.name, len(rank)))


def _one_note() -> Piece:
    return Piece.from_notes(make_notes([0.0], [0.2], [60], [100]), np.array([0.0, 0.5]))


def _fluidsynth(piece: Piece, sample_rate_hz: int, soundfont: Path) -> NDArray[np.float32]:
    """[N] what the program plays.

    The program rather than its library: a crash ends it and not us, and it needs no binding that fits its version.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise UserError(
            f"soundfont {soundfont}: the program fluidsynth that plays it is not installed; install it, or use the own "
            "piano (generate.soundfont=null)"
        )
    if not soundfont.is_file():
        raise UserError(
            f"soundfont {soundfont}: no such file; give an .sf2 or .sf3 file, or generate.soundfont=null"
        )
    with tempfile.TemporaryDirectory() as folder:
        midi, sound = Path(folder, "in.mid"), Path(folder, "out.wav")
        write_midi(midi, piece.notes, piece.beats_sec)
        command = [program, "-n", "-i", "-q", "-g", str(_FLUIDSYNTH_GAIN), "-r", str(sample_rate_hz)]
        command += ["-T", "wav", "-O", "s16", "-F", str(sound), str(soundfont), str(midi)]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=_FLUIDSYNTH_LIMIT_SEC, check=True, errors="replace"
            )
            with wave.open(str(sound)) as file:
                whole = np.frombuffer(file.readframes(file.getnframes()), "<i2")
                stereo = whole.reshape(-1, file.getnchannels())
        except (OSError, EOFError, subprocess.SubprocessError, wave.Error) as error:
            raise UserError(
                f"soundfont {soundfont}: fluidsynth fails ({type(error).__name__}); try another, or "
                "generate.soundfont=null"
            ) from error
    refused = any(
        complaint in done.stderr for complaint in _COMPLAINTS
    )  # then another plays, and it ends well
    if refused or (piece.notes.size and not stereo.any()):
        raise UserError(
            f"soundfont {soundfont}: fluidsynth cannot play it; give another, or generate.soundfont=null"
        )
    return stereo.mean(axis=1, dtype=np.float32) / np.float32(32768)


def _add_notes(piece: Piece, total: int, sample_rate_hz: int) -> NDArray[np.float32]:
    mix = np.zeros(total, np.float32)
    for onset_sec, offset_sec, pitch, velocity in piece.notes.tolist():
        at = round((onset_sec - piece.beats_sec[0]) * sample_rate_hz)
        sound = _note(pitch, velocity, offset_sec - onset_sec, sample_rate_hz)[: total - at]
        mix[at : at + sound.size] += sound
    return mix


def _note(pitch: int, velocity: int, held_sec: float, sample_rate_hz: int) -> NDArray[np.float32]:
    """[N] one note from its strike until it is silent."""
    key = _key(pitch, sample_rate_hz)
    held_sec = min(held_sec, _LONGEST_SEC)
    damp_sec = 0.03 + 0.05 * 2 ** ((60 - pitch) / 24)  # heavy strings are slower to stop
    samples = int((held_sec + 6 * damp_sec) * sample_rate_hz)
    at_block = np.empty((-(-samples // _BLOCK), key.step.size), np.complex128)
    at_block[0], at_block[1:] = _amplitudes(key, velocity), key.step
    np.cumprod(at_block, axis=0, out=at_block)
    left = np.concatenate([at_block.real, at_block.imag], axis=1, dtype=np.float32, casting="same_kind")
    sound = (left @ key.in_block).ravel()[:samples]
    rise = min(int((0.001 + 0.004 * (1 - velocity / 127)) * sample_rate_hz), samples)
    sound[:rise] *= np.sin(np.linspace(0, np.pi / 2, rise, dtype=np.float32)) ** 2
    damped = samples - int(held_sec * sample_rate_hz)
    fall_sec = np.arange(damped, dtype=np.float32) / sample_rate_hz
    sound[samples - damped :] *= np.exp(-fall_sec / damp_sec) * np.linspace(1, 0, damped, dtype=np.float32)
    return sound


@dataclass(frozen=True)
class _Key:
    """One key of the piano: its K partials, each in two stages of decay, and its knock.

    Attributes:
        hz: [P] frequencies of the P partials of the strings; K is twice that and the knock's modes.
        shape: [P] complex, level and phase but for the hammer's hardness.
        knock: [modes] complex amplitudes.
        step: [K] complex, what a partial is multiplied by from block to block.
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
    parametric model of piano tuning, 2011). Two stages: the strings first move together and give their energy away
    fast, what is left of it lives on (Weinreich, Coupled piano strings, 1977).
    """
    rng = np.random.default_rng(pitch)  # the same piano every time
    fundamental_hz = 440 * 2 ** ((pitch - 69) / 12)
    stiffness = np.exp(0.0926 * pitch - 13.64) + np.exp(-0.0847 * pitch - 5.82)
    number_P = np.arange(1, _MAX_PARTIALS + 1)
    hz_P = fundamental_hz * number_P * np.sqrt((1 + stiffness * number_P**2) / (1 + stiffness))
    audible = hz_P < min(0.45 * sample_rate_hz, fundamental_hz + _HIGHEST_PARTIAL_HZ)
    number_P, hz_P = number_P[audible], hz_P[audible]
    level_P = 0.12 + np.abs(np.sin(np.pi * number_P / 8))  # struck at an eighth of the string
    level_P /= number_P**0.7
    level_P *= hz_P / np.hypot(hz_P, 90)  # the soundboard radiates little of the lowest
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
    """[K] complex amplitudes of a key's partials: a fast hammer is a hard one, and gives a brighter tone."""
    brightness_hz = 720 * 2 ** ((velocity - 64) / 45)
    string_P = key.shape * np.exp(-(key.hz - key.hz[:1]) / brightness_hz)
    string_P /= np.sqrt((np.abs(string_P) ** 2).sum() / 2)
    loudness = _LOUDEST * (velocity / 127) ** 1.8
    return loudness * np.concatenate([0.78 * string_P, 0.22 * string_P, key.knock])


def _add_room(dry_N: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float32]:
    """Adds what a small room answers: noise that dies away."""
    rng = np.random.default_rng(0)
    size = int(_ROOM_SEC * sample_rate_hz)
    since_sec = np.arange(size) / sample_rate_hz
    answer = rng.normal(0, 1, size) * np.exp(-since_sec * np.log(1000) / _ROOM_SEC)
    answer = np.convolve(answer, np.hanning(2 + sample_rate_hz // 4000), "same")  # walls take the treble
    answer[: int(0.012 * sample_rate_hz)] = 0  # the first wall is four metres away
    answer *= np.linspace(1, 0, size) * _ROOM_LEVEL * 2 / np.sqrt((answer**2).sum())
    width = 1 << (dry_N.size + size).bit_length()
    spectrum = np.fft.rfft(dry_N, width) * np.fft.rfft(answer.astype(np.float32), width)
    return dry_N + np.fft.irfft(spectrum, width)[: dry_N.size].astype(np.float32)
