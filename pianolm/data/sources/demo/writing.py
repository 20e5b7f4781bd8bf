"""Writes a score: chooses style, key and form, then harmony and melody of each section."""

from typing import NamedTuple

from pianolm.data.sources.demo.arrange import arrange
from pianolm.data.sources.demo.harmony import Unit, away_keys, choose_unit, section_units, spans_of
from pianolm.data.sources.demo.ornament import ornament
from pianolm.data.sources.demo.random_stream import RandomStream
from pianolm.data.sources.demo.score import Phrase, Score, Span, Tone
from pianolm.data.sources.demo.styles import FORMS, MAJOR_TONICS, MINOR_TONICS, STYLES, Style
from pianolm.data.sources.demo.themes import MelodyWriter, arc, transpose
from pianolm.data.sources.demo.theory import TICKS, Key, Metre, chord

_PERIOD = ("open", "half", "open", "close")
_SENTENCE = ("open", "on", "on", "close")
_LABELS: dict[tuple[str, ...], tuple[tuple[tuple[str, str], ...], ...]] = {
    _PERIOD: ((("a", "b"), ("c", "half"), ("a", "b"), ("run", "close")),),
    _SENTENCE: tuple(
        (("a", "b"), ("a~", "b~"), drive, ("run", "close"))
        for drive in (("a~", "a~"), ("b~", "b~"), ("ai", "run~"))
    ),
}
_CONTRAST = (("e", "f"), ("e~", "half"), ("ai", "ai~"), ("run", "half"))
_CONTRAST_CLOSED = (("e", "f"), ("e~", "f~"), ("ei", "e~"), ("run", "close"))


class Section(NamedTuple):
    """Chords and melody of eight bars (four in a coda); a stored theme starts at tick 0."""

    spans: list[Span]
    tones: list[Tone]


def _duration_sec(form: tuple[str, ...], metre: Metre, tempo_bpm: float) -> float:
    bars = sum(4 if name == "coda" else 8 for name in form)
    return bars * metre.beats * 60.0 / tempo_bpm


def _choose_form(metre: Metre, tempo_bpm: float, rng: RandomStream) -> tuple[str, ...]:
    """A form that gives a piece of about one to two minutes, else the longest form."""
    fitting = [form for form in FORMS if 46.0 <= _duration_sec(form, metre, tempo_bpm) <= 130.0]
    return (
        rng.pick(fitting) if fitting else max(FORMS, key=lambda form: _duration_sec(form, metre, tempo_bpm))
    )


def _choose_key(rng: RandomStream) -> Key:
    minor = rng.chance(0.42)
    weights = [3, 3, 3, 2.5, 2.5, 2.5, 2, 2, 1.5, 1.5, 1, 1]
    letter, pitch_class = rng.pick(MINOR_TONICS if minor else MAJOR_TONICS, weights)
    return Key(letter, pitch_class, minor)


class ScoreWriter:
    """Writes the sections of a piece one after another."""

    def __init__(self, style: Style, metre: Metre, key: Key, rng: RandomStream) -> None:
        self.style, self.metre, self.key, self.rng = style, metre, key, rng
        home = chord(key, "i" if key.minor else "I")
        self.melody_writer = MelodyWriter(style, metre, home, rng)
        self.first = rng.pick([_PERIOD, _SENTENCE])
        keys = away_keys(key)
        self.away = {"B": rng.pick(keys, [3, 2, 1.5, 1]), "C": rng.pick(keys, [1, 1, 2, 2])}
        self.known: dict[str, Section] = {}
        self.opened: dict[str, list[Unit]] = {}
        self.tones: list[Tone] = []
        self.spans: list[Span] = []

    def add(self, name: str, following: str | None, onset: int) -> int:
        """Writes a section that starts at `onset` and returns the tick at which it ends."""
        letter = name[0]
        if letter == "A" and letter in self.known:
            section = self._return(name, onset)
        else:
            section = self._write(name, following, onset)
        self.spans += section.spans
        self.tones += section.tones
        return section.spans[-1].onset + section.spans[-1].duration

    def _write(self, name: str, following: str | None, onset: int) -> Section:
        """Composes a section."""
        units, labels = self._plan(name, following)
        tones: list[Tone] = []
        spans: list[Span] = []
        for number, (unit, pair) in enumerate(zip(units, labels, strict=True)):
            chords = spans_of(unit, onset + number * 2 * self.metre.bar, self.metre)
            before = (self.tones + tones)[-1:]
            tones += self.melody_writer.unit(pair, chords, before[0] if before else None, number / 4)
            spans += chords
        section = Section(spans, tones)
        if name == "A":
            shifted = [span._replace(onset=span.onset - onset) for span in spans]
            self.known["A"] = Section(shifted, transpose(tones, -onset))
        return section

    def _plan(self, name: str, following: str | None) -> tuple[list[Unit], tuple[tuple[str, str], ...]]:
        """Harmony and bar labels of a section: theme, contrast (leading back or closing) or coda."""
        if name == "coda":
            units = section_units(("coda", "close"), (self.key, self.key), self.rng)
            return units, (("a~", "a~"), ("run", "close"))
        if name == "A":
            units = section_units(self.first, (self.key,) * 4, self.rng)
            if self.first is _PERIOD:
                units[2] = units[0]
                units[3] = choose_unit(self.key, "close", units[2].last, self.rng)
            return units, self.rng.pick(_LABELS[self.first])
        letter, away = name[0], self.away[name[0]]
        if following and following[0] == letter:
            units = section_units(_SENTENCE, (away,) * 4, self.rng)
            labels = _CONTRAST_CLOSED
        else:
            keys = (away, away, self.key, self.key)
            units = section_units(("open", "half" if away.minor else "close", "on", "return"), keys, self.rng)
            labels = _CONTRAST
        if letter in self.opened:
            units[:2] = self.opened[letter]
        self.opened.setdefault(letter, units[:2])
        renamed = {"C": {"e": "g", "f": "h", "a": "b"}}.get(letter, {})
        return units, tuple((_rename(one, renamed), _rename(two, renamed)) for one, two in labels)

    def _return(self, name: str, onset: int) -> Section:
        """Repeats the theme, more ornamented with every prime, `A''` an octave higher where the range allows it."""
        spans, tones = self.known["A"]
        higher = name == "A''" and max(tone.pitch for tone in tones) <= 84
        amount = self.rng.pick([0.0, 0.2, 0.3]) + 0.1 * name.count("'")
        varied = ornament(tones, amount, self.metre.compound, self.rng)
        moved = transpose(varied, onset, int(higher))
        return Section([span._replace(onset=span.onset + onset) for span in spans], moved)


