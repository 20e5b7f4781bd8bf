from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm import PianoTokenizer, Piece
from pianolm.errors import UserError
from pianolm.music.cells import FRAMES, Cells, frames_to_cells, resolve_collisions, strike_after_silence
from pianolm.tokenizer.codebook import Codebook, Patterns, eighth_patterns
from pianolm.tokenizer.codebook_fit import complete, fit_codebook
from pianolm.tokenizer.grammar import Grammar, Phase, State
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import EIGHTH_PATTERNS, Kind, Vocabulary

VOCABULARY = Vocabulary()
NOTHING = Patterns(np.zeros(0, np.uint64), np.zeros(0, np.uint64))


@pytest.fixture(scope="module")
def untrained() -> Codebook:
    """A codebook that has seen no music at all."""
    return complete([NOTHING, NOTHING, NOTHING], VOCABULARY)


@pytest.fixture(scope="module")
def base(untrained: Codebook) -> PianoTokenizer:
    return PianoTokenizer(untrained, TempoBins())


def random_cells(seed: int, notes: int = 300, beats: int = 24) -> Cells:
    rng = np.random.default_rng(seed)
    onset = rng.integers(0, beats * FRAMES - 1, notes)
    frames, _ = resolve_collisions(
        onset,
        onset + rng.integers(1, 120, notes),
        rng.integers(30, 90, notes).astype(np.uint8),
        rng.integers(1, 128, notes).astype(np.uint8),
        beats * FRAMES,
    )
    return frames_to_cells(frames, beats)


def beat_times(seed: int, beats: int = 24) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.random.default_rng(seed).uniform(0.3, 0.9, beats))])


@st.composite
def patterns(draw: st.DrawFn) -> tuple[int, int]:
    """Any pattern a cell can hold."""
    sustain = draw(st.integers(1, (1 << FRAMES) - 1))
    onset = draw(st.integers(0, (1 << FRAMES) - 1)) & sustain
    full = strike_after_silence(np.array([sustain], np.uint64), np.array([onset], np.uint64))
    return sustain, int(full[0])


def test_vocabulary_has_exactly_the_layout_of_the_design() -> None:
    layout = {kind: (VOCABULARY.offset(kind), VOCABULARY.count(kind)) for kind in Kind}
    assert VOCABULARY.size == 4789
    assert layout[Kind.PITCH] == (3584, 128)
    assert layout[Kind.VELOCITY] == (3712, 512)
    assert layout[Kind.L4] == (4224, 377)
    assert layout[Kind.TEMPO] == (4736, 50)
    assert (VOCABULARY.bos, VOCABULARY.eos, VOCABULARY.pad) == (4786, 4787, 4788)


