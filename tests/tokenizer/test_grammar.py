from __future__ import annotations

import numpy as np
import pytest

from pianolm import PianoTokenizer
from pianolm.tokenizer.grammar_state import State
from pianolm.tokenizer.grammar_table import WITH_TIES, Phase
from pianolm.tokenizer.vocabulary import ALLOTMENT, CONTROLS, EIGHTHS_OF_KIND, Kind
from tests.tokenizer.toys import (
    LAYOUTS,
    TIE_LAYOUTS,
    VOCABULARY,
    Layout,
    beat_times,
    corrupt,
    made,
    of_three_beats,
    random_cells,
    three_beats,
)

FIRST_BAR = VOCABULARY.offset(Kind.BAR)
RESERVED = range(4224, 4736)


@pytest.fixture(params=LAYOUTS, ids=str, scope="module")
def tokenizer(request: pytest.FixtureRequest) -> PianoTokenizer:
    return made(request.param)


def sampled(tokenizer: PianoTokenizer, count: int, seed: int = 4) -> list[int]:
    """A sequence drawn from the masks, every kind that is allowed equally likely, and its end."""
    rng, grammar = np.random.default_rng(seed), tokenizer.grammar
    ids: list[int] = []
    state = grammar.start()
    while state.phase != Phase.ENDED:
        allowed = np.flatnonzero(grammar.allowed(state))
        some = rng.integers(0, VOCABULARY.size, 5)
        some = some[~np.isin(VOCABULARY.kind_of[some], CONTROLS)]  # which are given, not chosen
        assert [grammar.allows(state, token) for token in some.tolist()] == np.isin(some, allowed).tolist()
        if len(ids) < count:
            allowed = allowed[allowed != VOCABULARY.eos]
        kinds = VOCABULARY.kind_of[allowed]
        ends = len(ids) >= count and VOCABULARY.eos in allowed
        ids.append(
            VOCABULARY.eos if ends else int(rng.choice(allowed[kinds == rng.choice(np.unique(kinds))]))
        )
        state = grammar.advance(state, ids[-1])
    return ids


def test_layouts_are_as_many_as_the_documentation_says() -> None:
    assert len({layout._replace(velocity=True) for layout in LAYOUTS if layout.tempo != "log50_tuned"}) == 7


def test_sampled_sequences_are_well_formed_and_decoded_whole(tokenizer: PianoTokenizer) -> None:
    ids = sampled(tokenizer, 1000)
    assert tokenizer.grammar.first_problem(ids) is None
    assert tokenizer.grammar.is_complete(ids)
    assert tokenizer.decode(ids).skipped == 0
    kinds = {Kind(kind) for kind in VOCABULARY.kind_of[ids]}
    assert kinds | {Kind.TUNING, Kind.BOS} == tokenizer.grammar.kinds - {Kind.PAD} | {Kind.TUNING, Kind.BOS}
    assert kinds & {Kind.TUNING, Kind.BOS}, "a piece begins with BOS, a part of one with its tuning"


def test_a_tuning_stands_once_behind_bos_or_first_and_elsewhere_is_left_out() -> None:
    for layout in (one for one in LAYOUTS if one.tempo == "log50_tuned"):
        tokenizer, first = made(layout), VOCABULARY.offset(Kind.TUNING)
        ids = tokenizer.encode_cells(random_cells(8, 60, 6), beat_times(8, 6), tuning=5).tolist()
        assert ids[:2] == [VOCABULARY.bos, first + 5]
        times = tokenizer.decode(ids).beats_sec
        unshifted = times * tokenizer.tempo.bpm_of_tuning[5, 0] / tokenizer.tempo.bpm[0]
        for name, broken, skipped, expected in (
            ("a part of a piece", ids[1:], 0, times),
            ("a part without its tuning", ids[2:], 0, unshifted),
            ("missing behind BOS", [ids[0], *ids[2:]], 1, unshifted),
            ("twice", [*ids[:2], first + 3, *ids[2:]], 1, times),
            ("before BOS", [ids[1], ids[0], *ids[2:]], 1, times),
            ("behind the first tempo", [ids[0], ids[2], ids[1], *ids[3:]], 2, unshifted),
            ("at the end", [*ids, first], 1, times),
        ):
            piece = tokenizer.decode(broken)
            assert piece.skipped == skipped, (layout, name)
            assert piece.beats_sec == pytest.approx(expected), (layout, name)
            assert (tokenizer.grammar.first_problem(broken) is None) == (skipped == 0), (layout, name)


