"""Accompaniments: a chord, its bass and its voicing, spread over the beats by a pattern.

A pattern is a bar of equal steps, started afresh at every chord: `b` bass, `o` bass in octaves, `u` bass an
octave up, `q` the root above the bass (over a root the next member, as a rule the fifth), `f` the member
below it, 1–3 voices of the chord from below, `c` all of them, `.` hold, `-` rest; `+` joins.
"""

from dataclasses import dataclass

from pianolm.data.sources.demo.random_stream import RandomStream
from pianolm.data.sources.demo.score import Note, Role, Span, Tone
from pianolm.data.sources.demo.theory import Chord, Metre

Patterns = dict[tuple[int, int], tuple[str, ...]]


@dataclass(frozen=True)
class Texture:
    """Ranges (MIDI pitch) of bass and of the chord above it, and patterns by metre."""

    bass: tuple[int, int]
    voicing: tuple[int, int]
    patterns: Patterns


TEXTURES = {
    "alberti": Texture((45, 56), (48, 67), {
        (4, 4): ("b 2 1 2 b 2 1 2", "b 1 2 1 b 1 2 1"),
        (3, 4): ("b 2 1 2 1 2",),
        (2, 4): ("b 2 1 2 b 2 1 2", "b 2 1 2"),
        (6, 8): ("b 1 2 b 1 2", "b 2 1 b 2 1"),
    }),
    "waltz": Texture((34, 48), (50, 64), {
        (4, 4): ("b c c c",),
        (3, 4): ("b c c", "b c c", "b c -"),
        (2, 4): ("b c",),
        (6, 8): ("b c c b c c", "b - c b - c"),
    }),
    "nocturne": Texture((34, 46), (50, 65), {
        (4, 4): ("b q 1 3 2 1 b q 1 3 2 1", "b q 1 2 3 2 1 q", "b q 2 1 3 1 2 q"),
        (3, 4): ("b q 1 3 2 1", "b q 2 3 2 1"),
        (2, 4): ("b q 1 3 2 1", "b q 2 1"),
        (6, 8): ("b q 1 3 2 1", "b q 2 3 2 q"),
    }),
    "pulse": Texture((36, 48), (51, 66), {
        (4, 4): ("b c . c b c . c", "b c c c c c c c"),
        (3, 4): ("b c c c c c", "b c . c . c"),
        (2, 4): ("b c . c", "b c c c"),
        (6, 8): ("b c c b c c", "b . c . c ."),
    }),
    "chorale": Texture((40, 52), (52, 69), {
        (4, 4): ("b+c . b+c .", "b+c b+c b+c b+c"),
        (3, 4): ("b+c . b+c", "b+c b+c b+c"),
        (2, 4): ("b+c b+c",),
        (6, 8): ("b+c . . b+c . .",),
    }),
    "stride": Texture((34, 47), (51, 65), {
        (4, 4): ("b c f c", "o c f c"),
        (3, 4): ("o c c", "b c c"),
        (2, 4): ("b c f c", "o c f c"),
        (6, 8): ("b . c f . c", "b - c f - c"),
    }),
    "octaves": Texture((34, 46), (50, 64), {
        (4, 4): ("b u b u b u b u", "b u q u b u q u"),
        (3, 4): ("b u b u b u", "b u q u q u"),
        (2, 4): ("b u b u", "b u q u"),
        (6, 8): ("b u u b u u",),
    }),
    "ostinato": Texture((34, 47), (50, 64), {
        (4, 4): ("b q u 1 b q u 1", "b . . q u . 1 ."),
        (3, 4): ("b q u 1 u q",),
        (2, 4): ("b . . q u . 1 .", "b q u 1"),
        (6, 8): ("b q u b q u",),
    }),
}  # fmt: skip


def _nearest(pitch_class: int, around: float, low: int, high: int) -> int:
    """Pitch of a pitch class in a range nearest to `around`; just below the top if the range has none."""
    options = [pitch for pitch in range(low, high + 1) if pitch % 12 == pitch_class]
    return (
        min(options, key=lambda pitch: abs(pitch - around)) if options else high - (high - pitch_class) % 12
    )


def bass_line(spans: list[Span], limits: tuple[int, int]) -> list[int]:
    """A bass pitch for every chord, near the preceding one and the middle of the range."""
    middle = sum(limits) / 2
    line: list[int] = []
    for span in spans:
        around = 0.7 * line[-1] + 0.3 * middle if line else middle
        line.append(_nearest(span.chord.bass, around, *limits))
    return line


def _upper_members(chord: Chord) -> list[int]:
    """Pitch classes above the bass: of four members the one in the bass (or the fifth) is left out."""
    members = list(chord.pitch_classes)
    if len(members) == 4:
        members.remove(chord.bass if chord.bass != members[0] else members[2])
    elif chord.bass == members[1]:
        # The third sounds below; doubling the root instead of it keeps leading tones single.
        members = [members[0], members[2]]
    return members


def voicing(chord: Chord, bass: int, low: int, ceiling: int, previous: tuple[int, ...]) -> tuple[int, ...]:
    """Places the upper chord members in close position, moving as little as possible from the previous voicing.

    Args:
        chord: the chord.
        bass: MIDI pitch of the highest note that belongs to the bass; the voicing is above it.
        low: about the lowest MIDI pitch wanted.
        ceiling: highest MIDI pitch allowed; members above it are left out.
        previous: the voicing before, low to high; may be empty.
    """
    members = _upper_members(chord)
    best: tuple[float, tuple[int, ...]] | None = None
    start = max(low - 5, bass + 1)
    for bottom in range(start, max(ceiling, start + 12)):
        if bottom % 12 not in members:
            continue
        stack = sorted(bottom + (member - bottom) % 12 for member in members)
        if len(stack) == 2:
            stack.append(stack[0] + 12)
        movement = sum(min(abs(pitch - old) for old in previous) for pitch in stack) if previous else 0
        cost = movement + 12.0 * max(stack[-1] - ceiling, 0) + 0.8 * abs(bottom - low - 2)
        if best is None or cost < best[0]:
            best = (cost, tuple(stack))
    assert best is not None
    kept = tuple(pitch for pitch in best[1] if pitch <= ceiling)
    return kept or (_nearest(chord.pitch_classes[0], ceiling - 6, ceiling - 12, ceiling),)


