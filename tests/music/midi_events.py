"""MIDI files from single events, for tests of reading."""

from __future__ import annotations

from pathlib import Path

import mido

Event = mido.Message | mido.MetaMessage


def write_events(path: Path, *tracks: list[Event], ticks: int = 100) -> Path:
    midi = mido.MidiFile(ticks_per_beat=ticks)
    midi.tracks.extend(mido.MidiTrack(track) for track in tracks)
    midi.save(path)
    return path


def note(pitch: int, ticks: int, velocity: int = 64, channel: int = 0, wait: int = 0) -> list[mido.Message]:
    return [
        mido.Message("note_on", note=pitch, velocity=velocity, channel=channel, time=wait),
        mido.Message("note_off", note=pitch, channel=channel, time=ticks),
    ]


def notes(pitches: list[int], ticks: int = 50, step: int = 100, channel: int = 0) -> list[mido.Message]:
    """Notes of `ticks` ticks, one every `step` ticks."""
    return [
        message
        for index, pitch in enumerate(pitches)
        for message in note(pitch, ticks, channel=channel, wait=step - ticks if index else 0)
    ]


def name(text: str) -> mido.MetaMessage:
    return mido.MetaMessage("track_name", name=text)


def program(number: int, channel: int = 0) -> mido.Message:
    return mido.Message("program_change", program=number, channel=channel)


def control(number: int, value: int, wait: int = 0, channel: int = 0) -> mido.Message:
    return mido.Message("control_change", control=number, value=value, time=wait, channel=channel)


def tempo(bpm: float, wait: int = 0) -> mido.MetaMessage:
    return mido.MetaMessage("set_tempo", tempo=round(60e6 / bpm), time=wait)


def signature(numerator: int, denominator: int, wait: int = 0) -> mido.MetaMessage:
    return mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator, time=wait)
