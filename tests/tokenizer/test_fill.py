from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm import PianoTokenizer
from pianolm.errors import UserError
from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells
from pianolm.music.gap import Gap
from pianolm.tokenizer.fill import FillSequence, FillWriter, check_fill, find_parts
from pianolm.tokenizer.grammar_state import Part
from pianolm.tokenizer.grammar_table import Phase
from pianolm.tokenizer.ties import MAX_TIE_FRAMES, duration_bins
from pianolm.tokenizer.vocabulary import FILL_MARKS, Kind, Vocabulary
from tests.tokenizer.toys import BEATS, VOCABULARY, Layout, beat_times, corrupt, made, random_cells, rolls

FILLED = [
    Layout(),
    Layout(True, bars=True),
    Layout(False, "explicit"),
    Layout(True, "explicit", bars=True, tempo="log50_tuned"),
]
MARKS = GAP, SUFFIX, PREFIX, MIDDLE = [VOCABULARY.offset(kind) for kind in FILL_MARKS]


@pytest.fixture(params=FILLED, ids=str, scope="module")
def tokenizer(request: pytest.FixtureRequest) -> PianoTokenizer:
    return made(request.param)


@st.composite
def gaps(draw: st.DrawFn) -> Gap:
    first = draw(st.integers(0, BEATS - 1))
    stop = draw(st.integers(first + 1, BEATS))
    lowest, highest = draw(st.sampled_from([(0, 127), (61, 127), (0, 60), (61, 64)]))
    return Gap(first, stop, lowest, highest)


def encoded(tokenizer: PianoTokenizer, cells: Cells) -> np.ndarray:
    return tokenizer.encode_cells(cells, beat_times(8, cells.n_beats), np.arange(1, cells.n_beats, 3))


def check_scored(sequence: FillSequence) -> None:
    """What a model learns: nothing that stands in the gap, at a mark or behind one, or begins in the gap."""
    kinds, scored, v = VOCABULARY.kind_of[sequence.ids], sequence.scored, VOCABULARY
    gap, suffix, prefix, middle = (int(np.flatnonzero(sequence.ids == mark)[0]) for mark in MARKS)
    assert gap < suffix < prefix < middle == sequence.middle - 1
    assert not scored[gap : suffix + 1].any()
    assert not scored[[at + more for at in (gap, suffix, prefix, middle) for more in (0, 1)]].any()
    in_beat = np.cumsum(kinds == Kind.TEMPO)
    first_of_suffix = in_beat[suffix:prefix] == in_beat[suffix] + 1
    assert not scored[suffix:prefix][first_of_suffix].any()
    assert scored[suffix:prefix][in_beat[suffix:prefix] > in_beat[suffix] + 1].all()
    first_of_prefix = in_beat[prefix:middle] == in_beat[prefix] + 1
    assert scored[prefix:middle][in_beat[prefix:middle] > in_beat[prefix] + 1].all()
    assert scored[prefix:middle][first_of_prefix][1:].all() == (
        v.bos in sequence.ids or first_of_prefix.sum() < 2
    )
    assert scored[:gap].all()
    assert scored[-1]
    assert not scored[middle:][kinds[middle:] == Kind.BAR].any()


@given(cells=rolls(), gap=gaps())
@settings(max_examples=15)
def test_a_reordered_piece_is_well_formed_and_decoded_to_the_same_piece(
    tokenizer: PianoTokenizer, cells: Cells, gap: Gap
) -> None:
    writer, ids = FillWriter(tokenizer.grammar), encoded(tokenizer, cells)
    filled = writer.sequence(writer.parts(ids, gap)).ids
    assert tokenizer.fill_grammar.first_problem(filled) is None
    assert tokenizer.fill_grammar.is_complete(filled)
    assert np.isin(filled, MARKS).sum() == 4
    check_scored(writer.sequence(writer.parts(ids, gap)))
    found = find_parts(VOCABULARY, filled)
    assert found is not None
    opening, _, _, prefix, middle = found
    past = np.concatenate([opening, prefix, middle[:-1]])
    assert np.array_equal(past, ids[: past.size]), "prefix and middle stand together as in the plain sequence"
    plain, back = tokenizer.decode(ids), tokenizer.decode_fill(filled)
    assert back.skipped == 0
    assert np.array_equal(back.notes, plain.notes)
    assert np.array_equal(back.beats_sec, plain.beats_sec)
    assert np.array_equal(back.bar_starts, plain.bar_starts)


def check_restarted(restarted: np.ndarray, plain: np.ndarray) -> None:
    """Behind the first beat both are equal, but for durations that count from the first beat on."""
    kinds, others = VOCABULARY.kind_of[restarted], VOCABULARY.kind_of[plain]
    beat = np.cumsum(kinds == Kind.TEMPO) - 1
    rest, same, beat = restarted[beat > 0], plain[np.cumsum(others == Kind.TEMPO) > 1], beat[beat > 0]
    assert rest.size == same.size
    changed = rest != same
    assert (VOCABULARY.kind_of[[*rest[changed], *same[changed]]] == Kind.DURATION).all()
    shortest = VOCABULARY.offset(Kind.DURATION) + duration_bins(
        np.minimum(FRAMES * beat[changed], MAX_TIE_FRAMES)
    )
    assert np.array_equal(rest[changed], shortest)
    assert (rest[changed] < same[changed]).all()


