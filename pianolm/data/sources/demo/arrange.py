"""Arranges a melody and its chords for two hands: accompaniment, thickened climaxes and closing chord."""

from collections import defaultdict

from pianolm.data.sources.demo.random_stream import RandomStream
from pianolm.data.sources.demo.score import Note, Phrase, Role, Span, Tone
from pianolm.data.sources.demo.styles import Style
from pianolm.data.sources.demo.texture import accompany, final_chord, thicken
from pianolm.data.sources.demo.themes import imitate
from pianolm.data.sources.demo.theory import Metre

LEFT_REACH = 14
RIGHT_REACH = 12


def _inside(phrase: Phrase, onset: int) -> bool:
    return phrase.onset <= onset < phrase.onset + phrase.duration


def arrange(
    phrases: list[Phrase],
    spans: list[Span],
    melody: list[Tone],
    style: Style,
    metre: Metre,
    rng: RandomStream,
) -> list[Note]:
    """Writes the notes of both hands.

    Args:
        phrases, spans, melody: the piece, in time order; the last span is the closing chord.
        style: decides the range of a second voice and how climaxes are thickened.
        metre: the metre.
        rng: source of the choices.
    """
    notes = [Note(tone.onset, tone.duration, tone.pitch, Role.MELODY) for tone in melody]
    manner = rng.pick(style.thicken)
    chosen = {name: int(rng.between(0, 6)) for name in sorted({phrase.texture for phrase in phrases})}
    left: list[Note] = []
    for phrase in phrases:
        chords = [span for span in spans[:-1] if _inside(phrase, span.onset)]
        tune = [tone for tone in melody if _inside(phrase, tone.onset)]
        if phrase.texture == "duet":
            voice = imitate(tune, chords, metre, (43, 62), rng)
            left += [Note(tone.onset, tone.duration, tone.pitch, Role.BASS) for tone in voice]
        else:
            left += accompany(phrase.texture, chords, tune, metre, chosen[phrase.texture])
        if phrase.level >= style.level + 5 and phrase.texture not in ("duet", "chorale"):
            notes += thicken(tune, manner, metre, rng)
    left += final_chord(spans[-1], melody[-1])
    return clean(within_reach(notes + left))


def within_reach(notes: list[Note]) -> list[Note]:
    """Assigns notes with the same onset to a hand that reaches them and drops those out of reach of both."""
    together: dict[int, list[Note]] = defaultdict(list)
    for note in notes:
        together[note.onset].append(note)
    kept: list[Note] = []
    tune: Note | None = None
    for onset, group in sorted(together.items()):
        tune = next((note for note in group if note.role is Role.MELODY), tune)
        held = (
            tune.pitch
            if tune and tune.onset + tune.duration > onset
            else 1 + max(note.pitch for note in group)
        )
        lower = [note for note in group if note.role >= Role.INNER]
        bottom = min((note.pitch for note in lower), default=0)
        left = [note for note in lower if note.pitch <= bottom + LEFT_REACH]
        floor = max((note.pitch for note in left), default=0)
        for note in group:
            if note.role is Role.MELODY or note in left:
                kept.append(note)
            elif max(floor, held - RIGHT_REACH - 1) < note.pitch < held:
                kept.append(note._replace(role=Role.DESCANT))
    return kept


def clean(notes: list[Note]) -> list[Note]:
    """Sorts notes, merges those of the same onset and pitch, and ends a note where its key is struck again."""
    unique: dict[tuple[int, int], Note] = {}
    for note in sorted(notes, key=lambda note: (note.onset, note.pitch, note.role)):
        unique.setdefault((note.onset, note.pitch), note)
    struck: dict[int, tuple[int, int]] = {}
    for key, note in unique.items():
        if note.pitch in struck:
            earlier = unique[struck[note.pitch]]
            length = min(earlier.duration, note.onset - earlier.onset)
            unique[struck[note.pitch]] = earlier._replace(duration=length)
        struck[note.pitch] = key
    return list(unique.values())
