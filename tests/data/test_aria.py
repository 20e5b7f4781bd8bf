"""Data source `aria` on a tiny folder as an archive of Aria-MIDI unpacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pianolm.data.sources import collect
from pianolm.errors import UserError
from tests.data.test_sources import by_composition, config

Writer = Callable[..., Path]

ETUDE = {"composer": "chopin", "opus": 10, "piece_number": 3, "form": "etude", "genre": "classical"}
METADATA: dict[str, Any] = {
    "1": {"metadata": ETUDE, "audio_scores": {"0": 0.98, "1": 0.62}},
    "2": {"metadata": {"composer": "chopin", "opus": 10}, "audio_scores": {"0": 0.91}},
    "31": {"metadata": {"genre": "jazz"}, "audio_scores": {"0": 0.95, "2": 0.99}},
    "7": {"metadata": {"composer": "bach", "opus": 846}, "audio_scores": {"0": 0.97}},
    "8": {"audio_scores": {}},
}


@pytest.fixture
def aria(tmp_path: Path, midi_file: Writer) -> Path:
    """Seven segments of five recordings in two folders, one of them without an entry; a hidden file beside."""
    root = tmp_path / "aria-midi-v1-deduped-ext"
    for seed, name in enumerate(("aa/000001_0", "aa/000001_1", "aa/000002_0", "ab/000031_0", "ab/000031_2")):
        midi_file(root / f"data/{name}.mid", seed)
    midi_file(root / "data/ab/000007_0.mid", 9)
    midi_file(root / "data/ab/000008_0.mid", 9)
    (root / "data/aa/._000001_0.mid").write_bytes(b"debris")
    (root / "metadata.json").write_text(json.dumps(METADATA))
    return root


def test_segments_have_scores_works_and_titles(aria: Path, tmp_path: Path) -> None:
    collection = collect(config("aria", aria, validation_fraction=0.3, test_fraction=0.3), tmp_path)
    assert {r.path: (r.composition, r.composer, r.title) for r in collection.records} == {
        "data/aa/000001_0.mid": ("chopin/op-10-no-3", "chopin", "etude op. 10 no. 3"),
        "data/aa/000001_1.mid": ("chopin/op-10-no-3", "chopin", "etude op. 10 no. 3"),
        "data/aa/000002_0.mid": ("chopin/op-10", "chopin", "op. 10"),
        "data/ab/000031_0.mid": ("aria/31", "", ""),
        "data/ab/000031_2.mid": ("aria/31", "", ""),
        "data/ab/000007_0.mid": ("bach/op-846", "bach", "BWV 846"),
    }
    assert collection.rejects == (
        ("data/ab/000008_0.mid", "metadata.json has no audio score of this segment"),
    )
    splits = by_composition(collection.records)
    assert splits["chopin/op-10-no-3"] == splits["chopin/op-10"], (
        "the recording of opus 10 may be of number 3"
    )
    assert sorted(split for found in splits.values() for split in found)[:1] == ["test"]
    assert {r.licence for r in collection.records} == {"CC BY-NC-SA 4.0"}


def test_segments_below_the_least_audio_score_are_left_out(aria: Path, tmp_path: Path) -> None:
    collection = collect(config("aria", aria, min_audio_score=0.95), tmp_path)
    assert [r.path[-12:] for r in collection.records] == [
        "000001_0.mid",
        "000007_0.mid",
        "000031_0.mid",
        "000031_2.mid",
    ]
    assert [(e.path, e.work, e.why) for e in collection.excluded] == [
        ("data/aa/000001_1.mid", "etude op. 10 no. 3", "audio score 0.620, below data.min_audio_score=0.95"),
        ("data/aa/000002_0.mid", "op. 10", "audio score 0.910, below data.min_audio_score=0.95"),
    ]
    with pytest.raises(UserError, match=r"none of 7 MIDI files in data/ can be used"):
        collect(config("aria", aria, min_audio_score=1.0), tmp_path)


def test_listed_works_are_found_by_their_tags(aria: Path, tmp_path: Path) -> None:
    collection = collect(config("aria", aria, exclude=["Chopin: op. 10 no. 3", "Bach: BWV 846"]), tmp_path)
    assert {r.composition for r in collection.records} == {"aria/31"}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, r"no metadata\.json; expected a folder that an archive .*under CC BY-NC-SA 4\.0; unpack"),
        ("{", r"metadata\.json: not readable as JSON"),
        ("[1, 2]", r"metadata\.json: no entries by number of the recording"),
    ],
)
def test_metadata_that_cannot_be_used_is_one_sentence(
    aria: Path, tmp_path: Path, content: str | None, found: str
) -> None:
    (aria / "metadata.json").unlink()
    if content is not None:
        (aria / "metadata.json").write_text(content)
    with pytest.raises(UserError, match=found) as error:
        collect(config("aria", aria), tmp_path)
    assert "\n" not in str(error.value)
