"""Functional harmony: eight-bar sections assembled from two-bar units (opening, continuation, cadence)."""

from typing import NamedTuple

from pianolm.data.sources.demo.random_stream import RandomStream
from pianolm.data.sources.demo.score import Span
from pianolm.data.sources.demo.theory import TICKS, Chord, Key, Metre, chord

# Two bars each; a bar holds one chord or two.
_UNITS = {
    (False, "open"): (
        "I | V7", "I | V65", "I | vi", "I | IV", "I V43 | I6", "I | ii6", "I V6 | vi", "I iii | IV",
        "I IV64 | I", "I | ii42", "I V7/IV | IV",
    ),
    (False, "on"): (
        "vi | IV", "IV | I6", "IV I6 | ii6", "V7/vi | vi", "V7/IV | IV", "vi ii | V7 I", "V65/ii | ii",
        "I6 | IV", "V42 | I6", "IV iv | I6", "I V65/vi | vi ii6", "I6 V65/ii | ii IV", "V7 | I",
        "V65 | I V42/IV", "iii vi | ii6 V7",
    ),
    (False, "half"): (
        "ii6 | V", "IV V65/V | V", "vi ii6 | V", "I6 V7/V | V", "I6 ii65 | V", "vi V65/V | V", "IV | V",
        "iv | V", "I V6 | IV6 V",
    ),
    (False, "close"): (
        "ii6 V7 | I", "IV V7 | I", "I64 V7 | I", "ii65 V7 | I", "iio6 V7 | I", "viio7/V V7 | I",
        "V7/V V7 | I", "I6 V7 | I", "vi V7 | I", "I V7 | I",
    ),
    (False, "return"): (
        "ii6 | V7", "IV V65/V | V7", "iv | V7", "Ger65 I64 | V7", "vi V7/V | V7",
    ),
    (False, "coda"): (
        "I V7/IV | IV iv", "I | iv64", "I V42/IV | IV6 ii65",
    ),
    (True, "open"): (
        "i | V7", "i | iv", "i V65 | i", "i | iio6", "i | VI", "i v6 | iv6", "i V43 | i6", "i iv64 | i",
        "i VI | iv",
    ),
    (True, "on"): (
        "iv | i6", "VI | iv", "V7/iv | iv", "VII | III", "iv V7/III | III VI", "VI III | iv i6", "i6 | iv",
        "III | VI", "V42 | i6", "V7 | i", "V65/iv | iv", "III VI | iio6 V7",
    ),
    (True, "half"): (
        "iv | V", "iio6 | V", "iv6 | V", "i6 iv | V", "i VII | VI V", "i Ger65 | V", "i6 V7/V | V",
    ),
    (True, "close"): (
        "iv V7 | i", "iio65 V7 | i", "i64 V7 | i", "N6 V7 | i", "iio6 V7 | i", "V7/V V7 | i", "i6 V7 | i",
        "VI V7 | i", "i V7 | i",
    ),
    (True, "return"): (
        "iv | V7", "Ger65 i64 | V7", "iio6 | V7", "VI iio6 | V7", "N6 | V7",
    ),
    (True, "coda"): (
        "i V7/iv | iv", "i | iv64", "i VI | N6",
    ),
}  # fmt: skip


class Unit(NamedTuple):
    """Two bars of numerals in one key, such as "ii6 V7 | I"."""

    key: Key
    bars: str

    @property
    def first(self) -> Chord:
        """Chord the unit starts on."""
        return chord(self.key, self.bars.split()[0])

    @property
    def last(self) -> Chord:
        """Chord the unit ends on."""
        return chord(self.key, self.bars.split()[-1])


def follows(before: Chord, after: Chord) -> bool:
    """Whether a progression is idiomatic: dominants resolve, supertonics move on, no chord repeats."""
    if before.numeral == after.numeral and before.key == after.key:
        return False
    if after.numeral in ("I64", "i64"):
        return before.function == "P"
    root_motion = (after.pitch_classes[0] - before.pitch_classes[0]) % 12
    if before.function == "S":
        return root_motion == (1 if before.numeral.startswith("vii") else 5)
    if before.function == "D":
        return after.function == "D" or root_motion == 5 or after.numeral in ("I6", "i6", "vi", "VI", "IV6")
    # A triad of the second or third degree leads away from home, not back to it.
    return not (before.numeral in ("ii", "ii6", "iio6") and after.degrees[0] == 0)


def choose_unit(key: Key, purpose: str, before: Chord | None, rng: RandomStream) -> Unit:
    """Chooses a unit that may follow the preceding chord.

    Args:
        key: key of the unit.
        purpose: open, on, half, close, return or coda.
        before: the preceding chord, or None at the start of a phrase.
        rng: source of the choice.
    """
    units = [Unit(key, bars) for bars in _UNITS[key.minor, purpose]]
    fitting = [unit for unit in units if before is None or follows(before, unit.first)]
    return rng.pick(fitting or units)


def away_keys(home: Key) -> list[Key]:
    """Keys for contrasting sections: relative, neighbours on the circle of fifths, parallel."""
    if home.minor:
        return [home.related(2, False), home.related(5, False), home.related(3, True), home.related(0, False)]
    return [home.related(5, True), home.related(4, False), home.related(3, False), home.related(0, True)]


def section_units(purposes: tuple[str, ...], keys: tuple[Key, ...], rng: RandomStream) -> list[Unit]:
    """Chooses units one after another; an "open" unit starts a phrase and may follow any chord.

    Args:
        purposes: one purpose a unit.
        keys: one key a unit.
        rng: source of the choices.
    """
    units: list[Unit] = []
    for purpose, key in zip(purposes, keys, strict=True):
        before = units[-1].last if units and purpose != "open" else None
        units.append(choose_unit(key, purpose, before, rng))
    return units


def spans_of(unit: Unit, onset: int, metre: Metre) -> list[Span]:
    """The chords of a unit in time; two chords in a bar of three beats last 2 + 1."""
    spans = []
    first = (metre.beats + 1) // 2 * TICKS
    for bar in unit.bars.split("|"):
        numerals = bar.split()
        lengths = [metre.bar] if len(numerals) == 1 else [first, metre.bar - first]
        for numeral, length in zip(numerals, lengths, strict=True):
            spans.append(Span(onset, length, chord(unit.key, numeral)))
            onset += length
    return spans