@pytest.mark.parametrize("sizes", [{"l1": 0}, {"pitch": 88}, {"reserved": 376}, {"l9": 3}, {"tempo": True}])
def test_impossible_vocabulary_is_one_sentence(sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocabulary"):
        Vocabulary.from_dict(sizes)


def test_fourth_level_holds_every_pattern_of_six_frames() -> None:
    sustain, onset = eighth_patterns()
    assert sustain.size == EIGHTH_PATTERNS
    assert sustain[0] == 0
    assert len(set(zip(sustain.tolist(), onset.tolist(), strict=True))) == EIGHTH_PATTERNS


@given(st.lists(patterns(), min_size=1, max_size=50))
@settings(max_examples=60, deadline=None)
def test_every_possible_cell_round_trips_with_an_untrained_codebook(untrained: Codebook, cells: list) -> None:
    sustain, onset = np.array(cells, np.uint64).T
    back = untrained.decode(untrained.encode(sustain, onset))
    assert np.array_equal(back.sustain, sustain)
    assert np.array_equal(back.onset, onset)


@given(st.lists(patterns(), min_size=1, max_size=30), st.lists(patterns(), max_size=40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_possible_cell_round_trips_with_any_codebook(cells: list, known: list, size: int) -> None:
    """Codebooks of any small size with any patterns in them, known cells among those encoded."""
    vocabulary = Vocabulary(l1=size, l2=1 + size // 2, l3=1 + size // 3)
    masks = np.array(known, np.uint64).reshape(-1, 2)
    levels = [Patterns(*(masks & np.uint64((1 << frames) - 1)).T) for frames in (48, 24, 12)]
    sounding = [level.take(level.sustain != 0) for level in levels]
    codebook = complete(sounding, vocabulary)
    sustain, onset = np.array(cells + known, np.uint64).T
    back = codebook.decode(codebook.encode(sustain, onset))
    assert np.array_equal(back.sustain, sustain)
    assert np.array_equal(back.onset, onset)


@given(st.lists(patterns(), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_without_the_fourth_level_cells_stay_well_formed(untrained: Codebook, cells: list) -> None:
    sustain, onset = np.array(cells, np.uint64).T
    ids = untrained.encode(sustain, onset, exact=False)
    assert not (untrained.vocabulary.kind_of[ids[ids >= 0]] == Kind.L4).any()
    assert (untrained.decode(ids).sustain != 0).all()


def test_tolerance_shortens_and_stays_within_the_frames_allowed(untrained: Codebook) -> None:
    cells = random_cells(3, 2000)
    strict = untrained.encode(cells.sustain, cells.onset)
    loose = untrained.encode(cells.sustain, cells.onset, tolerance=2)
    back = untrained.decode(loose)
    wrong = np.bitwise_count((back.sustain ^ cells.sustain) | (back.onset ^ cells.onset))
    parts = (loose >= 0).sum(axis=1)
    assert (loose >= 0).sum() < (strict >= 0).sum()
    # each part may miss two frames; where parts meet a sustain can turn into a strike
    assert (wrong <= 3 * parts).all()


def test_fit_keeps_the_best_way_and_never_loses_to_frequency() -> None:
    cells = random_cells(5, 20_000, 800)
    small = Vocabulary(l1=64, l2=64, l3=64)
    fit = fit_codebook(cells.sustain, cells.onset, small)
    assert set(fit.codes_per_cell) == {"frequency", "savings", "kmeans"}
    assert fit.codes_per_cell[fit.method] == min(fit.codes_per_cell.values())
    measured = (fit.codebook.encode(cells.sustain, cells.onset) >= 0).sum() / len(cells)
    assert measured == pytest.approx(fit.codes_per_cell[fit.method])


def test_fit_learns_patterns_that_occur() -> None:
    cells = random_cells(6, 20_000, 800)
    codebook = fit_codebook(cells.sustain, cells.onset, Vocabulary(l1=32), "kmeans").codebook
    seen = set(zip(cells.sustain.tolist(), cells.onset.tolist(), strict=True))
    assert set(zip(*(a.tolist() for a in codebook.levels[0]), strict=True)) <= seen


def test_fit_refuses_no_cells_and_unknown_methods() -> None:
    with pytest.raises(UserError, match="no training cells"):
        fit_codebook(NOTHING.sustain, NOTHING.onset, VOCABULARY)
    with pytest.raises(UserError, match="frequency, savings, kmeans"):
        fit_codebook(NOTHING.sustain, NOTHING.onset, VOCABULARY, "magic")


def test_codebook_file_round_trips_and_names_what_is_wrong(untrained: Codebook, tmp_path: Path) -> None:
    untrained.save(tmp_path / "c.npz")
    assert Codebook.load(tmp_path / "c.npz", VOCABULARY).fingerprint == untrained.fingerprint
    with pytest.raises(UserError, match="2048 codes found, the vocabulary has 100"):
        Codebook.load(tmp_path / "c.npz", Vocabulary(l1=100))
    np.savez(tmp_path / "d.npz", l1_sustain=np.arange(3))
    with pytest.raises(UserError, match="lacks the array"):
        Codebook.load(tmp_path / "d.npz", VOCABULARY)
    (tmp_path / "e.npz").write_text("no archive")
    with pytest.raises(UserError, match=r"not a readable \.npz"):
        Codebook.load(tmp_path / "e.npz", VOCABULARY)


@pytest.mark.parametrize(("scheme", "limit_ms"), [("log50", 70), ("linear10", 700)])
def test_tempo_errors_do_not_add_up(scheme: str, limit_ms: float) -> None:
    times = beat_times(1, 4000)
    bins = TempoBins(scheme)
    decoded = bins.decode(bins.encode(times))
    assert np.abs(decoded - times).max() * 1000 < limit_ms


@given(st.lists(st.integers(0, 49), min_size=1, max_size=80))
def test_tempo_bins_are_stable_under_decoding_and_encoding(bins: list[int]) -> None:
    tempo = TempoBins()
    assert tempo.encode(tempo.decode(bins)).tolist() == bins


def test_unknown_tempo_scheme_lists_the_schemes() -> None:
    with pytest.raises(UserError, match="log50, linear10"):
        TempoBins("cubic")


def test_cells_and_tempo_round_trip(base: PianoTokenizer) -> None:
    cells, times = random_cells(1), beat_times(1)
    ids = base.encode_cells(cells, times)
    back = base.decode(ids)
    assert base.grammar.is_complete(ids)
    assert back.skipped == 0
    for name in ("beat", "pitch", "sustain", "onset"):
        assert np.array_equal(getattr(back.cells, name), getattr(cells, name)), name
    assert np.abs(back.beats_sec - times).max() < 0.07
    assert np.array_equal(base.encode(back).ids, ids)


def test_piece_keeps_every_note_and_flat_pieces_hide_their_velocity_loss(
    base: PianoTokenizer, tmp_path: Path
) -> None:
    piece = Piece.from_cells(random_cells(2), beat_times(2))
    piece.to_midi(tmp_path / "x.mid")
    read = Piece.from_midi(tmp_path / "x.mid", beats="tempo_map")
    assert np.array_equal(read.frame_notes, piece.frame_notes)
    assert base.encode(piece.with_flat(True)).loss_mask.all(), "base mode has no velocity tokens to mask"


def test_saved_tokenizer_gives_the_same_ids_and_notices_changes(base: PianoTokenizer, tmp_path: Path) -> None:
    base.save_pretrained(tmp_path / "tokenizer")
    again = PianoTokenizer.from_pretrained(tmp_path)
    cells, times = random_cells(4), beat_times(4)
    assert np.array_equal(again.encode_cells(cells, times), base.encode_cells(cells, times))
    assert again.hashes == base.hashes
    settings_file = tmp_path / "tokenizer" / "tokenizer.json"
    changed = json.loads(settings_file.read_text())
    changed["tempo"] = "linear10"
    settings_file.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="tempo found with other contents"):
        PianoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        PianoTokenizer.from_pretrained(tmp_path / "elsewhere")


def corrupt(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    at = int(rng.integers(1, ids.size - 1))
    other = int(rng.integers(1, ids.size - 1))
    match int(rng.integers(4)):
        case 0:
            ids = ids.copy()
            ids[[at, other]] = ids[[other, at]]
        case 1:
            ids = np.delete(ids, at)
        case 2:
            ids = np.insert(ids, at, rng.integers(0, VOCABULARY.size))
        case _:
            ids = ids[:at]
    return ids


def assert_decodes_to_something_valid(tokenizer: PianoTokenizer, ids: np.ndarray) -> None:
    piece = tokenizer.decode(ids)
    again = tokenizer.encode(piece).ids
    assert 0 <= piece.skipped <= ids.size
    if piece.n_beats:
        assert tokenizer.grammar.is_complete(again)
        assert tokenizer.decode(again).skipped == 0


def test_decode_survives_random_and_corrupted_sequences(base: PianoTokenizer) -> None:
    rng = np.random.default_rng(0)
    real = base.encode_cells(random_cells(7, 60, 6), beat_times(7, 6))
    for _ in range(1000):
        assert_decodes_to_something_valid(base, rng.integers(0, VOCABULARY.size, int(rng.integers(0, 60))))
        assert_decodes_to_something_valid(base, corrupt(real, rng))


def test_decode_counts_exactly_what_is_out_of_place(base: PianoTokenizer) -> None:
    v = VOCABULARY
    tempo, l1, l2 = v.offset(Kind.TEMPO) + 20, 5, v.offset(Kind.L2) + 3
    pitch = v.offset(Kind.PITCH)
    ids = [
        v.bos,
        tempo,
        pitch + 60,
        l1,
        pitch + 60,
        l1,
        pitch + 61,
        l2,
        pitch + 62,
        l1,
        l1,
        v.eos,
        tempo,
        v.pad,
    ]
    piece = base.decode(ids)
    # the second 60 does not ascend (2), 61 breaks off (2), one L1 is surplus, a tempo follows EOS
    assert piece.skipped == 6
    assert piece.cells.pitch.tolist() == [60, 62]


@pytest.mark.parametrize("velocity", [False, True])
def test_sampling_from_the_table_is_always_well_formed(untrained: Codebook, velocity: bool) -> None:
    grammar = Grammar(VOCABULARY, velocity, untrained.silent_ids)
    rng = np.random.default_rng(1)
    ids, state = [], grammar.start()
    while len(ids) < 4000 and state.phase != Phase.ENDED:
        allowed = np.flatnonzero(grammar.allowed(state))
        allowed = allowed[allowed != VOCABULARY.eos]
        ids.append(int(rng.choice(allowed)))
        state = grammar.advance(state, ids[-1])
    assert len(ids) == 4000
    assert grammar.first_problem(ids) is None


def test_decoder_agrees_with_the_validator(base: PianoTokenizer) -> None:
    """What the validator passes is decoded whole; what it refuses costs at least one token."""
    rng = np.random.default_rng(2)
    real = base.encode_cells(random_cells(8, 60, 6), beat_times(8, 6))
    for _ in range(300):
        ids = corrupt(real, rng)
        skipped = base.decode(ids).skipped
        if base.grammar.is_complete(ids):
            assert skipped == 0
        if base.grammar.first_problem(ids) is not None:
            assert skipped > 0


def test_advance_refuses_what_is_not_allowed_with_a_reason(base: PianoTokenizer) -> None:
    grammar = base.grammar
    with pytest.raises(ValueError, match="expected one of"):
        grammar.advance(grammar.start(), VOCABULARY.offset(Kind.PITCH))
    with pytest.raises(ValueError, match="does not ascend"):
        grammar.advance(State(Phase.BEAT, 70), VOCABULARY.offset(Kind.PITCH) + 70)
    silent_half = int(np.flatnonzero(base.codebook.silent_ids & (VOCABULARY.kind_of == Kind.L2))[0])
    with pytest.raises(ValueError, match="all silent"):
        grammar.advance(State(Phase.CODES + 4, 70, False), silent_half)
