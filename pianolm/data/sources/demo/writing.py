"""Writing a piece: choose what it is, lay out its form, and fill every section with harmony and melody."""

from typing import NamedTuple

from pianolm.data.sources.demo.arrange import arrange
from pianolm.data.sources.demo.dice import Dice
from pianolm.data.sources.demo.harmony import Unit, away_keys, choose_unit, section_units, spans_of
from pianolm.data.sources.demo.ornament import ornament
from pianolm.data.sources.demo.score import Phrase, Score, Span, Tone
from pianolm.data.sources.demo.styles import FORMS, MAJOR_TONICS, MINOR_TONICS, STYLES, Style
from pianolm.data.sources.demo.themes import Composer, arc, transpose
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
    """Eight bars (four in a coda) as first written, from tick 0 of the section."""

    spans: list[Span]
    tones: list[Tone]


def _duration_sec(form: tuple[str, ...], metre: Metre, tempo_bpm: float) -> float:
    bars = sum(4 if name == "coda" else 8 for name in form)
    return bars * metre.beats * 60.0 / tempo_bpm


def _choose_form(metre: Metre, tempo_bpm: float, dice: Dice) -> tuple[str, ...]:
    """A form that makes a piece of one to two minutes, or as near as there is."""
    fitting = [form for form in FORMS if 46.0 <= _duration_sec(form, metre, tempo_bpm) <= 130.0]
    return (
        dice.pick(fitting) if fitting else max(FORMS, key=lambda form: _duration_sec(form, metre, tempo_bpm))
    )


def _choose_key(dice: Dice) -> Key:
    minor = dice.chance(0.42)
    weights = [3, 3, 3, 2.5, 2.5, 2.5, 2, 2, 1.5, 1.5, 1, 1]
    letter, pitch_class = dice.pick(MINOR_TONICS if minor else MAJOR_TONICS, weights)
    return Key(letter, pitch_class, minor)


class Writer:
    """Writes the sections of one piece one after another."""

    def __init__(self, style: Style, metre: Metre, key: Key, dice: Dice) -> None:
        self.style, self.metre, self.key, self.dice = style, metre, key, dice
        home = chord(key, "i" if key.minor else "I")
        self.composer = Composer(style, metre, home, dice)
        self.first = dice.pick([_PERIOD, _SENTENCE])
        keys = away_keys(key)
        self.away = {"B": dice.pick(keys, [3, 2, 1.5, 1]), "C": dice.pick(keys, [1, 1, 2, 2])}
        self.known: dict[str, Section] = {}
        self.opened: dict[str, list[Unit]] = {}
        self.tones: list[Tone] = []
        self.spans: list[Span] = []

    def add(self, name: str, following: str | None, onset: int) -> int:
        """Write a section at a tick; returns the tick it ends at."""
        letter = name[0]
        if letter == "A" and letter in self.known:
            section = self._return(name, onset)
        else:
            section = self._write(name, following, onset)
        self.spans += section.spans
        self.tones += section.tones
        return section.spans[-1].onset + section.spans[-1].duration

    def _write(self, name: str, following: str | None, onset: int) -> Section:
        """Compose a section."""
        units, labels = self._plan(name, following)
        tones: list[Tone] = []
        spans: list[Span] = []
        for number, (unit, pair) in enumerate(zip(units, labels, strict=True)):
            chords = spans_of(unit, onset + number * 2 * self.metre.bar, self.metre)
            before = (self.tones + tones)[-1:]
            tones += self.composer.unit(pair, chords, before[0] if before else None, number / 4)
            spans += chords
        section = Section(spans, tones)
        if name == "A":
            shifted = [span._replace(onset=span.onset - onset) for span in spans]
            self.known["A"] = Section(shifted, transpose(tones, -onset))
        return section

    def _plan(self, name: str, following: str | None) -> tuple[list[Unit], tuple[tuple[str, str], ...]]:
        """Harmony and labels of a section: themes, contrasts (which lead home or close), the coda."""
        if name == "coda":
            units = section_units(("coda", "close"), (self.key, self.key), self.dice)
            return units, (("a~", "a~"), ("run", "close"))
        if name == "A":
            units = section_units(self.first, (self.key,) * 4, self.dice)
            if self.first is _PERIOD:
                units[2] = units[0]
                units[3] = choose_unit(self.key, "close", units[2].last, self.dice)
            return units, self.dice.pick(_LABELS[self.first])
        letter, away = name[0], self.away[name[0]]
        if following and following[0] == letter:
            units = section_units(_SENTENCE, (away,) * 4, self.dice)
            labels = _CONTRAST_CLOSED
        else:
            keys = (away, away, self.key, self.key)
            units = section_units(
                ("open", "half" if away.minor else "close", "on", "return"), keys, self.dice
            )
            labels = _CONTRAST
        if letter in self.opened:
            units[:2] = self.opened[letter]
        self.opened.setdefault(letter, units[:2])
        own = {"C": {"e": "g", "f": "h", "a": "b"}}.get(letter, {})
        return units, tuple((_rename(one, own), _rename(two, own)) for one, two in labels)

    def _return(self, name: str, onset: int) -> Section:
        """Bring the theme back, more ornamented with every prime, the last time perhaps an octave higher."""
        spans, tones = self.known["A"]
        higher = name == "A''" and max(tone.pitch for tone in tones) <= 84
        amount = self.dice.pick([0.0, 0.2, 0.3]) + 0.1 * name.count("'")
        varied = ornament(tones, amount, self.metre.compound, self.dice)
        moved = transpose(varied, onset, int(higher))
        return Section([span._replace(onset=span.onset + onset) for span in spans], moved)


