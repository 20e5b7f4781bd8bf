"""Data source `maestro` on a tiny folder in its published layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pianolm.data.reading import ReadPiece, read_record
from pianolm.data.sources import collect
from pianolm.errors import UserError
from tests.data.test_sources import by_composition, config

Writer = Callable[..., Path]
HEADER = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\n"


def write_maestro(root: Path, midi_file: Writer) -> Path:
    """Two performances of one work, another work, and a row whose file is missing."""
    rows = (
        (
            "Alban Berg",
            "Sonata Op. 1",
            "train",
            "2018/MIDI-Unprocessed_Chamber3_MID--AUDIO_10_R3_2018_wav--1.midi",
        ),
        ("Alban Berg", "Sonata Op. 1", "train", "2008/MIDI-Unprocessed_03_R2_2008_wav--1.midi"),
        ("Franz Liszt", '"Ballade No. 2, S. 171"', "validation", "2004/a.midi"),
        ("Franz Liszt", "Gnomenreigen", "test", "2004/lost.midi"),
    )
    lines = []
    for seed, (composer, title, split, midi) in enumerate(rows):
        audio = midi.replace(".midi", ".wav")
        lines.append(f"{composer},{title},{split},{midi[:4]},{midi},{audio},60.5\n")
        if "lost" not in midi:
            midi_file(root / midi, seed)
    (root / "maestro-v3.0.0.csv").write_text(HEADER + "".join(lines))
    return root


@pytest.mark.parametrize("given", ["the folder", "the folder that it was unpacked in"])
def test_the_table_gives_performances_works_and_the_published_split(
    given: str, tmp_path: Path, midi_file: Writer
) -> None:
    root = write_maestro(tmp_path / "maestro-v3.0.0", midi_file)
    collection = collect(config("maestro", root if given == "the folder" else tmp_path), tmp_path)
    assert by_composition(collection.records) == {
        "alban-berg/sonata-op-1": {"train"},
        "franz-liszt/ballade-no-2-s-171": {"validation"},
        "franz-liszt/gnomenreigen": {"test"},
    }
    assert {(r.kind, r.licence, r.beats) for r in collection.records} == {
        ("performance", "CC BY-NC-SA 4.0", "auto")
    }
    first = collection.records[0]
    assert first.id == "maestro/2018/MIDI-Unprocessed_Chamber3_MID--AUDIO_10_R3_2018_wav--1.midi"
    assert first.attribution == "MAESTRO, Google LLC"
    assert [isinstance(read_record(r), ReadPiece) for r in collection.records] == [True] * 3 + [False]
    assert collection.relative(collection.tables[0]) == "maestro-v3.0.0.csv"


def test_a_folder_without_or_with_two_tables_is_one_sentence(tmp_path: Path, midi_file: Writer) -> None:
    published = r"published at magenta\.tensorflow\.org/datasets/maestro under CC BY-NC-SA 4\.0"
    with pytest.raises(
        UserError, match=rf"no maestro-v3\.0\.0\.csv; expected the MAESTRO folder .*{published}"
    ):
        collect(config("maestro", tmp_path), tmp_path)
    root = write_maestro(tmp_path, midi_file)
    (root / "maestro-v2.0.0.csv").write_text(HEADER)
    with pytest.raises(UserError, match=r"maestro-v2\.0\.0\.csv, maestro-v3\.0\.0\.csv; expected"):
        collect(config("maestro", root), tmp_path)
