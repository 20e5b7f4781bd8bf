"""Writes melodies from motifs that return repeated, in sequence or inverted.

A label says what a bar consists of. A letter is a motif, composed the first time and repeated afterwards; `~` behind
it makes a sequence and `i` an inversion of it. `run` is a bar of short notes before a cadence, `half` and `close` are
cadence bars.
"""

from dataclasses import replace

from pianolm.data.sources.demo.melody import UnpitchedNote, find_line
from pianolm.data.sources.demo.random_stream import RandomStream
from pianolm.data.sources.demo.rhythm import Rhythm, bar_rhythm, cadence_bar, pickup_beat, running_bar
from pianolm.data.sources.demo.score import Span, Tone
from pianolm.data.sources.demo.styles import Style
from pianolm.data.sources.demo.theory import TICKS, Chord, Metre

_SHAPES = {
    "rise": lambda x: 2 * x - 1,
    "fall": lambda x: 1 - 2 * x,
    "arch": lambda x: 6 * x * (1 - x) - 1,
    "bowl": lambda x: 1 - 6 * x * (1 - x),
}


def arc(position: float) -> float:
    """Arch over a section, 0 to 1, with its highest point at 70 %."""
    return position / 0.7 if position < 0.7 else (1.0 - position) / 0.3


def _chord_at(spans: list[Span], tick: int, before: Chord) -> Chord:
    """The chord sounding at a tick; before the first span it is `before`."""
    return next((span.chord for span in reversed(spans) if span.onset <= tick), before)


class MelodyWriter:
    """Writes the melody of one piece and remembers its motifs."""

    def __init__(self, style: Style, metre: Metre, home: Chord, rng: RandomStream) -> None:
        self.style, self.metre, self.home, self.rng = style, metre, home, rng
        self.has_pickup = rng.chance(style.pickup)
        self._pickup = pickup_beat(metre, rng)
        self._rhythms: dict[str, Rhythm] = {}
        self._motifs: dict[str, dict[int, int]] = {}

    def unit(
        self, labels: tuple[str, str], spans: list[Span], before: Tone | None, place: float
    ) -> list[Tone]:
        """Writes two bars.

        Args:
            labels: what each bar consists of.
            spans: their chords.
            before: the last melody note so far, or None.
            place: where the bars begin in their section, 0–1. It decides the register; an upbeat is possible at 0
                and 0.5.
        """
        start = spans[0].onset
        notes: list[UnpitchedNote] = []
        free = before is None or before.onset + before.duration <= start - TICKS
        if self.has_pickup and free and place in (0.0, 0.5):
            prior = before.chord if before else self.home
            notes += self._bar_notes("pickup", start - TICKS, [Span(start - TICKS, TICKS, prior)], place)
        for number, label in enumerate(labels):
            onset = start + number * self.metre.bar
            inside = [span for span in spans if onset <= span.onset < onset + self.metre.bar]
            notes += self._bar_notes(label, onset, inside, place + number / 8)
        fresh = any(label.rstrip("~i") not in self._motifs for label in labels)
        limits = self.style.melody
        line = find_line(notes, limits, before.staff if before else None, 1.8 if fresh else 0.3, self.rng)
        tones = [
            Tone(note.onset, note.duration, staff, note.chord)
            for note, staff in zip(notes, line, strict=True)
        ]
        for number, label in enumerate(labels):
            onset = start + number * self.metre.bar
            self._remember(label, onset, self.metre.bar, tones)
        if notes[0].onset < start:
            self._remember("pickup", start - TICKS, TICKS, tones)
        return tones

    def _remember(self, label: str, onset: int, length: int, tones: list[Tone]) -> None:
        """Stores a bar under its letter, unless the letter has one already."""
        bar = {tone.onset - onset: tone.staff for tone in tones if onset <= tone.onset < onset + length}
        self._motifs.setdefault(label.rstrip("~i"), bar)

    def _rhythm(self, name: str) -> Rhythm:
        """Rhythm of a bar. Each motif, cadence and run has one rhythm in a piece."""
        if name not in self._rhythms:
            make = {
                "pickup": lambda: self._pickup,
                "run": lambda: running_bar(self.metre, self.style.rhythm, self.rng),
                "half": lambda: cadence_bar(self.metre, self.rng),
                "close": lambda: cadence_bar(self.metre, self.rng),
            }.get(name, lambda: bar_rhythm(self.metre, self.style.rhythm, self.rng))
            self._rhythms[name] = make()
        return self._rhythms[name]

    def _bar_notes(self, label: str, onset: int, spans: list[Span], place: float) -> list[UnpitchedNote]:
        """Places the notes of a bar in time. A long note is split where the chord changes."""
        name = label.rstrip("~i")
        notes: list[UnpitchedNote] = []
        tick = onset
        for length in self._rhythm(name):
            end = tick + abs(length)
            cuts = [span.onset for span in spans if tick + 12 <= span.onset <= end - 12] if length > 0 else []
            for left, right in zip([tick, *cuts], [*cuts, end], strict=True):
                if length > 0:
                    notes.append(self._unpitched(left, right - left, _chord_at(spans, left, self.home)))
            tick = end
        self._shape(notes, label, onset, place)
        if name in ("half", "close"):
            notes[-1].allowed_degrees = (0,) if name != "half" else notes[-1].chord.degrees[:3]
            notes[0].appoggiatura = len(notes) > 1 and self.rng.chance(0.5)
        return notes

    def _unpitched(self, onset: int, duration: int, chord: Chord) -> UnpitchedNote:
        """A note without pitch; long notes weigh as much as accented ones."""
        strength = max(self.metre.strength(onset % self.metre.bar), min(duration / (2 * TICKS), 1.0))
        return UnpitchedNote(onset, duration, chord, strength, 36 + chord.bass, 0.0)

    def _shape(self, notes: list[UnpitchedNote], label: str, onset: int, place: float) -> None:
        """Sets the contour of the notes: that of the remembered motif, or a new one."""
        motif = self._motifs.get(label.rstrip("~i"))
        low, high = (pitch * 7 / 12 - 7 for pitch in self.style.melody)
        centre = low + (0.36 + 0.34 * arc(place)) * (high - low)
        shape, height = _SHAPES[self.rng.pick(list(_SHAPES))], self.rng.between(1.5, 4.0)
        high_already = motif is not None and sum(motif.values()) > centre * len(motif)
        shift = self.rng.pick([-2, -1, 1] if high_already else [-1, 1, 2]) if label.endswith("~") else 0
        sign = -1 if label.endswith("i") else 1
        mirror = sum(motif.values()) / len(motif) + 1.0 if motif else centre
        for number, note in enumerate(notes):
            note.target = centre + height * shape(number / max(len(notes) - 1, 1))
            note.target_weight = 0.12
            follower = notes[number + 1] if number + 1 < len(notes) else None
            known = motif.get(note.onset - onset) if motif else None
            if motif and known is not None:
                moved = known + shift if sign > 0 else 2 * mirror - known
                note.target, note.target_weight = moved, (0.12 if label.endswith(("~", "i")) else 1.2)
                after = motif.get(follower.onset - onset) if follower else None
                note.next_interval = sign * (after - known) if after is not None else None
            elif (
                follower
                and follower.chord == note.chord
                and note.strength >= 0.6
                and 24 <= note.duration <= 72
            ):
                note.appoggiatura = self.rng.chance(0.15)