@given(cells=rolls(), gap=gaps(), first=st.integers(1, 3), last=st.integers(4, 12))
@settings(max_examples=40)
def test_a_part_of_a_piece_is_reordered_too(cells: Cells, gap: Gap, first: int, last: int) -> None:
    """As a window of training: it may begin with ties of notes before it, and end before the piece does."""
    tokenizer = made(Layout(True, "explicit", bars=True, tempo="log50_tuned"))
    writer, ids = FillWriter(tokenizer.grammar), encoded(tokenizer, cells)
    at = np.flatnonzero(VOCABULARY.kind_of[ids] == Kind.TEMPO)
    stop = [*at[1:], ids.size - 1, ids.size]  # behind each beat, and behind EOS
    part = np.concatenate([VOCABULARY.tuning_id(ids), ids[at[first] : stop[last - (last < 12)]]])
    beats = min(gap.stop, last - first)
    gap = Gap(min(gap.first, beats - 1), beats, gap.lowest, gap.highest)
    parts = writer.parts(part, gap)
    sequence = writer.sequence(parts)
    assert sequence.ids[-1] == VOCABULARY.eos
    assert sequence.ids[sequence.middle :].size == parts.middle.size + 1
    assert tokenizer.fill_grammar.is_complete(sequence.ids)
    check_scored(sequence)
    check_restarted(np.concatenate([parts.prefix, parts.middle]), ids[at[first] : stop[first + gap.stop - 1]])
    back, whole = tokenizer.decode_fill(sequence.ids), tokenizer.decode(ids).cells
    assert back.skipped == 0
    inside = (whole.beat >= first) & (whole.beat < last)
    for name in ("pitch", "sustain"):
        assert np.array_equal(getattr(back.cells, name), getattr(whole, name)[inside]), name
    later = back.cells.beat > 0
    assert np.array_equal(back.cells.onset[later], whole.onset[inside][later])


def test_durations_in_suffix_and_gap_say_nothing_about_what_is_left_out() -> None:
    """Two pieces that differ in the gap alone have the same prefix, gap and suffix."""
    tokenizer = made(Layout(True, "explicit"))
    writer = FillWriter(tokenizer.grammar)
    cells = random_cells(3, 200, 12)
    sound = cells.beat == 4
    early, late = (
        Cells(
            cells.beat,
            cells.pitch,
            np.where(sound, np.uint64((1 << 48) - (1 << start)), cells.sustain),
            np.where(sound, np.uint64(1 << start), cells.onset),
            np.ones(int(segments.sum()), np.uint8),
            12,
        )
        for start in (1, 40)
        for segments in [np.where(sound, 1, cells.segment_count)]
    )
    found = [writer.parts(tokenizer.encode_cells(one, beat_times(1, 12)), Gap(3, 5)) for one in (early, late)]
    for name in ("opening", "gap", "suffix", "prefix"):
        assert np.array_equal(getattr(found[0], name), getattr(found[1], name)), name
    assert not np.array_equal(found[0].middle, found[1].middle)


def test_a_piece_of_one_beat_is_all_gap(tokenizer: PianoTokenizer) -> None:
    writer, cells = FillWriter(tokenizer.grammar), random_cells(4, 6, 1)
    ids = encoded(tokenizer, cells)
    for gap in (Gap(0, 1), Gap(0, 1, 0, 60)):
        sequence = writer.sequence(writer.parts(ids, gap))
        assert tokenizer.fill_grammar.is_complete(sequence.ids)
        check_scored(sequence)
        suffix, prefix, middle = (
            int(np.flatnonzero(sequence.ids == mark)[0]) for mark in (SUFFIX, PREFIX, MIDDLE)
        )
        assert (sequence.ids[suffix + 1 : prefix].tolist(), middle) == ([VOCABULARY.eos], prefix + 1)
        assert np.array_equal(tokenizer.decode_fill(sequence.ids).notes, tokenizer.decode(ids).notes)


def test_marks_come_once_and_in_order(tokenizer: PianoTokenizer) -> None:
    grammar, ids = tokenizer.fill_grammar, encoded(tokenizer, random_cells(8, 60, 6))
    writer = FillWriter(tokenizer.grammar)
    real = writer.sequence(writer.parts(ids, Gap(2, 4))).ids
    at = np.flatnonzero(np.isin(real, MARKS))
    assert real[at].tolist() == MARKS
    for order in permutations(MARKS):
        swapped = real.copy()
        swapped[at] = order
        assert grammar.is_complete(swapped) == (list(order) == MARKS)
    for mark, place in product(MARKS, at):
        assert not grammar.is_complete(np.insert(real, place, mark))
    for place in at:
        assert not grammar.is_complete(np.delete(real, place))
    prefix_first = np.concatenate([ids[: at[0] + 3], real[at[0] :]])
    assert grammar.first_problem(prefix_first) is not None, "the gap stands at the beginning"