def test_corrupted_sequences_are_decoded_whole_exactly_if_they_are_well_formed(
    tokenizer: PianoTokenizer,
) -> None:
    rng = np.random.default_rng(4)
    real = tokenizer.encode_cells(random_cells(8, 60, 6), beat_times(8, 6), np.array([0, 4]))
    refused = 0
    for _ in range(200):
        broken = corrupt(real, rng)
        skipped = tokenizer.decode(broken).skipped
        if tokenizer.grammar.is_complete(broken):
            assert skipped == 0
        if tokenizer.grammar.first_problem(broken) is not None:
            refused += 1
            assert skipped > 0
        tokenizer.decode(rng.integers(0, VOCABULARY.size, 40))
    assert refused > 50


def test_the_table_has_no_rows_for_what_the_layout_lacks(tokenizer: PianoTokenizer) -> None:
    grammar = tokenizer.grammar
    codes = {*EIGHTHS_OF_KIND} - (set() if grammar.exact else {Kind.L4})
    expected = {Kind.BOS, Kind.EOS, Kind.PAD, Kind.TEMPO, Kind.PITCH, *codes}
    expected |= {Kind.VELOCITY} if grammar.velocity else set()
    expected |= {Kind.BAR} if grammar.bars else set()
    expected |= {Kind.DURATION} if grammar.ties == "explicit" else set()
    expected |= {Kind.TUNING} if grammar.tuned else set()
    assert grammar.kinds == expected
    pending = grammar.table[[int(phase) for phase in WITH_TIES.values()]]
    assert (pending >= 0).any() == (grammar.ties != "repeat")
    assert (grammar.table == Phase.TEMPO).any() == grammar.bars


@pytest.mark.parametrize("velocity", [False, True])
def test_the_three_level_layout_never_allows_a_reserved_id(velocity: bool) -> None:
    tokenizer = made(Layout(velocity, exact=False, tempo="published"))
    grammar, reserved = tokenizer.grammar, np.isin(np.arange(VOCABULARY.size), RESERVED)
    state = grammar.start()
    for token in sampled(tokenizer, 2000):
        assert not (grammar.allowed(state) & reserved).any()
        state = grammar.advance(state, token)
    ids = tokenizer.encode_cells(random_cells(1), beat_times(1))
    assert not reserved[ids].any()
    for token in (4224, 4600, 4601, 4665, 4720, 4735):
        for at in (2, 3, 4, ids.size - 1):
            broken = np.insert(ids, at, token)
            assert tokenizer.decode(broken).skipped > 0
            problem = grammar.first_problem(broken)
            assert problem is not None
            assert problem.position == at


def test_advance_names_what_is_not_allowed() -> None:
    grammar, pitch = made().grammar, VOCABULARY.offset(Kind.PITCH)
    for state, token, message in (
        (grammar.start(), pitch, "pitch 0 found, expected one of TEMPO, BOS"),
        (
            State(Phase.BEAT, 70),
            pitch + 70,
            "pitch 70 found, but pitches ascend within a beat, and this one has pitch 70",
        ),
        (State(Phase.BEAT), VOCABULARY.size, "4789 is not an id of this vocabulary (0–4788)"),
        (State(Phase.BEAT), FIRST_BAR, "bar 1 found, expected one of PITCH, TEMPO, EOS"),
    ):
        with pytest.raises(ValueError, match=r"found|not an id") as error:
            grammar.advance(state, token)
        assert str(error.value) == message
    silent_half = int(np.flatnonzero(grammar.silent & (VOCABULARY.kind_of == Kind.L2))[0])
    with pytest.raises(ValueError, match="with it the cell of pitch 70 is all silent"):
        grammar.advance(State(Phase.CODES + 4, 70, False), silent_half)


