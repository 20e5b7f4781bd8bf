"""Properties of composed pieces that random notes lack."""

import hashlib
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from pianolm.data.sources.demo import COMPOSER_VERSION
from pianolm.data.sources.demo.arrange import LEFT_REACH, RIGHT_REACH
from pianolm.data.sources.demo.composer import Composition, compose
from pianolm.data.sources.demo.harmony import follows
from pianolm.data.sources.demo.performance import phrase_position, swell
from pianolm.data.sources.demo.random_stream import RandomStream
from pianolm.data.sources.demo.score import Role, Score
from pianolm.data.sources.demo.theory import Key, Metre, chord
from pianolm.data.sources.demo.writing import write

PIECES = 60
SEED = 0


@cache
def score(index: int) -> Score:
    return write(SEED, index)


@cache
def piece(index: int, flat: bool = False) -> Composition:
    return compose(SEED, index, flat)


def every_piece(check: Callable[[int], None]) -> Callable[[], None]:
    """Makes one test of a check of each piece; a failure names the piece."""

    def test() -> None:
        for index in range(PIECES):
            try:
                check(index)
            except AssertionError as error:
                error.add_note(f"piece {index}: {piece(index).title}")
                raise

    test.__doc__ = check.__doc__
    return test


def same(a: Composition, b: Composition) -> bool:
    names = ("onset_sec", "offset_sec", "pitch", "velocity", "beats_sec", "downbeat")
    return a.title == b.title and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_a_piece_is_a_function_of_seed_and_index() -> None:
    assert same(compose(3, 5), compose(3, 5))
    assert not same(compose(3, 5), compose(3, 6))
    assert not same(compose(3, 5), compose(4, 5))


def test_the_music_is_that_of_this_composer_version() -> None:
    digest = hashlib.sha256()
    for index in range(3):
        one = compose(SEED, index)
        for values in (one.onset_sec, one.offset_sec, one.pitch, one.velocity, one.beats_sec):
            digest.update(values.tobytes())
    assert (COMPOSER_VERSION, digest.hexdigest()[:16]) == (1, "b4ffcfb7acc2d4bd"), "raise COMPOSER_VERSION"


