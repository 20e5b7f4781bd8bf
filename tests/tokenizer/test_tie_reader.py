"""Reading ill-formed ties: what is missing or broken ends at the beat line and is counted."""

from __future__ import annotations

import numpy as np

from pianolm.music.cells import FRAMES
from pianolm.tokenizer.vocabulary import Kind
from tests.tokenizer.toys import (
    VOCABULARY,
    Layout,
    beat_times,
    made,
    of_three_beats,
    random_cells,
    three_beats,
)


def test_a_missing_or_broken_tie_ends_its_note_at_the_beat_line() -> None:
    tokenizer, v = of_three_beats(True, "implicit"), VOCABULARY
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5)  # <TPsVPsVPsVTx----PsVTsVx>
    second, third = np.flatnonzero(v.kind_of[ids] == Kind.TEMPO)[1:].tolist()
    notes = tokenizer.decode(ids).frame_notes.size
    for changed, left_out, kept in (
        (
            np.delete(ids, third + 1),
            2,
            notes - 1,
        ),  # V is left over, x takes the place of s, one tie is missing
        (np.delete(ids, third + 2), 1, notes - 1),  # the tie whose velocity is missing
        (np.insert(ids, second + 1, v.offset(Kind.VELOCITY)), 1, notes),
        (np.concatenate([ids[: third + 1], [v.eos]]), 2, notes - 1),  # both ties are missing
        (np.concatenate([ids[: second + 1], ids[third:]]), 3 + 3, notes - 2),
    ):
        piece = tokenizer.decode(changed)
        assert tokenizer.grammar.first_problem(changed) is not None
        assert piece.skipped == left_out
        assert piece.frame_notes.size == kept


def test_a_wrong_or_missing_duration_costs_nothing_but_itself() -> None:
    tokenizer, v = made(Layout(ties="explicit"), "fitted"), VOCABULARY
    ids = tokenizer.encode_cells(random_cells(5), beat_times(5))
    whole = tokenizer.decode(ids).frame_notes
    at = np.flatnonzero(v.kind_of[ids] == Kind.DURATION)
    assert at.size > 50
    other = ids.copy()
    other[at] = v.offset(Kind.DURATION) + (ids[at] - v.offset(Kind.DURATION) + 1) % v.count(Kind.DURATION)
    for changed in (other, np.delete(ids, at)):
        piece = tokenizer.decode(changed)
        assert np.array_equal(piece.frame_notes, whole)
        assert piece.skipped == at.size


def test_ties_of_a_sequence_that_begins_later_are_left_out_with_their_pitches() -> None:
    tokenizer = made(Layout(ties="explicit"), "fitted")
    ids = tokenizer.encode_cells(random_cells(5), beat_times(5))
    whole = tokenizer.decode(ids).frame_notes
    fourth_beat = np.flatnonzero(VOCABULARY.kind_of[ids] == Kind.TEMPO)[3]
    rest = tokenizer.decode(ids[fourth_beat:])
    found = {(int(note["onset"]) + 3 * FRAMES, int(note["pitch"])) for note in rest.frame_notes}
    struck = {(int(note["onset"]), int(note["pitch"])) for note in whole if note["onset"] >= 3 * FRAMES}
    assert found <= struck
    assert len(found) > 0.8 * len(struck), "only strikes in the ties of unknown notes are lost"


def test_an_untied_cell_that_begins_held_is_a_strike() -> None:
    tokenizer = of_three_beats(False, "implicit")
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5)
    second = int(np.flatnonzero(VOCABULARY.kind_of[ids] == Kind.TEMPO)[1])
    held, pitch, silent = ids[second + 1], ids[2], ids[second + 2 : second + 4]
    changed = np.concatenate([ids[: second + 1], *[silent] * 3, [pitch, held, VOCABULARY.eos]])
    assert tokenizer.grammar.is_complete(changed)
    piece = tokenizer.decode(changed)
    assert piece.skipped == 0
    assert (48, 96, 60) in piece.frame_notes[["onset", "end", "pitch"]].tolist()
