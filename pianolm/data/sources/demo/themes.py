"""Themes: bars that are remembered, and come back repeated, moved up and down, or upside down.

A label names what a bar is made of: a letter is an idea (new the first time, repeated afterwards), followed
by `~` for a sequence or `i` for an inversion of it. `run` is a lively bar before a cadence, `half` and
`close` are cadence bars.
"""

from dataclasses import replace

from pianolm.data.sources.demo.dice import Dice
from pianolm.data.sources.demo.melody import Slot, trace
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
    """Rise to a climax at 70 % of a section and fall away; 0 to 1."""
    return position / 0.7 if position < 0.7 else (1.0 - position) / 0.3


def _chord_at(spans: list[Span], tick: int, before: Chord) -> Chord:
    """The chord sounding at a tick; `before` ahead of the first span."""
    return next((span.chord for span in reversed(spans) if span.onset <= tick), before)


class Composer:
    """Writes the melody of one piece, remembering its ideas."""

    def __init__(self, style: Style, metre: Metre, home: Chord, dice: Dice) -> None:
        self.style, self.metre, self.home, self.dice = style, metre, home, dice
        self.has_pickup = dice.chance(style.pickup)
        self._pickup = pickup_beat(metre, dice)
        self._rhythms: dict[str, Rhythm] = {}
        self._ideas: dict[str, dict[int, int]] = {}

    def unit(
        self, labels: tuple[str, str], spans: list[Span], before: Tone | None, place: float
    ) -> list[Tone]:
        """Write two bars.

        Args:
            labels: what the bars are made of.
            spans: their chords.
            before: the last melody note so far.
            place: where the unit begins in its section, 0–1; decides the register and, at 0 and 0.5, the
            upbeat.
        """
        start = spans[0].onset
        slots: list[Slot] = []
        free = before is None or before.onset + before.duration <= start - TICKS
        if self.has_pickup and free and place in (0.0, 0.5):
            prior = before.chord if before else self.home
            slots += self._slots("pickup", start - TICKS, [Span(start - TICKS, TICKS, prior)], place)
        for number, label in enumerate(labels):
            onset = start + number * self.metre.bar
            inside = [span for span in spans if onset <= span.onset < onset + self.metre.bar]
            slots += self._slots(label, onset, inside, place + number / 8)
        fresh = any(label.rstrip("~i") not in self._ideas for label in labels)
        limits = self.style.melody
        line = trace(slots, limits, before.staff if before else None, 1.8 if fresh else 0.3, self.dice)
        tones = [
            Tone(slot.onset, slot.duration, staff, slot.chord)
            for slot, staff in zip(slots, line, strict=True)
        ]
        for number, label in enumerate(labels):
            onset = start + number * self.metre.bar
            self._remember(label, onset, self.metre.bar, tones)
        if slots[0].onset < start:
            self._remember("pickup", start - TICKS, TICKS, tones)
        return tones

    def _remember(self, label: str, onset: int, length: int, tones: list[Tone]) -> None:
        """Keep a bar under its letter, unless that letter is known."""
        bar = {tone.onset - onset: tone.staff for tone in tones if onset <= tone.onset < onset + length}
        self._ideas.setdefault(label.rstrip("~i"), bar)

    def _rhythm(self, name: str) -> Rhythm:
        """Rhythm of a bar; ideas keep theirs, cadences and runs are drawn once a piece too."""
        if name not in self._rhythms:
            make = {
                "pickup": lambda: self._pickup,
                "run": lambda: running_bar(self.metre, self.style.rhythm, self.dice),
                "half": lambda: cadence_bar(self.metre, self.dice),
                "close": lambda: cadence_bar(self.metre, self.dice),
            }.get(name, lambda: bar_rhythm(self.metre, self.style.rhythm, self.dice))
            self._rhythms[name] = make()
        return self._rhythms[name]

    def _slots(self, label: str, onset: int, spans: list[Span], place: float) -> list[Slot]:
        """Lay out the notes of a bar, split where the chord changes under a long one."""
        name = label.rstrip("~i")
        slots: list[Slot] = []
        tick = onset
        for length in self._rhythm(name):
            end = tick + abs(length)
            cuts = [span.onset for span in spans if tick + 12 <= span.onset <= end - 12] if length > 0 else []
            for left, right in zip([tick, *cuts], [*cuts, end], strict=True):
                if length > 0:
                    slots.append(self._slot(left, right - left, _chord_at(spans, left, self.home)))
            tick = end
        self._shape(slots, label, onset, place)
        if name in ("half", "close"):
            slots[-1].goals = (0,) if name != "half" else slots[-1].chord.degrees[:3]
            slots[0].lean = len(slots) > 1 and self.dice.chance(0.5)
        return slots

    def _slot(self, onset: int, duration: int, chord: Chord) -> Slot:
        """One note to be found; long notes weigh as much as accented ones."""
        strength = max(self.metre.strength(onset % self.metre.bar), min(duration / (2 * TICKS), 1.0))
        return Slot(onset, duration, chord, strength, 36 + chord.bass, 0.0)

    def _shape(self, slots: list[Slot], label: str, onset: int, place: float) -> None:
        """Give slots their contour: that of the remembered idea, or a new one."""
        idea = self._ideas.get(label.rstrip("~i"))
        low, high = (pitch * 7 / 12 - 7 for pitch in self.style.melody)
        centre = low + (0.36 + 0.34 * arc(place)) * (high - low)
        shape, height = _SHAPES[self.dice.pick(list(_SHAPES))], self.dice.between(1.5, 4.0)
        high_already = idea is not None and sum(idea.values()) > centre * len(idea)
        shift = self.dice.pick([-2, -1, 1] if high_already else [-1, 1, 2]) if label.endswith("~") else 0
        sign = -1 if label.endswith("i") else 1
        mirror = sum(idea.values()) / len(idea) + 1.0 if idea else centre
        for number, slot in enumerate(slots):
            slot.aim = centre + height * shape(number / max(len(slots) - 1, 1))
            slot.pull = 0.12
            follower = slots[number + 1] if number + 1 < len(slots) else None
            known = idea.get(slot.onset - onset) if idea else None
            if idea and known is not None:
                moved = known + shift if sign > 0 else 2 * mirror - known
                slot.aim, slot.pull = moved, (0.12 if label.endswith(("~", "i")) else 1.2)
                after = idea.get(follower.onset - onset) if follower else None
                slot.want = sign * (after - known) if after is not None else None
            elif (
                follower
                and follower.chord == slot.chord
                and slot.strength >= 0.6
                and 24 <= slot.duration <= 72
            ):
                slot.lean = self.dice.chance(0.15)


