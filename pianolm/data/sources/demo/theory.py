"""Keys, chords and metres.

Melodies are written in staff positions (7 an octave, C0 = 0, absolute in every key). The scale of the sounding chord
gives their pitches, so a motif can be moved, inverted or reharmonised without leaving the harmony.
"""

from dataclasses import dataclass
from functools import lru_cache

TICKS = 48
LETTERS = "CDEFGAB"
NATURALS = (0, 2, 4, 5, 7, 9, 11)
SCALES = {False: (0, 2, 4, 5, 7, 9, 11), True: (0, 2, 3, 5, 7, 8, 10)}


@dataclass(frozen=True)
class Metre:
    """A time signature; the beat of 6/8 is the dotted quarter."""

    count: int
    unit: int

    @property
    def compound(self) -> bool:
        """Whether a beat divides by three."""
        return self.unit == 8

    @property
    def beats(self) -> int:
        """Beats in a bar."""
        return self.count // 3 if self.compound else self.count

    @property
    def bar(self) -> int:
        """Ticks in a bar (48 a beat)."""
        return self.beats * TICKS

    def strength(self, tick: int) -> float:
        """Metric weight of a tick counted from a downbeat, in (0, 1]."""
        within = tick % self.bar
        if within == 0:
            return 1.0
        if within % TICKS:
            return 0.2 if within % (TICKS // 2) == 0 else 0.1
        return 0.8 if 2 * within == self.bar else 0.6


@dataclass(frozen=True)
class Key:
    """A tonic, spelled (letter 0–6 from C, pitch class), and a mode."""

    letter: int
    pitch_class: int
    minor: bool

    @property
    def name(self) -> str:
        """For example "E-flat major"."""
        accidental = (self.pitch_class - NATURALS[self.letter] + 6) % 12 - 6
        sign = {-1: "-flat", 0: "", 1: "-sharp"}[accidental]
        return f"{LETTERS[self.letter]}{sign} {'minor' if self.minor else 'major'}"

    def related(self, degree: int, minor: bool) -> "Key":
        """The key on a degree (0–6) of this key's own scale."""
        semitones = SCALES[self.minor][degree]
        return Key((self.letter + degree) % 7, (self.pitch_class + semitones) % 12, minor)


# Scale degrees from 0, root first; # and b alter the key's own scale; the index after the colon is the bass.
_MAJOR = {
    "I": "0 2 4", "I6": "0 2 4:1", "I64": "0 2 4:2", "ii": "1 3 5", "ii6": "1 3 5:1", "ii65": "1 3 5 0:1",
    "ii42": "1 3 5 0:3", "iii": "2 4 6", "IV": "3 5 0", "IV6": "3 5 0:1", "IV64": "3 5 0:2", "V": "4 6 1",
    "V6": "4 6 1:1", "V7": "4 6 1 3", "V65": "4 6 1 3:1", "V43": "4 6 1 3:2", "V42": "4 6 1 3:3",
    "vi": "5 0 2",
    "V7/ii": "5 0# 2 4", "V65/ii": "5 0# 2 4:1", "V7/IV": "0 2 4 6b", "V42/IV": "0 2 4 6b:3",
    "V7/V": "1 3# 5 0",
    "V65/V": "1 3# 5 0:1", "V7/vi": "2 4# 6 1", "V65/vi": "2 4# 6 1:1", "iv": "3 5b 0", "iv64": "3 5b 0:2",
    "iio6": "1 3 5b:1", "viio7/V": "3# 5 0 2b", "Ger65": "5b 0 2b 3#",
}  # fmt: skip
_MINOR = {
    "i": "0 2 4", "i6": "0 2 4:1", "i64": "0 2 4:2", "I": "0 2# 4", "iio6": "1 3 5:1", "iio65": "1 3 5 0:1",
    "III": "2 4 6", "iv": "3 5 0", "iv6": "3 5 0:1", "iv64": "3 5 0:2", "v6": "4 6 1:1", "V": "4 6# 1",
    "V7": "4 6# 1 3", "V65": "4 6# 1 3:1", "V43": "4 6# 1 3:2", "V42": "4 6# 1 3:3", "VI": "5 0 2",
    "VII": "6 1 3",
    "V7/III": "6 1 3 5", "viio7": "6# 1 3 5", "V7/iv": "0 2# 4 6", "V65/iv": "0 2# 4 6:1",
    "V7/V": "1 3# 5# 0",
    "N6": "1b 3 5:1", "Ger65": "5 0 2 3#",
}  # fmt: skip


@dataclass(frozen=True)
class Chord:
    """A chord in a key.

    Attributes:
        degrees: scale degrees (0–6) of the members, root first.
        scale: semitones above the tonic of the seven degrees while this chord sounds.
        bass_degree: the member in the bass.
    """

    key: Key
    numeral: str
    degrees: tuple[int, ...]
    scale: tuple[int, ...]
    bass_degree: int

    def pitch(self, staff: int) -> int:
        """MIDI pitch of a staff position in this chord's scale."""
        octave, degree = divmod(staff - self.key.letter, 7)
        return 12 * octave + 12 + self.key.pitch_class + self.scale[degree]

    def degree(self, staff: int) -> int:
        """Scale degree (0–6) of a staff position."""
        return (staff - self.key.letter) % 7

    def pitch_class(self, degree: int) -> int:
        """Pitch class of a scale degree."""
        return (self.key.pitch_class + self.scale[degree]) % 12

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """Pitch classes of the members, root first."""
        return tuple(self.pitch_class(degree) for degree in self.degrees)

    @property
    def bass(self) -> int:
        """Pitch class of the bass."""
        return self.pitch_class(self.bass_degree)

    @property
    def function(self) -> str:
        """T tonic, P predominant, D dominant (the cadential six-four too), S secondary dominant.

        The minor chord on the fifth degree lacks the leading tone and passes down as a P.
        """
        if "/" in self.numeral:
            return "S"
        stem = self.numeral.rstrip("0123456789")
        if stem in ("V", "viio") or self.numeral in ("I64", "i64"):
            return "D"
        return "T" if stem in ("I", "i", "vi", "VI", "iii", "III") else "P"

    @property
    def tension(self) -> float:
        """Harmonic tension, 0 (tonic) to 1 (chromatic)."""
        if any(self.scale[degree] != SCALES[self.key.minor][degree] for degree in self.degrees):
            return 0.6 if self.function == "D" else 0.9 if self.numeral != "I" else 0.0
        return {"T": 0.0 if self.degrees[0] == 0 else 0.25, "P": 0.4, "D": 0.6, "S": 0.8}[self.function]


@lru_cache(maxsize=4096)
def chord(key: Key, numeral: str) -> Chord:
    """The chord of a Roman numeral in a key."""
    members, _, bass = (_MINOR if key.minor else _MAJOR)[numeral].partition(":")
    scale = list(SCALES[key.minor])
    degrees = []
    for member in members.split():
        degree = int(member[0])
        degrees.append(degree)
        scale[degree] += {"": 0, "#": 1, "b": -1}[member[1:]]
    return Chord(key, numeral, tuple(degrees), tuple(scale), degrees[int(bass or 0)])
