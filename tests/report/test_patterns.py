"""Notes of a pattern as they are drawn."""

from __future__ import annotations

from pianolm.report.patterns import note_runs


def test_struck_and_held_notes_are_told_apart() -> None:
    assert note_runs(0b0111_0011, 0b0101_0000, 8) == [(0, 2, False), (4, 6, True), (6, 7, True)]
    assert note_runs(0, 0, 48) == []