def test_middles_drawn_from_the_masks_have_the_beats_of_the_gap(tokenizer: PianoTokenizer) -> None:
    rng, grammar = np.random.default_rng(5), tokenizer.fill_grammar
    writer, ids = FillWriter(tokenizer.grammar), encoded(tokenizer, random_cells(8, 60, 6))
    sequence = writer.sequence(writer.parts(ids, Gap(1, 5)))
    given_ids = sequence.ids[: sequence.middle].tolist()
    state = grammar.start()
    for token in given_ids:
        assert grammar.allows(state, token)
        state = grammar.advance(state, token)
    assert state.fill.part == Part.MIDDLE
    drawn: list[int] = []
    while state.phase != Phase.ENDED:
        allowed = np.flatnonzero(grammar.allowed(state))
        assert not np.isin(allowed, MARKS).any()
        key = grammar.mask_key(state)
        assert state.ties.tied or np.array_equal(np.flatnonzero(grammar.allowed(key)), allowed)
        kinds = VOCABULARY.kind_of[allowed]
        drawn.append(int(rng.choice(allowed[kinds == rng.choice(np.unique(kinds))])))
        state = grammar.advance(state, drawn[-1])
    is_grid = np.isin(VOCABULARY.kind_of[drawn], (Kind.TEMPO, Kind.BAR))
    human = sequence.ids[sequence.middle :]
    expected = human[np.isin(VOCABULARY.kind_of[human], (Kind.TEMPO, Kind.BAR))]
    assert np.array_equal(np.array(drawn)[is_grid], expected)
    assert tokenizer.decode_fill([*given_ids, *drawn]).n_beats == 6


def test_corrupted_fill_sequences_never_raise_and_problems_have_a_sentence(tokenizer: PianoTokenizer) -> None:
    rng, grammar = np.random.default_rng(6), tokenizer.fill_grammar
    writer, ids = FillWriter(tokenizer.grammar), encoded(tokenizer, random_cells(8, 60, 6))
    real = writer.sequence(writer.parts(ids, Gap(2, 4, 0, 60))).ids
    refused = 0
    for _ in range(25):
        broken = real
        for _ in range(int(rng.integers(1, 4))):
            broken = corrupt(broken, rng)
        problem = grammar.first_problem(broken)
        refused += problem is not None
        assert problem is None or (problem.message and not grammar.is_complete(broken))
        for decoded in (tokenizer.decode_fill(broken), tokenizer.decode(broken)):
            assert decoded.n_beats >= 0
        tokenizer.decode_fill(rng.choice([*real, -7, 5000, *MARKS], 60))
    assert refused > 12


def test_a_fill_problem_says_what_the_gap_expects() -> None:
    tokenizer = made(Layout(False, bars=True))
    grammar, v = tokenizer.fill_grammar, VOCABULARY
    tempo, bar = v.offset(Kind.TEMPO), v.offset(Kind.BAR)
    head = [v.bos, GAP, tempo + 3, bar, tempo + 4, SUFFIX, v.eos, PREFIX, MIDDLE]
    for rest, message in (
        ([tempo + 4], "tempo 4 found, expected tempo 3 of the gap's next beat"),
        ([tempo + 3, bar + 1], "bar 2 found, expected bar 1, as in the gap"),
        ([tempo + 3, bar, v.eos], "EOS found, expected tempo 4 of the gap's next beat"),
        (
            [tempo + 3, bar, tempo + 4, tempo + 4],
            "tempo 4 found, expected EOS: the middle has as many beats as the gap",
        ),
        ([GAP], "GAP found, expected one of TEMPO"),
    ):
        problem = grammar.first_problem([*head, *rest])
        assert problem is not None
        assert problem.message == message
    for ids, message in (
        (head[:3], "EOS found, expected a suffix after the gap"),
        ([*head[:-1], tempo], "EOS found, expected a middle after the prefix"),
    ):
        problem = grammar.first_problem([*ids, v.eos])
        assert problem is not None
        assert problem.message == message
    assert made(Layout(False, bars=True)).grammar.first_problem(head[:2]) is not None, (
        "only in fill sequences"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((VOCABULARY, "implicit", True), "ties=implicit"),
        ((VOCABULARY, "repeat", False), "exact=false"),
        ((Vocabulary(reserved=500), "explicit", True), "reserved=500"),
    ],
)
def test_a_layout_without_fill_sequences_is_refused(
    options: tuple[Vocabulary, str, bool], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        check_fill(*options)
    with pytest.raises(UserError, match="no gap can be filled"):
        _ = made(Layout(ties="implicit")).fill_grammar
