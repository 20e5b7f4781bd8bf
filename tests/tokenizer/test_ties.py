"""Implicit and explicit ties: the order of tokens, and the same notes as with `ties=repeat`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm import PianoTokenizer
from pianolm.music.cells import FRAMES, Cells
from pianolm.tokenizer.ties import MAX_TIE_FRAMES, Ties, duration_bins, shortest_frames
from pianolm.tokenizer.vocabulary import DURATION_BINS, Kind
from tests.tokenizer.toys import (
    BEATS,
    TIE_LAYOUTS,
    VOCABULARY,
    Layout,
    beat_times,
    made,
    of_three_beats,
    real_pieces,
    rolls,
    three_beats,
)

_LETTERS = {
    Kind.PITCH: "P",
    Kind.VELOCITY: "V",
    Kind.TEMPO: "T",
    Kind.BAR: "B",
    Kind.DURATION: "D",
    Kind.BOS: "<",
    Kind.EOS: ">",
}


def kinds_of(tokenizer: PianoTokenizer, ids: np.ndarray) -> str:
    """A letter a token; s and x for codes that strike something or nothing, - for silent ones."""
    codes = np.where(tokenizer.grammar.silent, "-", np.where(tokenizer.strikes_per_id > 0, "s", "x"))
    kinds = tokenizer.vocabulary.kind_of
    return "".join(str(_LETTERS.get(Kind(kinds[token]), codes[token])) for token in ids.tolist())


def test_duration_bins_and_their_shortest_durations_agree() -> None:
    frames = np.arange(1, MAX_TIE_FRAMES + 1)
    bins = duration_bins(frames)
    assert np.unique(bins).tolist() == list(range(DURATION_BINS))
    first = frames[np.flatnonzero(np.diff(bins, prepend=-1))]
    assert [shortest_frames(number) for number in range(DURATION_BINS)] == first.tolist()


def test_ties_of_a_beat_are_those_that_sound_at_the_end_of_the_one_before() -> None:
    ties = Ties().after_cell(60, sounded=True, sounds_to_end=True).after_cell(64, True, False)
    ties = ties.after_cell(67, True, True).next_beat()
    assert ties.pending == 1 << 60 | 1 << 67
    assert ties.pending_pitch == 60
    ended = ties.after_cell(-1, sounded=False, sounds_to_end=False)
    assert (ended.pending_pitch, ended.sounding, ended.tied) == (67, 0, 0)
    goes_on = ties.after_cell(-1, sounded=True, sounds_to_end=True)
    assert (goes_on.pending_pitch, goes_on.sounding, goes_on.tied) == (67, 1 << 60, 1 << 60)
    assert ties.without_pending(1 << 60) == Ties(pending=1 << 67)


@pytest.mark.parametrize(
    ("velocity", "ties", "bars", "expected"),
    [
        (False, "implicit", False, "<TPsPsPsTx----PsTsx>"),
        (True, "implicit", False, "<TPsVPsVPsVTx----PsVTsVx>"),
        (True, "implicit", True, "<TBPsVPsVPsVTBx----PsVTBsVx>"),
        (False, "explicit", False, "<TPsPsPsTDPxDP--DP--PsTDPsDPx>"),
        (True, "explicit", True, "<TBPsVPsVPsVTBDPxDP--DP--PsVTBDPsVDPx>"),
    ],
)
def test_tied_cells_come_first_in_their_beat(velocity: bool, ties: str, bars: bool, expected: str) -> None:
    """Only codes that strike a note have a velocity: a note that only goes on keeps that of its strike."""
    tokenizer = of_three_beats(velocity, ties, bars)
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5, np.array([0]))
    assert kinds_of(tokenizer, ids) == expected
    frames = tokenizer.decode(ids).frame_notes
    assert frames[["onset", "end", "pitch"]].tolist() == [
        (0, 120, 60),
        (120, 144, 60),
        (47, 48, 64),
        (24, 48, 67),
        (48, 120, 67),
    ]


def test_an_explicit_tie_states_its_duration_and_pitch() -> None:
    tokenizer = of_three_beats(False, "explicit")
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5)
    at = np.flatnonzero(VOCABULARY.kind_of[ids] == Kind.DURATION)
    assert (ids[at + 1] - VOCABULARY.offset(Kind.PITCH)).tolist() == [60, 64, 67, 60, 67]
    durations = duration_bins(np.array([48, 1, 24, 96, 48]))
    assert (ids[at] - VOCABULARY.offset(Kind.DURATION)).tolist() == durations.tolist()


@given(rolls(), st.sampled_from(TIE_LAYOUTS), st.sampled_from(["untrained", "fitted", "tiny"]))
@settings(max_examples=250)
def test_the_same_notes_come_back_as_with_repeated_cells(cells: Cells, layout: Layout, name: str) -> None:
    if name == "tiny":  # its vocabulary has no duration bins
        layout = layout._replace(ties="implicit")
    tokenizer, repeat = made(layout, name), made(layout._replace(ties="repeat"), name)
    times, bars = beat_times(1, BEATS), np.arange(1, BEATS, 3)
    ids = tokenizer.encode_cells(cells, times, bars)
    assert tokenizer.grammar.first_problem(ids) is None
    assert tokenizer.grammar.is_complete(ids)
    piece, expected = tokenizer.decode(ids), repeat.decode(repeat.encode_cells(cells, times, bars))
    assert piece.skipped == 0
    assert np.array_equal(piece.notes, expected.notes), "the velocity of a note is that of its strike"
    assert np.array_equal(piece.beats_sec, expected.beats_sec)
    assert np.array_equal(piece.bar_starts, expected.bar_starts)
    assert np.array_equal(piece.cells.sustain, cells.sustain)


@given(rolls(), st.sampled_from([layout for layout in TIE_LAYOUTS if layout.ties == "explicit"]))
@settings(max_examples=80)
def test_durations_count_from_the_last_strike(cells: Cells, layout: Layout) -> None:
    tokenizer = made(layout, "fitted")
    ids = tokenizer.encode_cells(cells, beat_times(1, BEATS))
    kinds = VOCABULARY.kind_of[ids]
    at = np.flatnonzero(kinds == Kind.DURATION)
    beat = np.cumsum(kinds == Kind.TEMPO)[at] - 1
    pitch = ids[at + 1] - VOCABULARY.offset(Kind.PITCH)
    notes = tokenizer.decode(ids).frame_notes
    for line, key, number in zip(
        beat * FRAMES, pitch, ids[at] - VOCABULARY.offset(Kind.DURATION), strict=True
    ):
        (note,) = notes[(notes["pitch"] == key) & (notes["onset"] < line) & (notes["end"] >= line)]
        assert duration_bins(np.array([line - note["onset"]])).tolist() == [number]


def test_durations_agree_with_what_is_decoded_in_everything_the_grammar_allows() -> None:
    tokenizer, rng = made(Layout(ties="explicit")), np.random.default_rng(2)
    grammar, v = tokenizer.grammar, VOCABULARY
    compared = 0
    for _ in range(20):
        ids: list[int] = []
        state = grammar.start()
        while len(ids) < 250:
            allowed = np.flatnonzero(grammar.allowed(state))
            allowed = allowed[allowed != v.eos]
            kinds = v.kind_of[allowed]
            kind = rng.choice(kinds) if rng.random() < 0.3 else rng.choice(np.unique(kinds))
            ids.append(int(rng.choice(allowed[kinds == kind])))
            state = grammar.advance(state, ids[-1])
        tokens = np.array(ids)
        at = np.flatnonzero(v.kind_of[tokens[:-1]] == Kind.DURATION)
        line = (np.cumsum(v.kind_of[tokens] == Kind.TEMPO)[at] - 1) * FRAMES
        notes = tokenizer.decode(tokens).frame_notes
        for frame, number, pitch in zip(
            line, tokens[at] - v.offset(Kind.DURATION), tokens[at + 1], strict=True
        ):
            same = notes[notes["pitch"] == pitch - v.offset(Kind.PITCH)]
            onset = same["onset"][same["onset"] < frame].max()
            assert duration_bins(frame - onset) == number
            compared += 1
    assert compared > 100


def test_a_note_that_only_goes_on_keeps_the_velocity_of_its_strike() -> None:
    tokenizer = made(Layout(True, "implicit"))
    mask = np.uint64((1 << FRAMES) - 1)
    cells = Cells(
        beat=np.array([0, 0, 1, 1, 2, 2, 3], np.int32),
        pitch=np.array([60, 64, 60, 64, 60, 64, 70], np.uint8),
        sustain=np.full(7, mask),
        onset=np.array([1, 1, 0, 1, 0, 0, 0], np.uint64),
        segment_velocity=np.array([20, 90, 20, 50, 20, 50, 64], np.uint8),
        n_beats=4,
    )
    ids = tokenizer.encode_cells(cells, np.arange(5.0))
    assert (VOCABULARY.kind_of[ids] == Kind.VELOCITY).sum() == 3
    sounding = tokenizer.decode(ids).cells.segment_velocity
    assert sounding[2] == sounding[4] == sounding[0]
    assert sounding[5] == sounding[3]
    assert sounding[6] == 64, "held from nothing: the velocity of base mode"


@given(rolls(), st.sampled_from(TIE_LAYOUTS))
@settings(max_examples=60)
def test_beats_before_a_cut_stay_as_they_are(cells: Cells, layout: Layout) -> None:
    tokenizer = made(layout)
    ids = tokenizer.encode_cells(cells, beat_times(1, BEATS), np.array([0]))
    tempo_at = np.flatnonzero(VOCABULARY.kind_of[ids] == Kind.TEMPO)
    whole = tokenizer.decode(ids)
    for beats in (1, BEATS // 2, BEATS - 1):
        part = tokenizer.decode(ids[: tempo_at[beats]])
        assert (part.skipped, part.n_beats) == (0, beats)
        kept = whole.cells.beat < beats
        assert np.array_equal(part.cells.sustain, whole.cells.sustain[kept])
        assert np.array_equal(part.cells.onset, whole.cells.onset[kept])


def test_real_pieces_come_back(shared_data: Path) -> None:
    for piece in real_pieces(shared_data, 200, 400):
        repeat = made(Layout(True, "repeat", True), "fitted")
        longest = repeat.encode(piece).ids
        expected = repeat.decode(longest).notes
        lengths = {}
        for ties in ("implicit", "explicit"):
            tokenizer = made(Layout(True, ties, True), "fitted")
            ids = tokenizer.encode(piece).ids
            back = tokenizer.decode(ids)
            assert tokenizer.grammar.is_complete(ids)
            assert back.skipped == 0
            assert np.array_equal(back.notes, expected)
            lengths[ties] = ids.size - 2 * int((VOCABULARY.kind_of[ids] == Kind.DURATION).sum())
        assert lengths["implicit"] == lengths["explicit"] < longest.size
