"""Options of the data sources."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from pianolm.config.option import modules, option

_ROOT = (
    "Folder of the data set as it was unpacked. folder: any folder, searched for MIDI files with all folders below it; "
    "asap: the one with metadata.csv in it; scores: metadata.csv in it or in its sets, or one set; aria: metadata.json "
    "and data/ in it."
)
_MIN_AUDIO_SCORE = (
    "Aria-MIDI: segments with a lower audio score are left out; the score of its classifier, from 0 to 1, follows the "
    "quality of the sound."
)


@dataclass
class DataConfig:
    """What every data source has."""

    source: str = option(MISSING, "Data source.", choices=modules("data/sources", but=("base",)))
    beats: str = option(
        "auto",
        "auto: the data set's annotation or the beat file beside the MIDI file, else its beat track, else its tempo "
        "map, else found from the notes where that map knows only a clock (data.default_tempo); file, track or "
        "tempo_map: only that; estimate: always found from the notes.",
        choices=("auto", "file", "tempo_map", "track", "estimate"),
    )
    seed: int = option(
        0, "Seed of random splits, of the files that data.limit keeps and of composing the demo.", at_least=0
    )
    kinds: list[str] = option(
        ["performance", "score"], "Kinds of file that are used.", choices=("performance", "score")
    )
    score_velocity: bool = option(
        False, "Learns the velocities of scores, too; most of them were set by software, not played."
    )
    programs: Any = option(
        "piano", "Instruments that are read: piano (programs 0-7), all, or a list of General MIDI programs."
    )
    pedal: str = option(
        "ignore",
        "ignore the sustain pedal, or extend notes to its release or the next note of their pitch.",
        choices=("ignore", "extend"),
    )
    default_tempo: str = option(
        "estimate",
        "What data.beats=auto does where only the default tempo of 120 BPM is known, or another that the notes do not "
        "follow: estimate the beats from the notes unless 90 % of them lie on its sixteenths or triplets; use it; "
        "reject the file.",
        choices=("estimate", "use", "reject"),
    )
    exclude: list[str] = option(
        [],
        "Works left out: tables of works (ASAP's metadata.csv; validation and test rows of ACPAS's "
        "distinct_pieces.csv) and works such as 'Chopin: op. 10 no. 3' or 'Bach: BWV 846-893'.",
    )
    works: str | None = option(
        None,
        "Table that says of which work pieces are, instead of what their notes say: columns piece and work, such as a "
        "prepared works.csv with rows changed.",
    )
    licences: list[str] | None = option(
        None,
        "Licences allowed, such as [MIT, CC0-1.0, CC-BY-4.0, Public-Domain]; a file of another one is refused. "
        "null: any.",
    )
    tracker: str = option(
        "beats",
        "Beat tracker that estimates beats: an artifact of stage beats; beats: the bundled one.",
    )
    limit: int | None = option(None, "Files kept of each split; null: all.", at_least=1)


@dataclass
class SplitConfig(DataConfig):
    """Of sources without a published split."""

    validation_fraction: float = option(0.1, "Share of the works for validation.", at_least=0, below=1)
    test_fraction: float = option(0.1, "Share of the works for testing.", at_least=0, below=1)


@dataclass
class DemoData(SplitConfig):
    """Seeded, composed pieces, written as MIDI and read like any other data."""

    pieces: int = option(60, "Pieces to compose.", at_least=1)


@dataclass
class PublishedData(DataConfig):
    """A data set with a published split."""

    root: str | None = option(None, _ROOT)


@dataclass
class AsapData(SplitConfig):
    """ASAP: its splits.csv where there is one, else a split by work."""

    root: str | None = option(None, _ROOT)


@dataclass
class AriaData(SplitConfig):
    """Aria-MIDI, one of its archives unpacked."""

    root: str | None = option(None, _ROOT)
    min_audio_score: float = option(0.0, _MIN_AUDIO_SCORE, at_least=0, at_most=1)


@dataclass
class ScoresData(SplitConfig):
    """Piano scores with exact beats under free licences; works that stand in ASAP are left out."""

    root: str | None = option(None, _ROOT)


@dataclass
class FolderData(SplitConfig):
    """Any folder of MIDI files."""

    root: str | None = option(None, _ROOT)
    kind: str = option("performance", "What the files are.", choices=("performance", "score"))
    licence: str = option("unknown", "Licence recorded with each piece.")


@dataclass
class PartsConfig:
    """Folders of the data sets of a mix; those with a path take part."""

    asap: str | None = option(None, "Folder of ASAP.")
    acpas: str | None = option(None, "Folder of ACPAS.")
    pop909: str | None = option(None, "Folder of POP909.")
    maestro: str | None = option(None, "Folder of MAESTRO.")
    aria: str | None = option(None, "Folder that an archive of Aria-MIDI unpacks to.")
    scores: str | None = option(None, "Folder of piano scores, or one set of them.")
    folder: str | None = option(None, "Any folder of MIDI files.")


@dataclass
class MixData(SplitConfig):
    """Several data sets as one."""

    parts: PartsConfig = field(default_factory=PartsConfig)
    kind: str = option("performance", "What the files of the folder are.", choices=("performance", "score"))
    licence: str = option("unknown", "Licence recorded with the pieces of the folder.")
    min_audio_score: float = option(0.0, _MIN_AUDIO_SCORE, at_least=0, at_most=1)


DATA = {
    "demo": DemoData,
    "asap": AsapData,
    "acpas": PublishedData,
    "pop909": PublishedData,
    "maestro": PublishedData,
    "aria": AriaData,
    "scores": ScoresData,
    "folder": FolderData,
    "mix": MixData,
}
"""Options of each data source, by its name."""
