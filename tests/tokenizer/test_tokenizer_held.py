"""`held="codes"`, "ages": what sounds on over a beat line is told in slots; without the option nothing is otherwise."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm import PianoTokenizer, Piece
from pianolm.errors import UserError
from pianolm.music.cells import FRAMES, Cells, frames_to_cells, resolve_collisions
from pianolm.pipeline.graph import Planner
from pianolm.report.tokens import beat_tokens, save_bar
from pianolm.stages.tokenize import build_tokenizer
from pianolm.tokenizer.ages import age_numbers
from pianolm.tokenizer.codebook import Codebook, Patterns
from pianolm.tokenizer.codebook_fit import complete, fit_codebook
from pianolm.tokenizer.grammar import Phase
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Kind, Vocabulary
from tests.tiny import tiny
from tests.tokenizer.test_tokenizer import NOTHING, VOCABULARY, beat_times, corrupt, random_cells
from tests.tokenizer.velocity.test_segment import random_segment_codec

BEATS = 12
MODES = [
    (voiced, order, bars)
    for voiced in (False, True)
    for order in ("ascending", "descending")
    for bars in (False, True)
]
SLOTS = "codes", "ages"
CODEC = random_segment_codec(64)


@cache
def codebook(name: str) -> Codebook:
    """One that has seen no music, one that knows what is asked of it, and a tiny one."""
    cells = random_cells(3, 20_000, 800)
    match name:
        case "untrained":
            return complete([NOTHING] * 3, VOCABULARY)
        case "fitted":
            return fit_codebook(cells.sustain, cells.onset, VOCABULARY, "frequency").codebook
        case _:
            return complete(
                [Patterns(cells.sustain[:5], cells.onset[:5]), NOTHING, NOTHING],
                Vocabulary(l1=16, l2=8, l3=4),
            )


@cache
def made(
    voiced: bool = False,
    order: str = "ascending",
    bars: bool = False,
    held: str = "codes",
    name: str = "untrained",
) -> PianoTokenizer:
    book = codebook(name)
    return PianoTokenizer(
        book,
        TempoBins(),
        CODEC if voiced else None,
        pitch_order=order,
        bars=bars,
        held=held,
        held_velocity=False,
    )


@pytest.fixture(params=[(*mode, held) for mode in MODES for held in SLOTS], ids=str)
def tokenizer(request: pytest.FixtureRequest) -> PianoTokenizer:
    return made(*request.param)


@st.composite
def rolls(draw: st.DrawFn) -> Cells:
    """Few pitches, so that keys are struck again; ends and onsets often exactly on beat lines."""
    count = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    frames = BEATS * FRAMES
    onset, length = rng.integers(0, frames, count), rng.integers(1, 5 * FRAMES, count)
    on_line, to_line = rng.random(count) < 0.4, rng.random(count) < 0.4
    onset[on_line] -= onset[on_line] % FRAMES
    end = onset + length
    end[to_line] = np.maximum(end[to_line] // FRAMES * FRAMES, onset[to_line] + 1)
    pitch = rng.choice([0, 60, 61, 64, 127], count).astype(np.uint8)
    velocity = rng.integers(1, 128, count).astype(np.uint8)
    return frames_to_cells(resolve_collisions(onset, end, pitch, velocity, frames)[0], BEATS)


@given(
    rolls(), st.sampled_from(MODES), st.sampled_from(SLOTS), st.sampled_from(["untrained", "fitted", "tiny"])
)
@settings(max_examples=400, deadline=None)
def test_the_same_notes_come_back_as_with_cells(cells: Cells, mode: tuple, held: str, name: str) -> None:
    held = "codes" if name == "tiny" else held  # its vocabulary has no ages
    tokenizer, plain = made(*mode, held, name), made(*mode, held="cells", name=name)
    times, bars = beat_times(1, BEATS), np.arange(1, BEATS, 3)
    ids = tokenizer.encode_cells(cells, times, bars)
    assert tokenizer.grammar.first_problem(ids) is None
    assert tokenizer.grammar.is_complete(ids)
    piece, expected = tokenizer.decode(ids), plain.decode(plain.encode_cells(cells, times, bars))
    assert piece.skipped == 0
    assert np.array_equal(piece.notes, expected.notes)
    assert np.array_equal(piece.beats_sec, expected.beats_sec)
    assert np.array_equal(piece.bar_starts, expected.bar_starts)
    assert np.array_equal(piece.cells.sustain, cells.sustain)


def test_sampled_and_corrupted_sequences_agree_with_the_validator(tokenizer: PianoTokenizer) -> None:
    rng = np.random.default_rng(4)
    grammar, ids, state = tokenizer.grammar, [], tokenizer.grammar.start()
    while state.phase != Phase.ENDED:
        allowed = grammar.allowed(state)
        some = rng.integers(0, VOCABULARY.size, 10)
        assert [grammar.allows(state, token) for token in some.tolist()] == allowed[some].tolist()
        allowed = np.flatnonzero(allowed)
        if len(ids) < 1000:
            allowed = allowed[allowed != VOCABULARY.eos]
        kind = rng.choice(np.unique(VOCABULARY.kind_of[allowed]))
        ids.append(
            VOCABULARY.eos
            if VOCABULARY.eos in allowed
            else int(rng.choice(allowed[VOCABULARY.kind_of[allowed] == kind]))
        )
        state = grammar.advance(state, ids[-1])
    assert tokenizer.decode(ids).skipped == 0
    real = tokenizer.encode_cells(random_cells(8, 60, 6), beat_times(8, 6), np.array([0, 4]))
    for _ in range(400):
        broken = corrupt(real, rng)
        skipped = tokenizer.decode(broken).skipped
        if grammar.is_complete(broken):
            assert skipped == 0
        if grammar.first_problem(broken) is not None:
            assert skipped > 0
        tokenizer.decode(rng.integers(0, VOCABULARY.size, 40))


WHOLE, LATE = (1 << FRAMES) - 1, 1 << FRAMES - 1
HALF = 1 << FRAMES // 2


def three_beats() -> Cells:
    """60 sounds on through all beats, struck again in the last; 64 ends on a beat line; 67 is struck on one."""
    told = [  # beat, pitch, sustain, onset
        (0, 60, WHOLE, 1),
        (0, 64, LATE, LATE),
        (0, 67, WHOLE & -HALF, HALF),
        (1, 60, WHOLE, 0),
        (1, 67, WHOLE, 1),
        (2, 60, WHOLE, HALF),
        (2, 67, HALF - 1, 0),
    ]
    beat, pitch, sustain, onset = zip(*told, strict=True)
    velocity = np.array([20, 90, 70, 20, 50, 20, 80, 50], np.uint8)
    masks = np.array(sustain, np.uint64), np.array(onset, np.uint64)
    return Cells(np.array(beat, np.int32), np.array(pitch, np.uint8), *masks, velocity, 3)


def kinds_of(tokenizer: PianoTokenizer, ids: np.ndarray) -> str:
    """P, V, T, A for pitch, velocity, tempo, age; s and x for codes that strike something or nothing, - silent."""
    letters = {
        Kind.PITCH: "P",
        Kind.VELOCITY: "V",
        Kind.TEMPO: "T",
        Kind.BAR: "B",
        Kind.AGE: "A",
        Kind.BOS: "<",
        Kind.EOS: ">",
    }
    codes = np.where(tokenizer.grammar.silent, "-", np.where(tokenizer.strikes_per_id > 0, "s", "x"))
    kinds = tokenizer.vocabulary.kind_of
    return "".join(str(letters.get(Kind(kinds[token]), codes[token])) for token in ids.tolist())


def known(voiced: bool, order: str = "ascending", bars: bool = False, held: str = "codes") -> PianoTokenizer:
    """One whose codebook has a code for each cell of `three_beats`."""
    cells = three_beats()
    first = Patterns(*np.unique(np.stack([cells.sustain, cells.onset]), axis=1))
    book = complete([first, NOTHING, NOTHING], VOCABULARY)
    return PianoTokenizer(
        book, TempoBins(), CODEC if voiced else None, pitch_order=order, bars=bars, held=held
    )


def test_what_sounds_on_is_told_first_and_without_its_pitch() -> None:
    cells, times, starts = three_beats(), np.arange(4) * 0.5, np.array([0])
    for tokenizer, expected in (
        (known(False), "<TPsPsPsTx----PsTsx>"),
        (known(True), "<TPsVPsVPsVTx----PsVTsVx>"),
        (known(True, bars=True), "<TBPsVPsVPsVTBx----PsVTBsVx>"),
        (known(False, "descending"), "<TPsPsPsT----xPsTxs>"),
        (known(False, held="ages"), "<TPsPsPsTAPxAP--AP--PsTAPsAPx>"),
        (known(True, bars=True, held="ages"), "<TBPsVPsVPsVTBAPxAP--AP--PsVTBAPsVAPx>"),
        (known(False, "descending", held="ages"), "<TPsPsPsTAP--AP--APxPsTAPxAPs>"),
    ):
        ids = tokenizer.encode_cells(cells, times, starts)
        assert kinds_of(tokenizer, ids) == expected
        frames = tokenizer.decode(ids).frame_notes
        assert frames[["onset", "end", "pitch"]].tolist() == [
            (0, 120, 60),
            (120, 144, 60),
            (47, 48, 64),
            (24, 48, 67),
            (48, 120, 67),
        ]


def test_a_slot_says_how_long_its_pitch_has_sounded_and_which_it_is() -> None:
    tokenizer = known(False, held="ages")
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5)
    kinds = VOCABULARY.kind_of[ids]
    at = np.flatnonzero(kinds == Kind.AGE)
    assert (ids[at + 1] - VOCABULARY.offset(Kind.PITCH)).tolist() == [60, 64, 67, 60, 67]
    frames = [48, 1, 24, 96, 48]
    assert (ids[at] - VOCABULARY.offset(Kind.AGE)).tolist() == age_numbers(np.array(frames)).tolist()
    state = tokenizer.grammar.start()
    for token, kind in zip(ids.tolist(), kinds.tolist(), strict=True):
        forced = np.flatnonzero(tokenizer.grammar.allowed(state))
        if kind == Kind.AGE or state.phase == Phase.AGED:
            assert forced.tolist() == [token]
        state = tokenizer.grammar.advance(state, token)


@given(rolls(), st.sampled_from(MODES))
@settings(max_examples=100, deadline=None)
def test_ages_count_from_the_last_strike(cells: Cells, mode: tuple) -> None:
    tokenizer = made(*mode, "ages", "fitted")
    ids = tokenizer.encode_cells(cells, beat_times(1, BEATS))
    kinds = VOCABULARY.kind_of[ids]
    at = np.flatnonzero(kinds == Kind.AGE)
    beat = np.cumsum(kinds == Kind.TEMPO)[at] - 1
    pitch = ids[at + 1] - VOCABULARY.offset(Kind.PITCH)
    notes = tokenizer.decode(ids).frame_notes
    for line, key, number in zip(beat * FRAMES, pitch, ids[at] - VOCABULARY.offset(Kind.AGE), strict=True):
        (sounding,) = notes[(notes["pitch"] == key) & (notes["onset"] < line) & (notes["end"] >= line)]
        assert age_numbers(np.array([line - sounding["onset"]])).tolist() == [number]


def test_an_age_or_a_pitch_that_is_wrong_is_named() -> None:
    tokenizer, v = known(False, held="ages"), VOCABULARY
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5)
    age = int(np.flatnonzero(v.kind_of[ids] == Kind.AGE)[0])
    older, higher = ids.copy(), ids.copy()
    older[age] += 1
    higher[age + 1] += 1
    for changed, position, message in (
        (older, age, "found, expected age 7 and codes for pitch 60, which sounds on from the beat before"),
        (higher, age + 1, "pitch 61 found, expected pitch 60, whose age came before"),
        (np.delete(ids, age), age, "found, expected age 7 and codes for pitch 60, which sounds on"),
        (
            np.delete(ids, [age, age + 1]),
            age,
            "found, expected age 7 and codes for pitch 60, which sounds on",
        ),
    ):
        problem = tokenizer.grammar.first_problem(changed)
        assert problem is not None
        assert problem.position == position
        assert message in problem.message
        assert tokenizer.decode(changed).skipped > 0
    third = np.flatnonzero(v.kind_of[ids] == Kind.TEMPO)[2]
    late = tokenizer.grammar.first_problem(np.insert(ids, third, ids[age]))
    assert late is not None
    assert "follows no pitch" in late.message


def test_ages_need_their_ids() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.held=ages: .*reserved=449 found, expected at least 465"):
        PianoTokenizer(complete([NOTHING] * 3, Vocabulary(reserved=449)), TempoBins(), held="ages")


def test_a_wrong_age_costs_nothing_but_itself() -> None:
    tokenizer, v = made(False, held="ages", name="fitted"), VOCABULARY
    ids = tokenizer.encode_cells(random_cells(5), beat_times(5))
    whole = tokenizer.decode(ids).frame_notes
    at = np.flatnonzero(v.kind_of[ids] == Kind.AGE)
    assert at.size > 50
    other = ids.copy()
    other[at] = v.offset(Kind.AGE) + (ids[at] - v.offset(Kind.AGE) + 1) % v.count(Kind.AGE)
    for changed in (other, np.delete(ids, at)):
        piece = tokenizer.decode(changed)
        assert np.array_equal(piece.frame_notes, whole)
        assert piece.skipped == at.size
    first_beats = np.flatnonzero(v.kind_of[ids] == Kind.TEMPO)[3]
    rest = tokenizer.decode(ids[first_beats:])  # no one knows what sounds there
    found = {(int(note["onset"]) + 3 * FRAMES, int(note["pitch"])) for note in rest.frame_notes}
    struck = {(int(note["onset"]), int(note["pitch"])) for note in whole if note["onset"] >= 3 * FRAMES}
    assert found <= struck
    assert len(found) > 0.8 * len(struck), "what is struck in the slot of a note not known is lost"


def test_ages_agree_with_what_is_decoded_in_all_that_the_grammar_allows() -> None:
    tokenizer, rng = made(False, held="ages"), np.random.default_rng(2)
    grammar, v = tokenizer.grammar, VOCABULARY
    told = 0
    for _ in range(20):
        ids, state = [], grammar.start()
        while len(ids) < 250:
            allowed = np.flatnonzero(grammar.allowed(state))
            kinds = v.kind_of[allowed]
            likely = (
                kinds[rng.permutation(kinds.size)[:1]] if rng.random() < 0.3 else rng.choice(np.unique(kinds))
            )
            some = allowed[(kinds == likely) & (allowed != v.eos)]
            if some.size:
                ids.append(int(rng.choice(some)))
                state = grammar.advance(state, ids[-1])
        tokens = np.array(ids)
        at = np.flatnonzero(v.kind_of[tokens[:-1]] == Kind.AGE)
        line = (np.cumsum(v.kind_of[tokens] == Kind.TEMPO)[at] - 1) * FRAMES
        notes = tokenizer.decode(tokens).frame_notes
        for frame, number, pitch in zip(line, tokens[at] - v.offset(Kind.AGE), tokens[at + 1], strict=True):
            same = notes[notes["pitch"] == pitch - v.offset(Kind.PITCH)]
            onset = same["onset"][same["onset"] < frame].max()
            assert age_numbers(frame - onset) == number
            told += 1
    assert told > 100


def test_what_is_missing_or_broken_ends_at_the_beat_line_and_is_counted() -> None:
    tokenizer = known(True)
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5)
    text = kinds_of(tokenizer, ids)
    second, third = (n for n, letter in enumerate(text) if letter == "T" and n > 1)
    v = VOCABULARY
    plain = tokenizer.decode(ids).frame_notes.size
    for changed, left_out, notes in (
        (np.delete(ids, third + 1), 2, plain - 1),  # V is left over, x in the place of s, one slot is missing
        (np.delete(ids, third + 2), 1, plain - 1),  # the slot whose velocity is gone
        (np.insert(ids, second + 1, v.offset(Kind.VELOCITY)), 1, plain),
        (np.concatenate([ids[: third + 1], [v.eos]]), 2, plain - 1),  # both slots are missing
        (np.concatenate([ids[: second + 1], ids[third:]]), 3 + 3, plain - 2),
    ):
        piece = tokenizer.decode(changed)
        assert tokenizer.grammar.first_problem(changed) is not None
        assert piece.skipped == left_out, kinds_of(tokenizer, changed)
        assert piece.frame_notes.size == notes, kinds_of(tokenizer, changed)


def test_a_pitch_that_sounds_on_is_not_told_again() -> None:
    tokenizer = known(False)
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5)
    second = np.flatnonzero(VOCABULARY.kind_of[ids] == Kind.TEMPO)[1]
    first_cell = ids[2:4]
    twice = np.concatenate([ids[: second + 6], first_cell, ids[second + 6 :]])
    problem = tokenizer.grammar.first_problem(twice)
    assert problem is not None
    assert problem.message == "pitch 60 sounds on from the beat before, and its codes have been told"
    assert tokenizer.decode(twice).skipped == 2
    early = tokenizer.grammar.first_problem(np.delete(ids, slice(second + 1, second + 6)))
    assert early is not None
    assert early.message.endswith("expected codes for pitch 60, which sounds on from the beat before")
    late = tokenizer.grammar.first_problem(np.insert(ids, second + 6, ids[second + 1]))
    assert late is not None
    assert "follows no pitch" in late.message


def test_a_struck_cell_that_begins_held_is_a_strike() -> None:
    tokenizer, cells = known(False), three_beats()
    ids = tokenizer.encode_cells(cells, np.arange(4) * 0.5)
    tempo_at = np.flatnonzero(VOCABULARY.kind_of[ids] == Kind.TEMPO)
    held, pitch = ids[tempo_at[1] + 1], ids[2]
    silent = ids[tempo_at[1] + 2 : tempo_at[1] + 4]
    changed = np.concatenate([ids[: tempo_at[1] + 1], *[silent] * 3, [pitch, held, VOCABULARY.eos]])
    assert tokenizer.grammar.is_complete(changed)
    piece = tokenizer.decode(changed)
    assert piece.skipped == 0
    assert (48, 96, 60) in piece.frame_notes[["onset", "end", "pitch"]].tolist()


@pytest.mark.parametrize("options", [{"exact": False}, {"tolerance": 2}])
@pytest.mark.parametrize("name", ["untrained", "fitted"])
@pytest.mark.parametrize("held", SLOTS)
@pytest.mark.parametrize("voiced", [False, True])
def test_inexact_codes_decide_themselves_what_sounds_on(
    voiced: bool, held: str, name: str, options: dict[str, int]
) -> None:
    for seed in range(8):
        tokenizer = PianoTokenizer(
            codebook(name), TempoBins(), CODEC if voiced else None, held=held, **options
        )
        ids = tokenizer.encode_cells(random_cells(seed), beat_times(seed))
        assert tokenizer.grammar.is_complete(ids)
        assert tokenizer.decode(ids).skipped == 0


@given(rolls(), st.sampled_from(MODES), st.sampled_from(SLOTS))
@settings(max_examples=100, deadline=None)
def test_what_is_cut_off_leaves_the_beats_before_it_as_they_are(cells: Cells, mode: tuple, held: str) -> None:
    tokenizer = made(*mode, held)
    ids = tokenizer.encode_cells(cells, beat_times(1, BEATS), np.array([0]))
    tempo_at = np.flatnonzero(VOCABULARY.kind_of[ids] == Kind.TEMPO)
    whole = tokenizer.decode(ids)
    for beats in (1, BEATS // 2, BEATS - 1):
        part = tokenizer.decode(ids[: tempo_at[beats]])
        assert (part.skipped, part.n_beats) == (0, beats)
        kept = whole.cells.beat < beats
        assert np.array_equal(part.cells.sustain, whole.cells.sustain[kept])
        assert np.array_equal(part.cells.onset, whole.cells.onset[kept])


def test_the_velocity_of_a_held_cell_needs_no_other_option() -> None:
    for said in (False, True):
        tokenizer = PianoTokenizer(
            codebook("untrained"), TempoBins(), CODEC, held_velocity=said, held="codes"
        )
        assert tokenizer.held_velocity is False
        assert tokenizer.hashes == made(True).hashes


def test_saved_and_read_again_and_told_apart(tokenizer: PianoTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = PianoTokenizer.from_pretrained(tmp_path)
    kept = tokenizer.held, tokenizer.pitch_order, tokenizer.bars
    assert (again.held, again.pitch_order, again.bars) == kept
    ids = tokenizer.encode_cells(random_cells(6), beat_times(6))
    assert np.array_equal(again.encode_cells(random_cells(6), beat_times(6)), ids)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert (saved["format_version"], saved["held"]) == (4, tokenizer.held)
    plain = made(tokenizer.codec is not None, tokenizer.pitch_order, tokenizer.bars, held="cells")
    differing = {name for name, value in plain.hashes.items() if value != tokenizer.hashes[name]}
    assert differing == {"vocabulary"}
    layout = {"codes": "-held", "ages": "-ages"}[tokenizer.held]
    assert tokenizer.hashes["vocabulary"] == plain.hashes["vocabulary"] + layout
    plain.save_pretrained(tmp_path / "plain")
    saved = json.loads((tmp_path / "plain" / "tokenizer.json").read_text())
    assert saved["format_version"] < 4
    assert "held" not in saved


def test_a_given_tokenizer_decides_and_an_option_that_is_off_is_no_part_of_a_fingerprint(
    tmp_path: Path,
) -> None:
    made(True).save_pretrained(tmp_path / "given")
    base = build_tokenizer({"mode": "base", "held": "cells"}, {"tokenizer": tmp_path / "given"})
    assert (base.mode, base.held) == ("base", "codes")
    with pytest.raises(UserError, match=r"made with bars=False, but tokenizer\.bars=True is asked for"):
        build_tokenizer({"mode": "velocity", "bars": True}, {"tokenizer": tmp_path / "given"})
    PianoTokenizer(codebook("untrained"), TempoBins(), CODEC).save_pretrained(tmp_path / "plain")
    plain = {"mode": "base", "held_velocity": False}
    assert (
        build_tokenizer(plain, {"tokenizer": tmp_path / "plain"}).mode == "base"
    )  # it has none, so none to leave out

    def fingerprint(*overrides: str, **changes: None) -> str:
        cfg = tiny(tmp_path, "tokenizer=base", *overrides)
        kept = {key: value for key, value in cfg["tokenizer"].items() if key not in changes}
        return Planner({**cfg, "tokenizer": kept}).node("tokenize").fingerprint

    assert fingerprint() == fingerprint(held=None)
    assert len({fingerprint(f"tokenizer.held={held}") for held in ("cells", *SLOTS)}) == 3


def test_an_unknown_way_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.held='notes' found, expected one of cells, codes, ages"):
        PianoTokenizer(codebook("untrained"), TempoBins(), held="notes")


@pytest.mark.parametrize("held", SLOTS)
def test_the_picture_of_a_bar_says_whose_codes_they_are(held: str, tmp_path: Path) -> None:
    tokenizer = known(True, held=held)
    piece = Piece.from_cells(three_beats(), np.arange(4) * 0.5)
    ids = tokenizer.encode(piece).ids
    (beat,) = beat_tokens(tokenizer, ids, 1, 1)
    labels = [token.label.split(" L")[0] for token in beat if token.starts_tie]
    assert labels == (["(C4)", "(E4)", "(G4)"] if held == "codes" else ["age 7", "age 0", "age 5"])
    assert [token.pitch for token in beat if token.starts_tie] == [60, 64, 67]
    assert [token.eighth for token in beat if token.pitch == 64][-2:] == [0, 4]
    save_bar(piece, tokenizer, tmp_path / "bar.png", 0, 3)
    assert (tmp_path / "bar.png").stat().st_size > 10_000


def test_real_pieces_come_back(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("asap/*/**/[A-Z]*.mid"))[::160]
    paths += sorted(shared_data.glob("pop909/POP909/*/*.mid"))[::300]
    assert len(paths) > 5
    for path in paths:
        beside = "beat_midi.txt" if "POP909" in path.parts else f"{path.stem}_annotations.txt"
        piece = Piece.from_midi(path, beats=path.with_name(beside))
        for mode in ((False, "ascending", False), (True, "descending", True)):
            held = SLOTS[mode[0]]
            tokenizer, plain = made(*mode, held, "fitted"), made(*mode, held="cells", name="fitted")
            ids, longer = tokenizer.encode(piece).ids, plain.encode(piece).ids
            back = tokenizer.decode(ids)
            assert tokenizer.grammar.is_complete(ids)
            ages = int((VOCABULARY.kind_of[ids] == Kind.AGE).sum())
            assert (ages > 0) == (held == "ages")
            assert ids.size - 2 * ages == made(*mode, "codes", "fitted").encode(piece).ids.size < longer.size
            assert back.skipped == 0
            assert np.array_equal(back.notes, plain.decode(longer).notes), path
