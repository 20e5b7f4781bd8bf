"""The experiment on hostile input: a small part of it, and that it notices what it looks for."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pianolm.errors import UserError
from tests.evaluation.toys import model_directory
from tests.experiment import EXPERIMENTS, load
from tests.music.midi_events import notes, tempo, write_events

population = load("hostile-input/population.py")
reading = load("hostile-input/reading.py")
damage = load("hostile-input/damage.py")
isolated = load("hostile-input/isolated.py")
kills = load("hostile-input/kills.py")
cases = load("hostile-input/cases.py")

KINDS = 56


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules by name, which other processes import them by; tests of other experiments forget them."""
    for module in (population, reading, damage, isolated, kills, cases):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.syspath_prepend(EXPERIMENTS / "hostile-input")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Path]:
    folder = tmp_path_factory.mktemp("originals")
    made = population.composed_originals(4, folder / "composed")
    for original in made:
        original.write(folder)
    return made, folder


def outcomes(originals: tuple[list[Any], Path], folder: Path) -> Iterator[tuple[Any, Any]]:
    made, where = originals
    for mutant in population.mutants(made, KINDS, seed=3):
        beside = where / "beats" if mutant.family == "beats" else where
        path = mutant.write(folder)
        yield mutant, reading.outcome(path, mutant.family, mutant.may, beside / f"{mutant.original}.mid")


def test_one_mutant_of_every_kind_is_used_or_rejected_with_a_reason(
    originals: tuple[list[Any], Path], tmp_path: Path
) -> None:
    found = list(outcomes(originals, tmp_path))
    assert [f"{mutant.name}: {outcome.problem}" for mutant, outcome in found if outcome.problem] == []
    assert len({(mutant.family, mutant.kind) for mutant, _ in found}) == KINDS
    used = [outcome for _, outcome in found if not outcome.reason]
    assert KINDS / 4 < len(used) < KINDS * 3 / 4
    assert all(outcome.notes for outcome in used)


def test_the_same_seed_makes_the_same_mutants(originals: tuple[list[Any], Path]) -> None:
    first, again, other = (list(population.mutants(originals[0], 60, seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_other_music_and_lost_notes_are_noticed(
    originals: tuple[list[Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that takes every fifth note from files, but not from the originals, which are read before."""
    made, folder = originals
    for original in made:
        for place in (folder, folder / "beats"):
            reading._original(place / f"{original.name}.mid")
    read = reading.Piece.from_midi.__func__

    def broken(cls: type, *args: Any, **options: Any) -> Any:
        piece = read(cls, *args, **options)
        return type(piece)(piece.notes[::5], piece.beats_sec, piece.flat, piece.downbeats_sec)

    monkeypatch.setattr(reading.Piece, "from_midi", classmethod(broken))
    problems = {mutant.kind: outcome.problem for mutant, outcome in outcomes(originals, tmp_path)}
    assert problems["running status"].startswith("other music than its original")
    assert problems["windows lines"].startswith("other music than its original")
    assert problems["early end"].startswith("something is missing and nothing is said")


def test_a_reader_that_dies_is_noticed_and_replaced(
    originals: tuple[list[Any], Path], tmp_path: Path
) -> None:
    made, folder = originals
    reader = reading.Reader(folder)
    (mutant,) = population.mutants(made, 1, seed=0)
    try:
        reader._start()
        reader._process.kill()
        assert reader.read(mutant, mutant.write(tmp_path)).problem.startswith("crashes the reader")
        assert not reader.read(mutant, mutant.write(tmp_path)).problem
    finally:
        reader.stop()


def test_damaged_model_directories_are_told_or_play_the_same(tmp_path: Path) -> None:
    model = model_directory(tmp_path / "whole", velocity=True, context=64)
    found = list(islice(damage.model_cases(model, tmp_path, 0, 0), 8))
    assert [f"{case.file} {case.how}: {case.problem}" for case in found if case.problem] == []
    assert sum(bool(case.said) for case in found) >= 5


def refused() -> None:
    raise UserError("a.mid: no notes")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: 3, "another result"),
        (lambda: bytearray(4 * 2**30), "MemoryError"),
        (lambda: 1 // 0, "ZeroDivisionError"),
        (lambda: signal.raise_signal(signal.SIGKILL), "exit code -9"),
        (refused, "no sentence that names the place"),
    ],
)
def test_other_endings_than_a_sentence_are_noticed(function: Any, said: str) -> None:
    ending = isolated.isolated(function)
    assert said in damage._judged(ending, before=4, named=Path("/model"))[1]


@pytest.mark.slow
def test_prepare_ends_as_if_it_had_not_been_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "PHASES", {"prepare": kills.PHASES["prepare"]})
    monkeypatch.setattr(kills, "SIGNALS", (signal.SIGTERM,))
    (tmp_path / "artifacts").mkdir()
    (kill,) = kills.kill_all(tmp_path, tmp_path / "runs", kills=1, seed=0)
    assert kill.problem == ""
    assert "SIGTERM" in kill.said


def test_the_table_of_cases_says_what_becomes_of_each_file(tmp_path: Path) -> None:
    write_events(tmp_path / "a.mid", [tempo(90), *notes([60, 62, 64])])
    (tmp_path / "b.mid").write_bytes(b"MThd")
    (tmp_path / "README.md").write_text(
        "# Files\n\n| file | what it is | was | right |\n|---|---|---|---|\n"
        "| a.mid, b.mid | notes; half a header | lost | `a\\|b` |\n"
    )
    (row,) = cases.case_rows(tmp_path)
    assert (row["file"], row["right"]) == ("a.mid, b.mid", "`a/b`")
    assert row["now"] == (
        "a.mid: used: 3 notes, 3 beats, no bars known, 2.0 s; written and read 5 times: the same; "
        "b.mid: rejected: not a readable MIDI file (no MThd header found); expected a Standard MIDI File"
    )