def _rename(label: str, names: dict[str, str]) -> str:
    """Gives a motif another letter; cadences and runs keep their names."""
    return names.get(label[0], label[0]) + label[1:] if len(label) <= 3 and label != "run" else label


def _finish(writer: ScoreWriter, end: int, rng: RandomStream) -> None:
    """Replaces the last bar by the closing chord; 15 % of minor pieces end in major."""
    start = end - writer.metre.bar
    numeral = "I" if not writer.key.minor or rng.chance(0.15) else "i"
    close = chord(writer.key, numeral)
    last = [tone for tone in writer.tones if tone.onset >= start][-1]
    writer.tones = [tone for tone in writer.tones if tone.onset < start]
    writer.tones.append(Tone(start, writer.metre.bar, last.staff, close))
    writer.spans = [span for span in writer.spans if span.onset < start]
    writer.spans.append(Span(start, writer.metre.bar, close))


def _phrases(
    names: tuple[str, ...], onset: int, style: Style, metre: Metre, rng: RandomStream
) -> list[Phrase]:
    """Texture, dynamic level and ending of every four bars, with an arch over the whole piece."""
    main, contrast = rng.pick(style.textures), rng.pick(style.contrasts)
    phrases = []
    for number, name in enumerate(names):
        texture = contrast if name[0] in "BC" or (name == "A''" and rng.chance(0.3)) else main
        whole = arc(number / max(len(names) - 1, 1) * 0.95)
        level = (
            style.level
            + 9.0 * (whole - 0.5)
            + (rng.between(-5, 8) if name[0] in "BC" else rng.between(-3, 3))
        )
        level -= 8.0 * (name == "coda")
        halves = 1 if name == "coda" else 2
        for half in range(halves):
            closing = 1.0 if half == halves - 1 else 0.4
            phrases.append(Phrase(onset, 4 * metre.bar, name, texture, level + 3.0 * half, closing))
            onset += 4 * metre.bar
    return phrases


def _choose_style(seed: int, index: int) -> Style:
    """Style of a piece; every block of `len(STYLES)` pieces has each style once."""
    block, place = divmod(index, len(STYLES))
    order = RandomStream(seed, block, 2).uniform(len(STYLES)).argsort(kind="stable")
    return STYLES[int(order[place])]


def write(seed: int, index: int) -> Score:
    """Writes piece `index` of a collection as a score."""
    rng = RandomStream(seed, index, 0)
    style = _choose_style(seed, index)
    metre, key = rng.pick(style.metres), _choose_key(rng)
    tempo_bpm = rng.between(*style.tempo_bpm)
    form = _choose_form(metre, tempo_bpm, rng)
    writer = ScoreWriter(style, metre, key, rng)
    introduction = 2 * metre.bar if rng.chance(style.introduction) else 0
    end = introduction
    if introduction:
        home = chord(key, "i" if key.minor else "I")
        writer.spans += [Span(bar, metre.bar, home) for bar in range(0, introduction, metre.bar)]
    for name, following in zip(form, [*form[1:], None], strict=True):
        end = writer.add(name, following, end)
    _finish(writer, end, rng)
    phrases = _phrases(form, introduction, style, metre, rng)
    if introduction:
        opening = phrases[0]
        texture = opening.texture if opening.texture not in ("duet", "chorale") else "pulse"
        phrases.insert(0, Phrase(0, introduction, "introduction", texture, opening.level - 4, 0.2))
    notes = arrange(phrases, writer.spans, writer.tones, style, metre, rng)
    lead_in = TICKS if writer.tones[0].onset < 0 else 0
    return Score(f"{style.name} in {key.name}", style.name, metre, key, tempo_bpm, lead_in, end, notes,
                 writer.tones, writer.spans, phrases)  # fmt: skip
