"""The same music among many pieces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pianolm.data.sources import collect
from pianolm.data.works import Work
from pianolm.data.works.alignment import Alignment
from pianolm.data.works.finding import Groups, WorkFinder, is_same
from pianolm.data.works.note_sketch import sketch_notes
from pianolm.music.midi import read_midi
from pianolm.music.notes import Notes
from tests.data.works.toys import music, rendition


def found(pieces: Sequence[Notes], works: Sequence[Work | None] | None = None) -> list[int]:
    """The first piece of the group that each piece is in."""
    groups = Groups(len(pieces))
    finder = WorkFinder(works or [None] * len(pieces), groups)
    for index, notes in enumerate(pieces):
        finder.add(index, sketch_notes(notes))
    roots = [groups.find(index) for index in range(len(pieces))]
    return [roots.index(root) for root in roots]


def test_renditions_are_joined_and_other_music_is_not() -> None:
    originals = [music(seed) for seed in range(40)]
    renditions = [rendition(notes, seed, shift=seed % 3 - 1) for seed, notes in enumerate(originals)]
    assert found([*originals, *renditions]) == [*range(40), *range(40)]


def test_a_rendition_joins_through_another_one() -> None:
    # Many notes are missing in the first and others in the last: each is like the one between them.
    notes = music(7)
    pieces = [rendition(notes, 1, missing=0.12), notes, rendition(notes, 2, missing=0.12)]
    assert found(pieces) == [0, 0, 0]


def test_composers_and_titles_help() -> None:
    chopin, liszt = Work("Chopin", "Etude op. 10 no. 3"), Work("Liszt", "Etude")
    half = Alignment(common=30, blocks=8, coverage=0.45, transposition=0)
    assert is_same(half, chopin, Work("Chopin, F.", "Etude"))
    assert not is_same(half, chopin, None)
    most = Alignment(common=30, blocks=8, coverage=0.6, transposition=0)
    assert is_same(most, chopin, None)
    assert not is_same(most, chopin, liszt)
    assert is_same(most, chopin, Work("Anonim", "Etude"))
    assert not is_same(Alignment(30, 8, 0.6, transposition=2), None, None)
    assert is_same(Alignment(40, 8, 0.4, transposition=2), None, None)
    assert not is_same(Alignment(40, 8, 0.6, transposition=0), chopin, liszt)
    assert not is_same(Alignment(7, 3, 1.0, 0), chopin, chopin)
    assert not is_same(Alignment(30, 2, 1.0, 0), chopin, chopin)


def test_pieces_of_one_catalogue_number_are_compared_in_any_case() -> None:
    notes = music(8, notes=600)
    far = rendition(notes, 3, missing=0.17, wrong=0.1)
    shared = (sketch_notes(notes).signature == sketch_notes(far).signature).sum()
    assert shared < 2, "the signatures would find it"
    assert found([notes, far]) == [0, 1]
    titled = [Work("Chopin", "Etudes_op_10_3"), Work("Chopin, Fryderyk", "Etude E-dur, op. 10, no. 3")]
    assert found([notes, far], titled) == [0, 0]


def test_a_title_alone_joins_nothing() -> None:
    same = [Work("Chopin", "Etude op. 10 no. 3")] * 2
    assert found([music(9), music(10)], same) == [0, 1]


def test_each_piece_of_the_demo_is_a_work_of_its_own(tmp_path: Path) -> None:
    records = collect({"source": "demo", "seed": 0, "pieces": 24}, tmp_path).records
    assert found([read_midi(record.midi_path).notes for record in records]) == [*range(24)]
