"""Aria-MIDI (huggingface.co/datasets/loubb/aria-midi): transcribed piano recordings, as one of its archives unpacks.

`metadata.json` has for each recording tags that a language model took from its description, and for each segment of it
the mean score of a classifier of solo piano, which follows the quality of the sound. `data/aa/000123_0.mid` is the
segment 0 of recording 123. There is no split: works are split by `data.seed`, and a recording without opus is a work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm.data.sources.base import (
    Collection,
    Excluded,
    Record,
    Reject,
    beat_choice,
    composition_id,
    data_root,
    relative,
    seeded_splits,
)
from pianolm.data.sources.folder import midi_files
from pianolm.errors import UserError

LICENCE, ATTRIBUTION = "CC BY-NC-SA 4.0", "Aria-MIDI, Louis Bradshaw and Simon Colton"
_EXPECTED = "a folder that an archive of Aria-MIDI unpacks to (with metadata.json and data/ in it)"
_PUBLISHED = f"published at huggingface.co/datasets/loubb/aria-midi under {LICENCE}"
_CATALOGUES = {"bach": ("BWV",), "mozart": ("K.",), "schubert": ("op.", "D.")}
"""Catalogues whose numbers the tag `opus` may be, where they are not opus numbers."""


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """Every segment whose audio score is at least `data.min_audio_score`."""
    root = data_root(data, _EXPECTED, _PUBLISHED)
    table = root / "metadata.json"
    recordings = _recordings(table, data)
    least, beats = float(data.get("min_audio_score", 0.0)), beat_choice(data)
    paths, unusable = midi_files(root / "data")
    rejects: list[Reject] = [(f"data/{path}", reason) for path, reason in unusable]
    excluded, tags_of = [], dict[Path, tuple[str, Mapping[str, Any]]]()
    for path in paths:
        number, _, segment = path.stem.rpartition("_")
        number = number.lstrip("0") or "0"
        recording = recordings.get(number, {})
        score = (recording.get("audio_scores") or {}).get(segment)
        name, tags = relative(path, root), recording.get("metadata") or {}
        if not isinstance(score, int | float):
            rejects.append((name, "metadata.json has no audio score of this segment"))
        elif score < least:
            why = f"audio score {score:.3f}, below data.min_audio_score={least:g}"
            excluded.append(Excluded(name, _title(tags), why))
        else:
            tags_of[path] = number, tags
    if not tags_of:
        found = f"none of {len(paths)} MIDI files in data/ can be used" if paths else "no MIDI files in data/"
        raise UserError(f"data.root={data['root']}: {found}; expected {_EXPECTED}, {_PUBLISHED}")
    return Collection(
        root, _records(root, tags_of, data, beats), (table,), tuple(rejects), excluded=tuple(excluded)
    )


def _recordings(table: Path, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entries of `metadata.json` by number of the recording."""
    if not table.is_file():
        raise UserError(
            f"data.root={data['root']}: no {table.name}; expected {_EXPECTED}, {_PUBLISHED}; unpack an archive with "
            "tar -xzf aria-midi-v1-deduped-ext.tar.gz"
        )
    try:
        recordings = json.loads(table.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{table}: not readable as JSON ({error}); expected {_EXPECTED}") from error
    if not isinstance(recordings, dict) or not all(isinstance(entry, dict) for entry in recordings.values()):
        raise UserError(f"{table}: no entries by number of the recording; expected {_EXPECTED}")
    return {number.lstrip("0") or "0": entry for number, entry in recordings.items()}


def _records(
    root: Path, tags_of: Mapping[Path, tuple[str, Mapping[str, Any]]], data: Mapping[str, Any], beats: str
) -> tuple[Record, ...]:
    compositions = {path: _composition(*known) for path, known in tags_of.items()}
    # A whole opus has one split: some recordings name an opus and not the piece in it.
    groups = {path: composition.partition("-no-")[0] for path, composition in compositions.items()}
    splits = seeded_splits(groups.values(), data)
    return tuple(
        Record(
            source="aria",
            path=relative(path, root),
            midi_path=path,
            beats=beats,
            composition=compositions[path],
            split=splits[groups[path]],
            licence=LICENCE,
            attribution=ATTRIBUTION,
            composer=str(tags.get("composer") or ""),
            title=_title(tags),
            seeded=True,
        )
        for path, (_, tags) in tags_of.items()
    )


def _composition(number: str, tags: Mapping[str, Any]) -> str:
    if not tags.get("composer") or tags.get("opus") is None:
        return f"aria/{number}"
    piece = tags.get("piece_number")
    return composition_id(
        str(tags["composer"]), f"op {tags['opus']}" + ("" if piece is None else f" no {piece}")
    )


def _title(tags: Mapping[str, Any]) -> str:
    """Such as `etude op. 10 no. 3`; empty where no tag says."""
    words = [str(tags["form"])] if tags.get("form") else []
    if tags.get("opus") is not None:
        catalogues = _CATALOGUES.get(str(tags.get("composer")).lower(), ("op.",))
        words += [f"{catalogue} {tags['opus']}" for catalogue in catalogues]
        if tags.get("piece_number") is not None:
            words.append(f"no. {tags['piece_number']}")
    return " ".join(words)
