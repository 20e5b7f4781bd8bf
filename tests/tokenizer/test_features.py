"""Features say what tokens are: alike for neighbours, different for different tokens, whatever the codebook."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pianolm import PianoTokenizer
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FRAME_NOTE_DTYPE, frames_to_cells
from pianolm.tokenizer.codebook import Patterns
from pianolm.tokenizer.codebook_fit import complete
from pianolm.tokenizer.features import feature_groups, token_features
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.vocabulary import CODE_KINDS, CONTROLS, FILL_MARKS, Kind, Vocabulary
from tests.tokenizer.velocity.test_frame import random_codec

GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizer"
SMALL = Vocabulary(l1=100, l2=80, l3=60, velocity=40, reserved=400, tempo=7)
WITH_TUNINGS = Vocabulary(l1=100, l2=80, l3=60, velocity=40, reserved=490, tempo=7)


WITH_BARS = Vocabulary(l1=100, l2=80, l3=60, velocity=40, reserved=470, tempo=7)


def small(
    tempo: str = "log50",
    codec: VelocityCodec | None = None,
    seed: int = 0,
    vocabulary: Vocabulary = SMALL,
    bars: bool = False,
    ties: str = "repeat",
) -> PianoTokenizer:
    """A codebook of random patterns, unlike any that music would give."""
    rng = np.random.default_rng(seed)
    levels = []
    for frames, count in ((48, 60), (24, 30), (12, 10)):
        sustain = rng.integers(1, 1 << frames, count).astype(np.uint64)
        onset = sustain & ~(sustain << np.uint64(1)) & np.uint64((1 << frames) - 1)
        levels.append(Patterns(sustain, onset))
    codebook, bins = complete(levels, vocabulary), TempoBins(tempo, vocabulary.tempo)
    return PianoTokenizer(codebook, bins, codec, bars=bars, ties=ties)


@pytest.fixture(scope="module")
def golden() -> PianoTokenizer:
    return PianoTokenizer.from_pretrained(GOLDEN)


TOKENIZERS = {
    "golden": lambda: PianoTokenizer.from_pretrained(GOLDEN),
    **{f"base, {scheme}": lambda scheme=scheme: small(scheme) for scheme in ("log50", "published")},
    "frame codec": lambda: small(codec=random_codec(codebook_size=32)),
}
WITH_BARS_TOO = {
    **TOKENIZERS,
    "bars": lambda: small(vocabulary=WITH_BARS, bars=True),
    "tuned": lambda: small("log50_tuned", vocabulary=WITH_TUNINGS),
}


@pytest.mark.parametrize("name", WITH_BARS_TOO)
def test_features_of_any_tokenizer_are_finite_of_norm_one_and_always_the_same(name: str) -> None:
    tokenizer = WITH_BARS_TOO[name]()
    features = token_features(tokenizer)
    assert features.dtype == np.float32
    assert len(features) == tokenizer.vocabulary.size
    assert np.isfinite(features).all()
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    assert np.array_equal(features, token_features(WITH_BARS_TOO[name]()))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_all_tokenizers_have_the_same_columns(name: str, golden: PianoTokenizer) -> None:
    def widths(tokenizer: PianoTokenizer) -> dict[str, int]:
        return {group: values.shape[1] for group, values in feature_groups(tokenizer).items()}

    assert widths(TOKENIZERS[name]()) == widths(golden)


@pytest.mark.parametrize(
    "tokenizer", [small(), PianoTokenizer.from_pretrained(GOLDEN)], ids=["small", "golden"]
)
def test_every_pattern_pitch_and_tempo_has_features_of_its_own(tokenizer: PianoTokenizer) -> None:
    features = token_features(tokenizer)
    for kind in (*CODE_KINDS, Kind.PITCH, Kind.TEMPO):
        rows = features[tokenizer.vocabulary.ids(kind)]
        likeness = rows @ rows.T - np.eye(len(rows))
        assert likeness.max() < 1 - 1e-4, kind.name


@pytest.mark.parametrize("kind", CODE_KINDS[:3])  # six frames are too few to be far apart
@pytest.mark.parametrize(
    "tokenizer", [small(), PianoTokenizer.from_pretrained(GOLDEN)], ids=["small", "golden"]
)
def test_codes_a_frame_apart_are_more_alike_than_others(tokenizer: PianoTokenizer, kind: Kind) -> None:
    rows = tokenizer.vocabulary.ids(kind)
    sustain, onset = (mask[rows].tolist() for mask in tokenizer.codebook.id_patterns)
    code = {pattern: index for index, pattern in enumerate(zip(sustain, onset, strict=True))}
    pairs = [(at, code.get((s << 1, o << 1), -1)) for (s, o), at in code.items() if s]
    first, shifted = np.array([pair for pair in pairs if pair[1] >= 0]).T
    assert len(first)
    features = token_features(tokenizer)[rows]
    cosines = features @ features.T
    others = (cosines.sum(axis=1) - 1) / (len(cosines) - 1)
    assert (cosines[first, shifted] > others[first]).mean() > 0.97
    assert (cosines[first, shifted] - others[first]).mean() > 0.05


@pytest.mark.parametrize("kind", [Kind.VELOCITY, Kind.TEMPO])
def test_likeness_of_velocities_and_tempi_falls_with_their_distance(
    golden: PianoTokenizer, kind: Kind
) -> None:
    features = token_features(golden)[golden.vocabulary.ids(kind)]
    cosines = features @ features.T
    steps = len(features) // 10
    by_distance = [float(np.diagonal(cosines, step).mean()) for step in range(0, 6 * steps, steps)]
    assert all(near > far for near, far in pairwise(by_distance))


def test_pitches_are_like_their_neighbours_and_their_octaves(golden: PianoTokenizer) -> None:
    features = token_features(golden)[golden.vocabulary.ids(Kind.PITCH)]
    cosine = features[60] @ features.T
    assert cosine[61] > cosine[66]
    assert cosine[84] > max(cosine[82], cosine[83], cosine[85], cosine[86])


def test_kinds_are_less_alike_than_tokens_of_one_kind(golden: PianoTokenizer) -> None:
    features, kinds = token_features(golden), golden.vocabulary.kind_of
    pitch, tempo = features[kinds == Kind.PITCH], features[kinds == Kind.TEMPO]
    assert np.allclose(pitch @ tempo.T, 0)
    assert (pitch @ pitch.T).min() > 0


def test_held_and_struck_cells_and_those_that_end_or_go_on_differ(golden: PianoTokenizer) -> None:
    start = golden.vocabulary.offset(Kind.L4)
    rows = golden.vocabulary.ids(Kind.L4)
    sustain, onset = (mask[rows].tolist() for mask in golden.codebook.id_patterns)
    code = {pattern: start + index for index, pattern in enumerate(zip(sustain, onset, strict=True))}
    edges = feature_groups(golden)["edges"]
    assert edges[code[0b111111, 0]].tolist() == [1, 1]
    assert edges[code[0b111111, 1]].tolist() == [0, 1]
    assert edges[code[0b000111, 0]].tolist() == [1, 0]
    assert edges[code[0b000110, 0b10]].tolist() == [0, 0]
    end = feature_groups(golden)["end"]
    assert np.flatnonzero(end[code[0b000110, 0b10]]).tolist() == [2]
    assert np.flatnonzero(end[code[0b111111, 0b1000]]).tolist() == [2], "struck again: the first note ends"
    assert not end[code[0b111111, 1]].any(), "it may go on"


def test_segments_are_counted_and_as_long_as_they_sound(golden: PianoTokenizer) -> None:
    start, rows = golden.vocabulary.offset(Kind.L4), golden.vocabulary.ids(Kind.L4)
    sustain, onset = (mask[rows].tolist() for mask in golden.codebook.id_patterns)
    code = {pattern: start + index for index, pattern in enumerate(zip(sustain, onset, strict=True))}
    groups = feature_groups(golden)
    segments, duration = groups["segments"], groups["duration"]
    assert segments[code[0b111111, 0]].tolist() == [1, 0, 0, 0], "held over"
    assert segments[code[0b111111, 0b1000]].tolist() == [0, 1, 0, 0], "held over and struck again"
    assert segments[code[0b111111, 0b111111]].tolist() == [0, 0, 0, 1], "more than three"
    assert not segments[code[0, 0]].any()
    assert not duration[code[0, 0]].any()
    assert np.array_equal(duration[code[0b000111, 1]], duration[code[0b111000, 0b1000]]), "wherever it is"
    place = [duration[code[(1 << length) - 1, 1]].argmax() for length in (1, 2, 4)]
    assert place == sorted(set(place)), "longer notes lie further up"


@pytest.mark.parametrize("name", ["golden", "frame codec"])
def test_codes_that_cells_of_one_note_take_are_marked(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    alone = feature_groups(tokenizer)["velocity_alone"][tokenizer.vocabulary.ids(Kind.VELOCITY), 0]
    notes = np.zeros(127, FRAME_NOTE_DTYPE)
    notes["velocity"], notes["pitch"] = np.arange(1, 128), 60
    notes["onset"] = np.arange(127) * FRAMES
    notes["end"] = notes["onset"] + FRAMES
    taken = np.unique(tokenizer.codec.encode(frames_to_cells(notes, 127)))
    assert np.array_equal(np.flatnonzero(alone), taken)
    assert 1 < taken.size < alone.size


def test_base_mode_lacks_nothing_but_velocities(golden: PianoTokenizer) -> None:
    """So that what a base model learned of its columns holds in a model with velocities."""
    base = token_features(PianoTokenizer(golden.codebook, golden.tempo))
    velocity = golden.vocabulary.ids(Kind.VELOCITY)
    others = np.ones(len(base), bool)
    others[velocity] = False
    assert np.array_equal(base[others], token_features(golden)[others])
    assert (base[velocity] == base[velocity][0]).all()


def test_bars_add_columns_and_change_none_of_the_others() -> None:
    """So that models without bars do not depend on ids that they never see."""
    plain, bars = (feature_groups(small(vocabulary=WITH_BARS, bars=wanted)) for wanted in (False, True))
    assert set(bars) - set(plain) == {"bar"}
    assert plain["kind"].shape[1] == 11
    assert bars["kind"].shape[1] == 12
    is_bar = WITH_BARS.kind_of == Kind.BAR
    assert np.array_equal(bars["kind"][~is_bar, :11], plain["kind"][~is_bar])
    assert np.flatnonzero(bars["kind"][:, 11]).tolist() == np.flatnonzero(is_bar).tolist()
    unused = [Kind.PEDAL, Kind.BAR, Kind.RESERVED, Kind.DURATION, Kind.TUNING, *FILL_MARKS, *CONTROLS]
    reserved = np.isin(WITH_BARS.kind_of, unused)
    assert np.array_equal(plain["kind"][:, Kind.RESERVED] == 1, reserved)
    for name in set(plain) - {"kind"}:
        assert np.array_equal(bars[name], plain[name]), name


def test_explicit_ties_add_columns_and_their_bins_are_like_their_neighbours() -> None:
    plain, explicit = (
        feature_groups(small(vocabulary=WITH_BARS, ties=ties)) for ties in ("implicit", "explicit")
    )
    assert set(explicit) - set(plain) == {"tie_duration"}
    is_duration = WITH_BARS.kind_of == Kind.DURATION
    assert np.flatnonzero(explicit["kind"][:, 11]).tolist() == np.flatnonzero(is_duration).tolist()
    assert (
        np.flatnonzero(explicit["tie_duration"].any(axis=1)).tolist() == np.flatnonzero(is_duration).tolist()
    )
    for name in set(plain) - {"kind"}:
        assert np.array_equal(explicit[name], plain[name]), name
    rows = token_features(small(vocabulary=WITH_BARS, ties="explicit"))[is_duration]
    cosines = rows @ rows.T
    assert all(cosines[at, at + 1] > cosines[at, at + 2] for at in range(14))


def test_tunings_add_columns_and_are_like_their_neighbours() -> None:
    plain, tuned = (
        feature_groups(small(tempo, vocabulary=WITH_TUNINGS)) for tempo in ("log50", "log50_tuned")
    )
    assert set(tuned) - set(plain) == {"tuning"}
    is_tuning = WITH_TUNINGS.kind_of == Kind.TUNING
    assert is_tuning.sum() == 16
    assert np.flatnonzero(tuned["tuning"].any(axis=1)).tolist() == np.flatnonzero(is_tuning).tolist()
    for name in set(plain) - {"kind"}:
        assert np.array_equal(tuned[name], plain[name]), name
    rows = token_features(small("log50_tuned", vocabulary=WITH_TUNINGS))[is_tuning]
    cosines = rows @ rows.T
    assert all(cosines[at, at + 1] > cosines[at, at + 2] for at in range(14))


def test_positions_in_a_bar_are_like_their_neighbours() -> None:
    tokenizer = small(vocabulary=WITH_BARS, bars=True)
    features = token_features(tokenizer)
    rows = features[WITH_BARS.ids(Kind.BAR)]
    cosines = rows @ rows.T
    assert all(cosines[at, at + 1] > cosines[at, at + 2] for at in range(6))
    assert (cosines - np.eye(8)).max() < 1 - 1e-2, "each has features of its own"
    assert np.allclose(features[WITH_BARS.kind_of != Kind.BAR] @ rows.T, 0)
    plain = token_features(small(vocabulary=WITH_BARS))[WITH_BARS.ids(Kind.BAR)]
    assert (plain == plain[0]).all(), "no one says what they are"


def test_ids_beyond_the_codec_are_velocities_and_no_more() -> None:
    tokenizer = small(codec=random_codec(codebook_size=32))
    features = token_features(tokenizer)[tokenizer.vocabulary.ids(Kind.VELOCITY)]
    assert (features[32:] == features[32]).all()
    assert (np.count_nonzero(features[32:], axis=1) == 1).all()
