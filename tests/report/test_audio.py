"""Audio: notes at their time, pitch and loudness by the built-in piano; WAV and MP3 files."""

from __future__ import annotations

import io
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile

from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece
from pianolm.report import piano_synth
from pianolm.report.audio import TAIL_SEC, halve_rate, mp3_bytes, page_mp3, render, wav_bytes

RATE_HZ = 22_050


def piece(
    onset: list[float], offset: list[float], pitch: list[int], velocity: list[int], beats: int = 8
) -> Piece:
    return Piece.from_notes(make_notes(onset, offset, pitch, velocity), np.arange(beats + 1) * 0.5)


def level_db(samples: np.ndarray, start_sec: float, end_sec: float, rate_hz: int = RATE_HZ) -> float:
    part = samples[int(start_sec * rate_hz) : int(end_sec * rate_hz)].astype(float)
    return float(10 * np.log10((part**2).mean() + 1e-20))


def peak_hz(samples: np.ndarray, near_hz: float, rate_hz: int = RATE_HZ) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size), 1 << 19))
    hz = np.fft.rfftfreq(1 << 19, 1 / rate_hz)
    inside = (hz > near_hz * 0.97) & (hz < near_hz * 1.03)
    return float(hz[inside][spectrum[inside].argmax()])


def test_notes_sound_at_their_times_and_silence_follows() -> None:
    sound = render(piece([0.5, 2.5], [1.0, 3.0], [60, 64], [80, 80]), RATE_HZ)
    assert sound.dtype == np.float32
    assert sound.size == round((4.0 + TAIL_SEC) * RATE_HZ)
    assert np.abs(sound[: int(0.5 * RATE_HZ)]).max() < 1e-6
    assert level_db(sound, 0.5, 1.0) > -40
    assert level_db(sound, 2.5, 3.0) > -40
    assert level_db(sound, 2.2, 2.5) < level_db(sound, 0.5, 1.0) - 35
    assert level_db(sound, 4.5, 5.5) < -80


@pytest.mark.parametrize("pitch", [33, 57, 69, 88])
def test_a_note_sounds_at_its_pitch(pitch: int) -> None:
    hz = 440 * 2 ** ((pitch - 69) / 12)
    sound = render(piece([0.0], [3.0], [pitch], [80]), RATE_HZ)
    assert peak_hz(sound[int(0.1 * RATE_HZ) :], hz) == pytest.approx(hz, rel=6e-4)  # one cent
    spectrum = np.abs(np.fft.rfft(sound))
    strongest_hz = spectrum.argmax() * RATE_HZ / sound.size
    assert strongest_hz / hz == pytest.approx(round(strongest_hz / hz), abs=0.02)  # one of its partials
    if pitch >= 57:
        assert strongest_hz == pytest.approx(hz, rel=1e-3)


def test_a_stronger_strike_is_louder_and_brighter() -> None:
    sounds = [render(piece([0.0], [1.0], [60], [velocity]), RATE_HZ) for velocity in (20, 50, 80, 110)]
    levels = [level_db(sound, 0, 1) for sound in sounds]
    assert all(louder - softer > 3 for softer, louder in pairwise(levels))
    centres = []
    for sound in sounds:
        power = np.abs(np.fft.rfft(sound)) ** 2
        centres.append(float((np.arange(power.size) * power).sum() / power.sum()))
    assert centres == sorted(centres)
    assert centres[-1] > 1.2 * centres[0]


def test_a_longer_note_sounds_longer_and_decays() -> None:
    short, long = (render(piece([0.0], [end], [60], [80]), RATE_HZ) for end in (0.5, 3.5))
    assert level_db(long, 1.5, 2.0) > level_db(short, 1.5, 2.0) + 30
    assert level_db(long, 3.0, 3.5) < level_db(long, 0.1, 0.6) - 8


def test_time_0_is_the_first_beat() -> None:
    notes = make_notes([10.5], [11.0], [60], [80])
    shifted = Piece.from_notes(notes, 10 + np.arange(9) * 0.5)
    assert np.array_equal(render(shifted, RATE_HZ), render(piece([0.5], [1.0], [60], [80]), RATE_HZ))


def test_sound_and_midi_file_are_in_time(tmp_path: Path) -> None:
    """Beats of unequal length, notes off the frames: each tenth of the sound is within 1 ms of the file's notes."""
    rng = np.random.default_rng(3)
    beats_sec = 3.2 + np.cumsum([0, *rng.uniform(0.4, 0.8, 20)])
    onset = rng.uniform(beats_sec[0], beats_sec[-1] - 0.5, 40)
    notes = make_notes(onset, onset + 0.4, rng.integers(40, 90, 40), rng.integers(30, 110, 40))
    music = Piece.from_notes(notes, beats_sec)
    music.to_midi(tmp_path / "a.mid")
    (written,) = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments
    rows = [(note.start, note.end, note.pitch, note.velocity) for note in written.notes]
    read_back = Piece.from_notes(make_notes(*zip(*rows, strict=True)), beats_sec - beats_sec[0])
    sound, expected = render(music, RATE_HZ), render(read_back, RATE_HZ)
    for part, other in zip(np.array_split(sound, 10)[:9], np.array_split(expected, 10)[:9], strict=True):
        match = np.fft.irfft(np.fft.rfft(part, 1 << 17) * np.fft.rfft(other, 1 << 17).conj())
        lag = (int(match.argmax()) + (1 << 16)) % (1 << 17) - (1 << 16)
        assert abs(lag) <= RATE_HZ / 1000