def test_the_random_stream_is_that_of_raw_pcg64_words() -> None:
    """NumPy guarantees these words, so the pieces stay the same with every version."""
    raw = np.random.PCG64(np.random.SeedSequence((7, 1))).random_raw(3)
    assert RandomStream(7, 1).uniform(3).tolist() == [int(word) // 2**11 / 2**53 for word in raw]


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        compose(-1, 0)


def test_collection_is_varied() -> None:
    pieces = [piece(index) for index in range(PIECES)]
    assert {one.metre for one in pieces} == {(4, 4), (3, 4), (2, 4), (6, 8)}
    assert len({one.key for one in pieces}) >= 15
    assert 15 <= sum("minor" in one.key for one in pieces) <= 45
    assert len({phrase.texture for index in range(PIECES) for phrase in score(index).phrases}) >= 8
    assert len({one.title.split(" in ")[0] for one in pieces}) == 13
    melodies = {
        tuple(tone.pitch - score(i).melody[0].pitch for tone in score(i).melody[:12]) for i in range(PIECES)
    }
    assert len(melodies) == PIECES


@every_piece
def test_arrays_are_well_formed(index: int) -> None:
    one = piece(index)
    assert 150 <= len(one.pitch) <= 1400
    assert 35.0 <= one.beats_sec[-1] - one.beats_sec[0] <= 170.0
    assert one.pitch.dtype == one.velocity.dtype == np.uint8
    assert one.pitch.min() >= 21
    assert one.pitch.max() <= 108
    assert one.velocity.min() >= 1
    assert one.velocity.max() <= 127
    assert np.array_equal(np.lexsort((one.pitch, one.onset_sec)), np.arange(len(one.pitch)))
    assert (one.offset_sec - one.onset_sec).min() >= 0.019
    assert one.onset_sec[0] >= 0.0
    assert one.onset_sec[-1] < one.beats_sec[-1]


@every_piece
def test_no_key_is_struck_while_it_sounds(index: int) -> None:
    for one in (piece(index), piece(index, flat=True)):
        for pitch in np.unique(one.pitch):
            same_key = one.pitch == pitch
            assert (one.offset_sec[same_key][:-1] <= one.onset_sec[same_key][1:]).all()


@every_piece
def test_beats_are_steady_enough_and_bars_complete(index: int) -> None:
    one = piece(index)
    tempo_bpm = 60.0 / np.diff(one.beats_sec)
    assert tempo_bpm.min() > 20.0
    assert tempo_bpm.max() < 240.0
    beats_a_bar = one.metre[0] // 3 if one.metre[1] == 8 else one.metre[0]
    assert set(np.diff(np.flatnonzero(one.downbeat))) == {beats_a_bar}
    assert one.downbeat[-1]
    assert one.downbeat[:2].any()


@every_piece
def test_flat_piece_is_the_same_score_played_by_a_machine(index: int) -> None:
    flat, played = piece(index, flat=True), piece(index)
    assert len(np.unique(flat.velocity)) == 1
    assert np.ptp(np.diff(flat.beats_sec)) < 1e-5
    assert np.array_equal(np.sort(flat.pitch), np.sort(played.pitch))
    frame_sec = flat.beats_sec[-1] / (48 * (len(flat.beats_sec) - 1))
    frames = flat.onset_sec / frame_sec
    assert np.abs(frames - frames.round()).max() < 1e-2


@every_piece
def test_ritardando_at_the_end(index: int) -> None:
    intervals = np.diff(piece(index).beats_sec)
    beats_a_bar = score(index).metre.beats
    assert intervals[-beats_a_bar:].mean() > 1.2 * np.median(intervals)
    rubato = np.std(intervals[: -2 * beats_a_bar]) / intervals.mean()
    assert 0.005 < rubato < 0.2


@every_piece
def test_melody_rests_on_the_harmony(index: int) -> None:
    one = score(index)
    downbeats = [tone for tone in one.melody if one.metre.strength(tone.onset) == 1.0]
    assert np.mean([tone.pitch % 12 in tone.chord.pitch_classes for tone in downbeats]) >= 0.75
    assert any(tone.pitch % 12 not in tone.chord.pitch_classes for tone in one.melody)


@every_piece
def test_dissonance_leaves_by_step(index: int) -> None:
    melody = score(index).melody
    leaving = [
        abs(following.staff - tone.staff)
        for tone, following in pairwise(melody)
        if tone.pitch % 12 not in tone.chord.pitch_classes and following.onset == tone.onset + tone.duration
    ]
    assert np.mean([step <= 1 for step in leaving]) >= 0.75


@every_piece
def test_melody_sings(index: int) -> None:
    melody = score(index).melody
    assert all(a.onset + a.duration <= b.onset for a, b in pairwise(melody))
    steps = np.abs(np.diff([tone.staff for tone in melody]))
    assert np.mean(steps <= 2) >= 0.6
    assert np.mean(steps == 0) <= 0.4
    assert 7 <= np.ptp([tone.pitch for tone in melody]) <= 36
    assert any(a.onset + a.duration < b.onset or a.duration >= 48 for a, b in pairwise(melody))


@every_piece
def test_harmony_moves_by_the_rules(index: int) -> None:
    spans = score(index).spans
    assert len({span.chord.numeral for span in spans}) >= 5
    pairs = [(a.chord, b.chord) for a, b in pairwise(spans) if a.chord.key == b.chord.key]
    changes = [(a, b) for a, b in pairs if a != b]
    assert all(follows(a, b) for a, b in changes)
    assert {"T", "P", "D"} <= {span.chord.function for span in spans}


@every_piece
def test_theme_returns(index: int) -> None:
    one = score(index)
    starts: dict[str, int] = {}
    for phrase in one.phrases:
        starts.setdefault(phrase.section, phrase.onset)
    theme, again = starts["A"], starts["A'"]
    span = 4 * one.metre.bar
    tune = {tone.onset - theme: tone.pitch for tone in one.melody if theme <= tone.onset < theme + span - 48}
    later = {tone.onset - again: tone.pitch for tone in one.melody if again <= tone.onset < again + span - 48}
    assert np.mean([later.get(onset) == pitch for onset, pitch in tune.items()]) >= 0.9


@every_piece
def test_ends_on_the_tonic_chord(index: int) -> None:
    one = score(index)
    final = [note for note in one.notes if note.onset == one.length - one.metre.bar]
    tonic = one.key.pitch_class
    assert min(final, key=lambda note: note.pitch).pitch % 12 == tonic
    assert max(final, key=lambda note: note.pitch).pitch % 12 == tonic
    assert {note.pitch % 12 for note in final} <= {
        tonic,
        (tonic + 3) % 12,
        (tonic + 4) % 12,
        (tonic + 7) % 12,
    }
    before = [span.chord for span in one.spans if span.onset < one.length - one.metre.bar][-1]
    assert before.function == "D"


@every_piece
def test_two_hands_can_play_it(index: int) -> None:
    one = score(index)
    hands: dict[tuple[int, bool], list[int]] = {}
    for note in one.notes:
        hands.setdefault((note.onset, note.role >= Role.INNER), []).append(note.pitch)
    for (_, left), pitches in hands.items():
        assert len(pitches) <= 5
        assert max(pitches) - min(pitches) <= (LEFT_REACH if left else RIGHT_REACH)


def explained(target: NDArray[np.float64], causes: list[NDArray[np.float64]]) -> float:
    """Part of the variance that a linear model of the causes explains."""
    design = np.stack([*causes, np.ones_like(target)], axis=1)
    fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return 1.0 - float(np.var(target - fitted) / np.var(target))


def velocities_in_score_order(index: int) -> NDArray[np.float64]:
    """Velocities of the score's notes [N], found by walking each key's strikes in time."""
    one, notes = piece(index), score(index).notes
    velocity = np.zeros(len(notes))
    written = np.array([note.pitch for note in notes])
    for pitch in np.unique(written):
        velocity[written == pitch] = one.velocity[one.pitch == pitch]
    return velocity


@every_piece
def test_dynamics_follow_the_structure(index: int) -> None:
    one, velocity = score(index), velocities_in_score_order(index)
    onset = np.array([note.onset for note in one.notes])
    role = np.array([note.role for note in one.notes])
    position = np.zeros(len(onset))
    for phrase in one.phrases:
        inside = (onset >= phrase.onset) & (onset < phrase.onset + phrase.duration)
        position[inside] = swell(phrase_position(phrase, onset[inside]))
    strength = np.array([one.metre.strength(int(tick)) for tick in onset])
    pitch = np.array([float(note.pitch) for note in one.notes])
    tune = role == Role.MELODY
    assert velocity[tune].mean() > velocity[~tune].mean() + 4.0
    assert np.corrcoef(position[tune], velocity[tune])[0, 1] > 0.2
    assert explained(velocity[tune], [position[tune], strength[tune], pitch[tune], onset[tune] * 1.0]) > 0.3
    assert 4.0 < velocity.std() < 22.0


def test_every_chord_is_spelled_inside_its_scale() -> None:
    assert chord(Key(0, 0, False), "V7/V").pitch_classes == (2, 6, 9, 0)
    assert chord(Key(5, 9, True), "V65").pitch_classes == (4, 8, 11, 2)
    assert chord(Key(5, 9, True), "V65").bass == 8
    assert chord(Key(0, 0, False), "Ger65").pitch_classes == (8, 0, 3, 6)
    assert Key(2, 3, False).name == "E-flat major"
    assert Key(6, 11, True).related(2, False).name == "D major"
    assert Metre(6, 8).beats == 2
    assert Metre(6, 8).strength(48) == 0.8