def _rename(label: str, names: dict[str, str]) -> str:
    """Give an idea another letter; cadences and runs keep their names."""
    return names.get(label[0], label[0]) + label[1:] if len(label) <= 3 and label != "run" else label


def _finish(writer: Writer, end: int, dice: Dice) -> None:
    """Turn the last bar into the closing chord; a minor piece now and then ends in the major."""
    start = end - writer.metre.bar
    numeral = "I" if not writer.key.minor or dice.chance(0.15) else "i"
    close = chord(writer.key, numeral)
    last = [tone for tone in writer.tones if tone.onset >= start][-1]
    writer.tones = [tone for tone in writer.tones if tone.onset < start]
    writer.tones.append(Tone(start, writer.metre.bar, last.staff, close))
    writer.spans = [span for span in writer.spans if span.onset < start]
    writer.spans.append(Span(start, writer.metre.bar, close))


def _phrases(names: tuple[str, ...], onset: int, style: Style, metre: Metre, dice: Dice) -> list[Phrase]:
    """Give every four bars a texture, a dynamic level and an ending; the piece has its own arch."""
    main, contrast = dice.pick(style.textures), dice.pick(style.contrasts)
    phrases = []
    for number, name in enumerate(names):
        texture = contrast if name[0] in "BC" or (name == "A''" and dice.chance(0.3)) else main
        whole = arc(number / max(len(names) - 1, 1) * 0.95)
        level = (
            style.level
            + 9.0 * (whole - 0.5)
            + (dice.between(-5, 8) if name[0] in "BC" else dice.between(-3, 3))
        )
        level -= 8.0 * (name == "coda")
        halves = 1 if name == "coda" else 2
        for half in range(halves):
            closing = 1.0 if half == halves - 1 else 0.4
            phrases.append(Phrase(onset, 4 * metre.bar, name, texture, level + 3.0 * half, closing))
            onset += 4 * metre.bar
    return phrases


def _choose_style(seed: int, index: int) -> Style:
    """Deal the styles like cards, so that every run of as many pieces has each of them once."""
    block, place = divmod(index, len(STYLES))
    order = Dice(seed, block, 2).uniform(len(STYLES)).argsort(kind="stable")
    return STYLES[int(order[place])]


def write(seed: int, index: int) -> Score:
    """Write piece `index` of a collection, as a score."""
    dice = Dice(seed, index, 0)
    style = _choose_style(seed, index)
    metre, key = dice.pick(style.metres), _choose_key(dice)
    tempo_bpm = dice.between(*style.tempo_bpm)
    form = _choose_form(metre, tempo_bpm, dice)
    writer = Writer(style, metre, key, dice)
    introduction = 2 * metre.bar if dice.chance(style.introduction) else 0
    end = introduction
    if introduction:
        home = chord(key, "i" if key.minor else "I")
        writer.spans += [Span(bar, metre.bar, home) for bar in range(0, introduction, metre.bar)]
    for name, following in zip(form, [*form[1:], None], strict=True):
        end = writer.add(name, following, end)
    _finish(writer, end, dice)
    phrases = _phrases(form, introduction, style, metre, dice)
    if introduction:
        opening = phrases[0]
        texture = opening.texture if opening.texture not in ("duet", "chorale") else "pulse"
        phrases.insert(0, Phrase(0, introduction, "introduction", texture, opening.level - 4, 0.2))
    notes = arrange(phrases, writer.spans, writer.tones, style, metre, dice)
    lead_in = TICKS if writer.tones[0].onset < 0 else 0
    return Score(f"{style.name} in {key.name}", style.name, metre, key, tempo_bpm, lead_in, end, notes,
                 writer.tones, writer.spans, phrases)  # fmt: skip