def test_a_loud_cluster_does_not_clip_and_nothing_is_nan() -> None:
    pitches = list(range(128))
    sound = render(piece([0.0] * 128, [2.0] * 128, pitches, [127] * 128), RATE_HZ)
    assert np.isfinite(sound).all()
    assert 0.8 < np.abs(sound).max() < 0.95
    steps = np.abs(np.diff(sound.astype(float)))
    assert (np.abs(sound) > 0.999 * np.abs(sound).max()).sum() < 5, "no flat tops"
    assert steps.max() < 1


@pytest.mark.parametrize("rate_hz", [8000, 44_100])
def test_extreme_notes_are_rendered(rate_hz: int) -> None:
    odd = piece([0.0, 0.0, 0.1], [0.0, 70.0, 0.101], [127, 21, 0], [1, 127, 127])
    sound = render(odd, rate_hz)
    assert np.isfinite(sound).all()
    assert np.abs(sound[rate_hz : 2 * rate_hz]).max() > 0.01


def test_a_piece_without_notes_is_silent() -> None:
    empty = piece([], [], [], [])
    assert not render(empty, RATE_HZ).any()
    assert len(wav_bytes(render(empty, RATE_HZ), RATE_HZ)) > 2 * 4 * RATE_HZ


def test_rendering_is_deterministic() -> None:
    music = piece([0.0, 0.5], [1.0, 1.0], [50, 70], [40, 90])
    first = render(music, RATE_HZ)
    piano_synth._key.cache_clear()
    assert np.array_equal(first, render(music, RATE_HZ))


def test_a_wav_file_has_the_rendered_samples() -> None:
    music = piece([0.0], [1.0], [69], [90])
    with wave.open(io.BytesIO(wav_bytes(render(music, RATE_HZ), RATE_HZ))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE_HZ)
        integers = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    np.testing.assert_allclose(integers / 32767, render(music, RATE_HZ), atol=1 / 32767)


@pytest.mark.parametrize("soundfont", [None, Path("any.sf2")])
def test_mp3_is_small_and_has_the_same_sound(soundfont: Path | None) -> None:
    sound = render(piece([0.0, 1.0], [1.0, 2.0], [69, 60], [90, 90]), 44_100)
    encoded = page_mp3(sound, soundfont)
    assert len(encoded) < 2 * sound.size / 9
    expected = sound if soundfont else sound[::2]
    back, rate_hz = soundfile.read(io.BytesIO(encoded), dtype="float32")
    assert (rate_hz, back.size) == (44_100 if soundfont else 22_050, expected.size)
    assert np.corrcoef(back, expected)[0, 1] > 0.99


def test_halving_the_rate_keeps_low_frequencies_in_place_and_stops_high_ones() -> None:
    time_sec = np.arange(8821) / 44_100
    for hertz, expected in ((440, 1.0), (8000, 1.0), (13_000, 0.0)):
        sound = np.sin(2 * np.pi * hertz * time_sec).astype(np.float32)
        halved = halve_rate(sound)
        assert halved.size == 4411
        np.testing.assert_allclose(halved[20:-20], expected * sound[::2][20:-20], atol=3e-3)
    assert [halve_rate(np.ones(n, np.float32)).size for n in range(4)] == [0, 1, 1, 2]


@pytest.mark.parametrize("rate_hz", [44_100, 22_050])
def test_a_second_of_an_mp3_file_is_found_by_its_position_in_soft_and_loud_music(rate_hz: int) -> None:
    """Players seek like this: they start to decode at the fraction of the bytes that has passed of the time."""
    rng = np.random.default_rng(0)
    onset = np.arange(40) * 1.0
    velocity = np.where(onset < 20, 10, 120)
    notes = make_notes(onset, onset + 0.5, rng.integers(40, 90, 40), velocity)
    sound = render(Piece.from_notes(notes, np.arange(81) * 0.5), rate_hz)
    encoded = mp3_bytes(sound, rate_hz)
    header = b"\xff\xfb" if rate_hz == 44_100 else b"\xff\xf3"  # MPEG-1 or MPEG-2, layer III
    for fraction in (0.25, 0.5, 0.75):
        frame = encoded.index(header, int(fraction * len(encoded)))
        back = soundfile.read(io.BytesIO(encoded[frame:]), dtype="float32")[0][rate_hz : 3 * rate_hz]
        expected = sound[int(fraction * sound.size) :][: 5 * rate_hz]
        width = 1 << 19
        match = np.fft.irfft(np.fft.rfft(expected, width) * np.fft.rfft(back, width).conj(), width)
        assert match.argmax() == pytest.approx(rate_hz, abs=0.06 * rate_hz)


@pytest.mark.parametrize("size", [1, 700, 40_000])
def test_reverberation_in_blocks_is_the_beginning_of_the_convolution(size: int) -> None:
    rng = np.random.default_rng(0)
    signal, response = rng.normal(size=size).astype(np.float32), rng.normal(size=600).astype(np.float32)
    expected = np.convolve(signal.astype(float), response)[:size]
    assert np.abs(piano_synth._convolve(signal, response) - expected).max() < 1e-3