def transpose(tones: list[Tone], ticks: int, octaves: int = 0) -> list[Tone]:
    """Moves a melody in time and by whole octaves."""
    return [tone._replace(onset=tone.onset + ticks, staff=tone.staff + 7 * octaves) for tone in tones]


def imitate(
    leader: list[Tone], spans: list[Span], metre: Metre, limits: tuple[int, int], rng: RandomStream
) -> list[Tone]:
    """Writes a left-hand voice that imitates the melody one bar later; until then it moves in longer notes.

    Args:
        leader: the melody, any upbeat included.
        spans: chords of the phrase, in time order.
        metre: the metre.
        limits: lowest and highest MIDI pitch.
        rng: source of the choices.
    """
    start, end = spans[0].onset, spans[-1].onset + spans[-1].duration
    model = {tone.onset + metre.bar: tone for tone in leader if tone.onset >= start}
    notes = []
    for bar in range(start, end, metre.bar):
        answers = [tick for tick in sorted(model) if bar <= tick < bar + metre.bar]
        onsets = sorted({*answers, *(span.onset for span in spans if bar <= span.onset < bar + metre.bar)})
        if len(onsets) < metre.beats:
            onsets = sorted({*onsets, *range(bar, bar + metre.bar, TICKS)})
        for tick, until in zip(onsets, [*onsets[1:], bar + metre.bar], strict=True):
            chord = _chord_at(spans, tick, spans[0].chord)
            on_change = any(span.onset == tick for span in spans)
            note = UnpitchedNote(
                tick,
                until - tick,
                chord,
                metre.strength(tick - start),
                36 + chord.bass,
                0.0,
                target_weight=0.03,
            )
            # Chords keep their inversion: the lower voice is the bass.
            notes.append(replace(note, allowed_degrees=(chord.bass_degree,) if on_change else ()))
    centre = sum(limits) / 2 * 7 / 12 - 7
    for note, follower in zip(notes, [*notes[1:], None], strict=True):
        note.target = centre
        note.bass = 0
        if follower and note.onset in model and follower.onset in model:
            note.next_interval = model[follower.onset].staff - model[note.onset].staff
    line = find_line(notes, limits, None, 0.5, rng)
    return [
        Tone(note.onset, note.duration, staff, note.chord) for note, staff in zip(notes, line, strict=True)
    ]
