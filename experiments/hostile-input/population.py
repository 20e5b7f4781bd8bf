"""The population of mutants: originals that are composed or taken from real data, and seeded mutations of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import beat_mutants
import midi_mutants
import midi_variants
import numpy as np
from chunks import END_OF_TRACK, Event, Midi, meta, parse

from pianolm import Piece
from pianolm.data.sources.demo import write_piece
from pianolm.data.sources.demo.composer import compose
from pianolm.errors import UserError

SAME, LOSSY, OTHER = "same", "lossy", "other"
"""What a mutation may do to the music: nothing, cut something off, anything."""
BEATS_ENDING = "_annotations.txt"
_BEATS = (12, 24, 48)
_RESOLUTIONS = (480, 9600, 96, 1024)
_LARGEST_BYTES = 60_000


@dataclass(frozen=True)
class Original:
    """A well-formed file.

    Attributes:
        name: Name of its files, without ending.
        midi: Its MIDI file.
        rows: Rows of its beat file.
    """

    name: str
    midi: Midi
    rows: tuple[str, ...]

    def write(self, folder: Path) -> Path:
        """Writes the MIDI file, and the beat file beside a copy of it in `beats/`."""
        (folder / "beats").mkdir(parents=True, exist_ok=True)
        for place in (folder, folder / "beats"):
            (place / f"{self.name}.mid").write_bytes(self.midi.to_bytes())
        (folder / "beats" / f"{self.name}{BEATS_ENDING}").write_bytes(beat_mutants.text(self.rows))
        return folder / f"{self.name}.mid"


@dataclass(frozen=True)
class Mutant:
    """A mutated file.

    Attributes:
        name: Name of its files, without ending.
        family: `midi` or `beats`: what was mutated.
        kind: Name of the mutator.
        may: What the mutation may do to the music.
        original: Name of the original.
        midi: Content of the MIDI file.
        beats: Content of the beat file; None if there is none.
    """

    name: str
    family: str
    kind: str
    may: str
    original: str
    midi: bytes
    beats: bytes | None = None

    def write(self, folder: Path) -> Path:
        """Writes its files; returns the path of the MIDI file."""
        path = folder / f"{self.name}.mid"
        path.write_bytes(self.midi)
        if self.beats is not None:
            (folder / f"{self.name}{BEATS_ENDING}").write_bytes(self.beats)
        return path


def composed_originals(count: int, folder: Path) -> list[Original]:
    """Beginnings of composed pieces, half of them on two tracks, in several resolutions."""
    found = []
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        whole = Piece.from_midi(write_piece(compose(17, index, flat=index % 5 == 4), folder, index))
        beats = min(_BEATS[index % len(_BEATS)], whole.n_beats)
        path = folder / f"short_{index}.mid"
        _first_beats(whole, beats).to_midi(path)
        midi = _with_resolution(parse(path.read_bytes()), _RESOLUTIONS[index % len(_RESOLUTIONS)])
        found.append(
            Original(
                f"composed{index:02d}",
                _two_tracks(midi) if index % 2 else midi,
                tuple(_rows(Piece.from_midi(path))),
            )
        )
    return found


def _first_beats(piece: Piece, beats: int) -> Piece:
    notes = piece.notes[piece.notes["offset_sec"] <= piece.beats_sec[beats]]
    downbeats_sec = piece.downbeats_sec
    if downbeats_sec is not None:
        downbeats_sec = downbeats_sec[downbeats_sec < piece.beats_sec[beats]]
    return replace(piece, notes=notes, beats_sec=piece.beats_sec[: beats + 1], downbeats_sec=downbeats_sec)


def _with_resolution(midi: Midi, division: int) -> Midi:
    """The file in another resolution; notes move to the nearest tick."""
    tracks = []
    for track in midi.tracks:
        ticks = np.cumsum([event.delta for event in track]) * division // midi.division
        steps = np.diff(ticks, prepend=0).tolist()
        tracks.append(tuple(replace(event, delta=step) for event, step in zip(track, steps, strict=True)))
    return replace(midi, division=division, tracks=tuple(tracks))


def _two_tracks(midi: Midi) -> Midi:
    """The notes below middle C on a track of their own."""
    kept: list[list[Event]] = [[], []]
    waits = [0, 0]
    for event in midi.tracks[-1][:-1]:
        waits = [wait + event.delta for wait in waits]
        hand = int(event.is_note and event.data[0] < 60)
        kept[hand].append(replace(event, delta=waits[hand]))
        waits[hand] = 0
    hands = [(*events, meta(END_OF_TRACK, b"", wait)) for events, wait in zip(kept, waits, strict=True)]
    return replace(midi, file_format=1, tracks=(*midi.tracks[:-1], *hands))


def _rows(piece: Piece) -> Iterator[str]:
    bars = set(piece.bar_starts.tolist())
    for beat, time_sec in enumerate(piece.beats_sec):
        yield f"{time_sec:.6f}\t{time_sec:.6f}\t{'db' if beat in bars else 'b'}"


def real_originals(data: Path, count: int) -> list[Original]:
    """MIDI files of POP909 and ASAP below a folder, as far as they are well-formed and not too long."""
    paths = sorted([*data.glob("pop909/POP909/*/*.mid"), *data.glob("asap/*/**/*.mid")])
    rng, found = np.random.default_rng(17), []
    for index in rng.permutation(len(paths)):
        if len(found) == count:
            break
        content = paths[index].read_bytes()
        try:
            midi, piece = parse(content), Piece.from_midi(paths[index], "tempo_map")
        except (UserError, AssertionError, IndexError):
            continue
        if len(content) <= _LARGEST_BYTES and not piece.remarks.unended_notes:
            found.append(Original(f"real{len(found):02d}", midi, tuple(_rows(piece))))
    return found


def mutants(originals: Sequence[Original], count: int, seed: int) -> Iterator[Mutant]:
    """`count` mutants, every kind equally often; number k depends on the seed, k and the originals only."""
    kinds = [
        *_kinds("midi", {SAME: midi_variants.SAME, LOSSY: midi_mutants.LOSSY, OTHER: midi_mutants.OTHER}),
        *_kinds("beats", {SAME: beat_mutants.SAME, OTHER: beat_mutants.OTHER}),
    ]
    for number in range(count):
        family, may, kind, mutate = kinds[number % len(kinds)]
        rng = np.random.default_rng([seed, number])
        original = originals[int(rng.integers(len(originals)))]
        name = f"{number:05d}_{family}_{kind.replace(' ', '_')}"
        if family == "midi":
            yield Mutant(name, family, kind, may, original.name, mutate(rng, original.midi))
        else:
            changed = mutate(rng, original.rows)
            yield Mutant(name, family, kind, may, original.name, original.midi.to_bytes(), changed)


def _kinds(family: str, groups: Mapping[str, Mapping]) -> Iterator[tuple]:
    for may, mutators in groups.items():
        for kind, mutate in mutators.items():
            yield family, may, kind, mutate
