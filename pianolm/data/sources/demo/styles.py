"""Styles: metre, tempo, textures, rhythm and manner of playing of each genre."""

from dataclasses import dataclass

from pianolm.data.sources.demo.theory import Metre

C44, C34, C24, C68 = Metre(4, 4), Metre(3, 4), Metre(2, 4), Metre(6, 8)


@dataclass(frozen=True)
class Style:
    """A genre.

    Attributes:
        tempo_bpm: range of beats a minute; the beat of 6/8 is the dotted quarter.
        textures: accompaniments for the main and for contrasting sections.
        rhythm: weights of calm, moving, running and syncopated rhythms in the melody.
        melody: lowest and highest MIDI pitch of the melody.
        level: velocity of an ordinary phrase.
        rubato: freedom of tempo, 0 (strict) to 1.
        gate: part of its length that a melody note or an accompaniment note sounds; above 1 is legato.
        thicken: ways to thicken the melody at climaxes.
        introduction: chance of two bars of accompaniment before the melody.
        pickup: chance that phrases begin with an upbeat.
    """

    name: str
    metres: tuple[Metre, ...]
    tempo_bpm: tuple[float, float]
    textures: tuple[str, ...]
    contrasts: tuple[str, ...]
    rhythm: tuple[float, float, float, float]
    melody: tuple[int, int] = (62, 84)
    level: float = 62.0
    rubato: float = 0.4
    gate: tuple[float, float] = (1.02, 0.95)
    thicken: tuple[str, ...] = ("none", "sixths", "thirds")
    introduction: float = 0.0
    pickup: float = 0.3


STYLES = (
    Style("Nocturne", (C44, C68), (54, 70), ("nocturne",), ("pulse", "nocturne"), (4, 4, 1.5, 0), (65, 87),
          56, 1.0, (1.04, 1.1), ("none", "octaves", "sixths"), 0.5, 0.5),
    Style("Waltz", (C34,), (126, 160), ("waltz",), ("nocturne", "waltz"), (4, 4, 1, 0), (64, 88), 64, 0.6,
          (1.0, 0.6), ("none", "sixths", "octaves"), 0.5, 0.5),
    Style("Minuet", (C34,), (100, 126), ("duet", "alberti"), ("alberti", "chorale"), (2, 5, 2, 0), (62, 84),
          62, 0.3, (0.92, 0.85), ("none", "thirds"), 0.0, 0.3),
    Style("March", (C44, C24), (100, 122), ("stride",), ("octaves", "alberti"), (2, 5, 1, 1), (62, 84), 78,
          0.2, (0.85, 0.6), ("chords", "octaves", "thirds"), 0.3, 0.5),
    Style("Chorale", (C44, C34), (66, 88), ("chorale",), ("chorale", "duet"), (6, 3, 0, 0), (62, 77), 58,
          0.6, (1.0, 1.0), ("none",), 0.0, 0.4),
    Style("Sonatina", (C44, C24), (104, 138), ("alberti",), ("octaves", "alberti", "pulse"), (2, 4, 4, 0),
          (64, 88), 68, 0.3, (0.9, 0.9), ("none", "thirds"), 0.0, 0.2),
    Style("Barcarolle", (C68,), (50, 66), ("nocturne", "waltz"), ("pulse", "nocturne"), (4, 4, 1, 0),
          (64, 86), 57, 0.9, (1.04, 1.05), ("thirds", "sixths", "none"), 0.6, 0.3),
    Style("Invention", (C44, C34), (76, 100), ("duet",), ("duet", "alberti"), (1, 4, 5, 0), (64, 84), 64,
          0.25, (0.88, 0.88), ("none",), 0.0, 0.2),
    Style("Gigue", (C68,), (92, 126), ("stride", "duet"), ("waltz", "octaves"), (1, 6, 1, 0), (64, 86), 72,
          0.2, (0.8, 0.7), ("none", "thirds", "octaves"), 0.0, 0.4),
    Style("Prelude", (C44, C24), (63, 88), ("ostinato", "octaves"), ("nocturne", "chorale"), (5, 3, 1, 0),
          (64, 84), 58, 0.8, (1.04, 1.05), ("octaves", "chords", "sixths"), 0.6, 0.2),
    Style("Song without words", (C44, C34), (72, 96), ("pulse", "nocturne"), ("alberti", "nocturne"),
          (4, 5, 1, 0.5), (64, 85), 58, 0.8, (1.04, 1.0), ("none", "sixths", "octaves"), 0.5, 0.5),
    Style("Rag", (C24,), (66, 84), ("stride",), ("stride", "octaves"), (0.5, 2, 2, 8), (64, 86), 74, 0.15,
          (0.85, 0.65), ("octaves", "sixths", "thirds"), 0.3, 0.3),
    Style("Tango", (C24, C44), (58, 76), ("ostinato",), ("pulse", "stride"), (2, 5, 2, 4), (62, 84), 66,
          0.4, (0.95, 0.8), ("none", "thirds", "octaves"), 0.6, 0.4),
)  # fmt: skip

MAJOR_TONICS = (
    (0, 0),
    (4, 7),
    (1, 2),
    (5, 9),
    (3, 5),
    (6, 10),
    (2, 3),
    (5, 8),
    (2, 4),
    (1, 1),
    (6, 11),
    (4, 6),
)
MINOR_TONICS = (
    (5, 9),
    (2, 4),
    (1, 2),
    (4, 7),
    (0, 0),
    (6, 11),
    (3, 5),
    (3, 6),
    (0, 1),
    (6, 10),
    (2, 3),
    (4, 8),
)

FORMS = (
    ("A", "B", "A'"),
    ("A", "A'", "B", "A'"),
    ("A", "A'", "B", "A'", "coda"),
    ("A", "A'", "A''", "coda"),
    ("A", "A'", "B", "B'", "A'"),
    ("A", "B", "A'", "C", "A'", "coda"),
    ("A", "A'", "B", "A'", "C", "A''"),
    ("A", "A'", "B", "B'", "A'", "C", "A''", "coda"),
)