def _pitches(token: str, bass: int, chord: Chord, upper: tuple[int, ...]) -> list[int]:
    """Pitches that one letter of a pattern stands for."""
    if token == "c":
        return list(upper)
    if token.isdigit():
        return [upper[min(int(token), len(upper)) - 1]]
    if token == "q":
        above = [
            p for p in range(bass + 5, bass + 17) if p % 12 in chord.pitch_classes and p % 12 != bass % 12
        ]
        roots = [p for p in above if p % 12 == chord.pitch_classes[0] and p < bass + 10]
        return [(roots or above)[0]]
    if token == "f":
        below = [p for p in range(bass - 7, bass - 2) if p % 12 in chord.pitch_classes]
        return [below[0] if below and below[0] >= 29 else bass]
    return {"b": [bass], "o": [bass - 12, bass] if bass >= 36 else [bass], "u": [bass + 12]}[token]


def _ceiling(melody: list[Tone], span: Span, limit: int) -> int:
    """Highest pitch below the melody while a chord lasts."""
    above = [
        tone.pitch
        for tone in melody
        if span.onset < tone.onset + tone.duration and tone.onset < span.onset + span.duration
    ]
    return min([limit, *(pitch - 1 for pitch in above)])


def accompany(texture: str, spans: list[Span], melody: list[Tone], metre: Metre, choice: int) -> list[Note]:
    """Writes an accompaniment of chords below the melody.

    Args:
        texture: a name in TEXTURES.
        spans: chords in time order.
        melody: the melody above them.
        metre: the metre.
        choice: which of the texture's patterns, modulo their number.
    """
    plan = TEXTURES[texture]
    options = plan.patterns[metre.count, metre.unit]
    steps = options[choice % len(options)].split()
    grid = metre.bar // len(steps)
    notes: list[Note] = []
    previous: tuple[int, ...] = ()
    for span, bass in zip(spans, bass_line(spans, plan.bass), strict=True):
        ceiling = _ceiling(melody, span, plan.voicing[1])
        low = max(plan.voicing[0], bass + 3)
        if texture == "alberti":
            low, ceiling = bass + 3, min(ceiling, bass + 12)
        fifth = _pitches("q", bass, span.chord, ())[0] if "q" in steps else bass
        previous = voicing(span.chord, min(fifth, ceiling - 8), low, ceiling, previous)
        pattern = steps[: span.duration // grid]
        if len(pattern) == 1 and "c" not in pattern[0]:
            # A chord of one beat is struck at once, with its bass within reach.
            pattern = ["u+c"]
        notes += _spread(pattern, grid, span, bass, previous)
    return notes


def _spread(steps: list[str], grid: int, span: Span, bass: int, upper: tuple[int, ...]) -> list[Note]:
    """The notes of one chord, from its part of a pattern."""
    notes: list[Note] = []
    for number, step in enumerate(steps):
        if step in (".", "-"):
            continue
        held = 1
        while number + held < len(steps) and steps[number + held] == ".":
            held += 1
        for token in step.split("+"):
            role = Role.BASS if token in "bof" else Role.INNER
            for pitch in _pitches(token, bass, span.chord, upper):
                notes.append(Note(span.onset + number * grid, held * grid, pitch, role))
    return notes


def final_chord(span: Span, tone: Tone) -> list[Note]:
    """The last chord: an octave in the bass and the triad below the last melody note."""
    bass = _nearest(span.chord.bass, 36, 31, 43)
    low = [bass, _nearest((span.chord.pitch_classes[2]), bass + 7, bass + 5, bass + 11), bass + 12]
    high = [pitch for pitch in range(tone.pitch - 9, tone.pitch) if pitch % 12 in span.chord.pitch_classes]
    notes = [Note(span.onset, span.duration, pitch, Role.BASS) for pitch in low]
    return notes + [
        Note(span.onset, span.duration, pitch, Role.DESCANT) for pitch in high if pitch > bass + 12
    ]


def thicken(melody: list[Tone], manner: str, metre: Metre, rng: RandomStream) -> list[Note]:
    """Adds right-hand notes below a melody: octaves, chords on strong beats, or parallel thirds or sixths.

    Args:
        melody: the melody.
        manner: none, octaves, chords, thirds or sixths.
        metre: the metre.
        rng: decides which notes on weak beats stay single.
    """
    notes = []
    for tone in melody:
        strong = metre.strength(tone.onset) >= 0.6
        if tone.duration < 12 or manner == "none" or tone.pitch < 64:
            continue
        members = tone.chord.pitch_classes
        below = [pitch for pitch in range(tone.pitch - 9, tone.pitch - 2) if pitch % 12 in members]
        if manner == "octaves":
            added = [tone.pitch - 12]
        elif manner == "chords":
            added = below if strong and tone.pitch % 12 in members else []
        elif strong or rng.chance(0.5):
            distance = 2 if manner == "thirds" else 5
            parallel = tone.chord.pitch(tone.staff - distance)
            clean = parallel % 12 in members or not strong
            added = [parallel] if clean else below[-1:]
        else:
            added = []
        notes += [Note(tone.onset, tone.duration, pitch, Role.DESCANT) for pitch in added]
    return notes
