"""Sound by the program FluidSynth with a soundfont.

The program rather than its library: a crash ends only the program, and no binding has to fit its version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.midi import write_midi
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece

SOUNDFONT_VARIABLE = "PIANOLM_SOUNDFONT"
_SOUNDFONT_DIRECTORIES = (
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
_LIMIT_SEC = 600
_GAIN = 0.6
_ERROR_MESSAGES = ("not a SoundFont", "ailed to load")
"""Parts of what FluidSynth prints when it cannot read a soundfont; its exit code is 0 all the same."""
_TEST_RATE_HZ = 8000


def choose_soundfont(choice: str | None) -> Path | None:
    """Chooses a soundfont that works, or the built-in piano.

    Args:
        choice: The path of a soundfont; "auto" for the one that the environment variable `PIANOLM_SOUNDFONT` names, or
            else an installed one that works; None for the built-in piano.

    Returns:
        The soundfont; None for the built-in piano.

    Raises:
        UserError: A soundfont that was named does not work.
    """
    named = os.environ.get(SOUNDFONT_VARIABLE) if choice == "auto" else choice
    if named:
        path = Path(named).expanduser()
        synthesize(_one_note(), _TEST_RATE_HZ, path)
        return path
    if choice is None or shutil.which("fluidsynth") is None:
        return None
    for path in _installed_soundfonts():
        try:
            synthesize(_one_note(), _TEST_RATE_HZ, path)
        except UserError:  # an installed soundfont that does not work is skipped
            continue
        return path
    return None


def _installed_soundfonts() -> list[Path]:
    """Soundfonts in the usual directories, preferred ones first."""
    paths = [
        path for directory in _SOUNDFONT_DIRECTORIES for path in sorted(Path(directory).glob("*.sf[23]"))
    ]
    rank = {name: number for number, name in enumerate(_PREFERRED_SOUNDFONTS)}
    return sorted(paths, key=lambda path: rank.get(path.name, len(rank)))


def _one_note() -> Piece:
    return Piece.from_notes(make_notes([0.0], [0.2], [60], [100]), np.array([0.0, 0.5]))


def synthesize(piece: Piece, sample_rate_hz: int, soundfont: Path) -> NDArray[np.float32]:
    """[N] mono samples of a piece, from its first beat on.

    Raises:
        UserError: FluidSynth is not installed, or fails with this soundfont.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise UserError(
            f"soundfont {soundfont}: the program fluidsynth is not installed; install it, or use the built-in piano "
            "(generate.soundfont=null)"
        )
    if not soundfont.is_file():
        raise UserError(
            f"soundfont {soundfont}: no such file; give an .sf2 or .sf3 file, or generate.soundfont=null"
        )
    try:
        stereo, messages = _run(program, piece, sample_rate_hz, soundfont)
    except (OSError, EOFError, subprocess.SubprocessError, wave.Error) as error:
        raise UserError(
            f"soundfont {soundfont}: fluidsynth fails ({type(error).__name__}); try another, or "
            "generate.soundfont=null"
        ) from error
    refused = any(message in messages for message in _ERROR_MESSAGES)
    if refused or (piece.notes.size and not stereo.any()):
        raise UserError(
            f"soundfont {soundfont}: fluidsynth cannot play it; give another, or generate.soundfont=null"
        )
    return stereo.mean(axis=1, dtype=np.float32) / np.float32(32768)


def _run(program: str, piece: Piece, sample_rate_hz: int, soundfont: Path) -> tuple[NDArray[np.int16], str]:
    """Samples [N, channels] that the program writes, and its messages."""
    with tempfile.TemporaryDirectory() as folder:
        midi, sound = Path(folder, "in.mid"), Path(folder, "out.wav")
        write_midi(midi, piece.notes, piece.beats_sec)
        command = [program, "-n", "-i", "-q", "-g", str(_GAIN), "-r", str(sample_rate_hz)]
        command += ["-T", "wav", "-O", "s16", "-F", str(sound), str(soundfont), str(midi)]
        done = subprocess.run(command, capture_output=True, timeout=_LIMIT_SEC, check=True, errors="replace")
        with wave.open(str(sound)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return samples.reshape(-1, file.getnchannels()), done.stderr