def test_after_a_tempo_a_bar_is_allowed_and_all_that_follows_a_beat() -> None:
    grammar = made(Layout(bars=True)).grammar
    tempo, running = State(Phase.TEMPO), State(Phase.BEAT)
    more = np.flatnonzero(grammar.allowed(tempo) & ~grammar.allowed(running))
    assert more.tolist() == list(range(FIRST_BAR, FIRST_BAR + ALLOTMENT[Kind.BAR]))
    assert not (grammar.allowed(running) & ~grammar.allowed(tempo)).any()
    assert grammar.advance(tempo, FIRST_BAR) == running


def test_duration_and_pitch_of_an_explicit_tie_are_forced() -> None:
    tokenizer = of_three_beats(False, "explicit")
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5)
    state = tokenizer.grammar.start()
    forced = 0
    for token in ids.tolist():
        allowed = np.flatnonzero(tokenizer.grammar.allowed(state))
        if VOCABULARY.kind_of[token] == Kind.DURATION or state.phase == Phase.DURATION:
            assert allowed.tolist() == [token]
            forced += 1
        state = tokenizer.grammar.advance(state, token)
    assert forced == 10


def test_a_wrong_duration_or_pitch_of_a_tie_is_named() -> None:
    tokenizer, v = of_three_beats(False, "explicit"), VOCABULARY
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5)
    at = int(np.flatnonzero(v.kind_of[ids] == Kind.DURATION)[0])
    longer, higher = ids.copy(), ids.copy()
    longer[at] += 1
    higher[at + 1] += 1
    expected = "found, expected duration 7, pitch 60 and its codes: the pitch sounds on from the beat before"
    for changed, position, message in (
        (longer, at, f"duration 8 {expected}"),
        (higher, at + 1, "pitch 61 found, expected pitch 60, to which the duration before it belongs"),
        (np.delete(ids, at), at, f"pitch 60 {expected}"),
        (np.delete(ids, [at, at + 1]), at, expected),
    ):
        problem = tokenizer.grammar.first_problem(changed)
        assert problem is not None
        assert problem.position == position
        assert problem.message.endswith(message)
        assert tokenizer.decode(changed).skipped > 0


def test_a_tied_pitch_is_not_named_again() -> None:
    tokenizer = of_three_beats(False, "implicit")
    ids = tokenizer.encode_cells(three_beats(), np.arange(4) * 0.5)
    second = int(np.flatnonzero(VOCABULARY.kind_of[ids] == Kind.TEMPO)[1])
    twice = np.concatenate([ids[: second + 6], ids[2:4], ids[second + 6 :]])
    for changed, message in (
        (
            twice,
            "pitch 60 found, but the pitch sounds on from the beat before and has had its codes in this beat",
        ),
        (
            np.delete(ids, slice(second + 1, second + 6)),
            "found, expected codes of pitch 60: the pitch sounds on from the beat before",
        ),
        (np.insert(ids, second + 6, ids[second + 1]), "found, expected one of PITCH, TEMPO, EOS"),
    ):
        problem = tokenizer.grammar.first_problem(changed)
        assert problem is not None
        assert problem.message.endswith(message)
    assert tokenizer.decode(twice).skipped == 2


@pytest.mark.parametrize("layout", TIE_LAYOUTS, ids=str)
def test_states_with_one_mask_share_its_key(layout: Layout) -> None:
    grammar = made(layout).grammar
    masks: dict[State, np.ndarray] = {}
    state = grammar.start()
    for token in sampled(made(layout), 500):
        key = grammar.mask_key(state)
        mask = grammar.allowed(state) | (grammar.tied_pitch_ids(state) & (state.phase == Phase.BEAT))
        if state.phase == Phase.BEAT:
            mask[VOCABULARY.ids(Kind.PITCH)] = np.arange(128) > state.last_pitch
        elif state.phase == Phase.TEMPO:
            mask[VOCABULARY.ids(Kind.PITCH)] = True
        assert np.array_equal(masks.setdefault(key, mask), mask)
        state = grammar.advance(state, token)