def transpose(tones: list[Tone], ticks: int, octaves: int = 0) -> list[Tone]:
    """Move a melody in time and by whole octaves."""
    return [tone._replace(onset=tone.onset + ticks, staff=tone.staff + 7 * octaves) for tone in tones]


def imitate(
    leader: list[Tone], spans: list[Span], metre: Metre, limits: tuple[int, int], dice: Dice
) -> list[Tone]:
    """Write a left-hand voice that answers the melody one bar later, and moves in longer notes until it can.

    Args:
        leader: the melody, any upbeat included.
        spans: chords of the phrase, in time order.
        metre: the metre.
        limits: lowest and highest MIDI pitch.
        dice: source of small variations.
    """
    start, end = spans[0].onset, spans[-1].onset + spans[-1].duration
    model = {tone.onset + metre.bar: tone for tone in leader if tone.onset >= start}
    slots = []
    for bar in range(start, end, metre.bar):
        answers = [tick for tick in sorted(model) if bar <= tick < bar + metre.bar]
        onsets = sorted({*answers, *(span.onset for span in spans if bar <= span.onset < bar + metre.bar)})
        if len(onsets) < metre.beats:
            onsets = sorted({*onsets, *range(bar, bar + metre.bar, TICKS)})
        for tick, until in zip(onsets, [*onsets[1:], bar + metre.bar], strict=True):
            chord = _chord_at(spans, tick, spans[0].chord)
            on_change = any(span.onset == tick for span in spans)
            slot = Slot(
                tick, until - tick, chord, metre.strength(tick - start), 36 + chord.bass, 0.0, pull=0.03
            )
            # Chords keep their inversion: the lower voice is the bass.
            slots.append(replace(slot, goals=(chord.bass_degree,) if on_change else ()))
    centre = sum(limits) / 2 * 7 / 12 - 7
    for slot, follower in zip(slots, [*slots[1:], None], strict=True):
        slot.aim = centre
        slot.bass = 0
        if follower and slot.onset in model and follower.onset in model:
            slot.want = model[follower.onset].staff - model[slot.onset].staff
    line = trace(slots, limits, None, 0.5, dice)
    return [
        Tone(slot.onset, slot.duration, staff, slot.chord) for slot, staff in zip(slots, line, strict=True)
    ]
