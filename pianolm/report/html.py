"""A web page for a run: its pieces as pictures, sound and MIDI, and the settings.

The page holds its pictures, sound and MIDI, so it needs no network and no other file. Where that would make it larger
than `MAX_BYTES`, its sound lies in files beside it. On a dark page the browser inverts the pictures.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image

from pianolm.music.piece import Piece
from pianolm.report.piano_roll import RollImage, piano_roll_image, printable

MAX_BYTES = 5_000_000
"""Size up to which a page holds its sound."""

_TEMPLATE = Path(__file__).with_name("page.html")
_FULL_WIDTH_IN = 14.0
"""Width of a picture that fills the page; a wider one scrolls."""

_SECTION = Template("""<section aria-label="$name">
<header><h2>$name</h2><p class="facts">$facts</p></header>
<div class="scroll" tabindex="0" role="group" aria-label="Piano roll of $spoken; a click plays from there">
<div class="roll" style="--wide: $wide; --left: $left%; --top: $top%; --bottom: $bottom%"
  data-left="$from" data-right="$to" data-seconds="$seconds">
<img src="$picture" alt="$alt">
<div class="head" aria-hidden="true"></div>
</div>
</div>
<div class="play">$player</div>
</section>""")
_BUTTON = Template("""<button type="button" data-start="$second" aria-label="Play the $part of $name, from $time">
Play the $part ($time)</button>""")
_BESIDE = "The sound is in files beside this page (.mp3); keep them in its folder."


@dataclass(frozen=True)
class PagePiece:
    """A piece of the page.

    Attributes:
        name: Heading, and name of its files.
        piece: The music, at least one beat long.
        midi: Content of its MIDI file.
        mp3: Content of its MP3 file; empty for no player.
        prompt_end_beat: Beats at its beginning that are the prompt's.
        remark: Text before its figures.
        wav: Name of a WAV file beside the page to link to; empty for no link.
        picture: Its piano roll without a title; None to have it drawn.
        gap: First beat, and the beat after the last, that is shaded as a gap; None for none.
    """

    name: str
    piece: Piece
    midi: bytes
    mp3: bytes = b""
    prompt_end_beat: int = 0
    remark: str = ""
    wav: str = ""
    picture: RollImage | None = None
    gap: tuple[int, int] | None = None


class _Roll(NamedTuple):
    """The piano roll of a piece.

    Attributes:
        uri: The picture as a data URI.
        box: Left, top, right and bottom of its axes as fractions of the picture.
        width_in: Width in inches.
    """

    uri: str
    box: tuple[float, float, float, float]
    width_in: float


def save_page(
    path: str | Path,
    title: str,
    lead: str,
    pieces: Iterable[PagePiece],
    settings: Mapping[str, str],
    sections: Sequence[str] = (),
) -> None:
    """Writes the page of a run, and `NAME.mp3` of each piece beside it where it would be larger than `MAX_BYTES`.

    Args:
        path: HTML file to write.
        title: Heading.
        lead: The sentence below it.
        pieces: In the order of the page; each is drawn before the next one is taken.
        settings: Rows of the table of settings: names and values.
        sections: HTML of the parts of the page before the pieces: see `pianolm.report.page_sections`.
    """
    path = Path(path)
    # a picture is a hundred times as large as what the page holds of it
    drawn = ((replace(shown, picture=None), _roll(shown)) for shown in pieces)
    pieces, rolls = zip(*drawn, strict=True)
    sounds = [data_uri("audio/mpeg", shown.mp3) if shown.mp3 else "" for shown in pieces]
    page = _page(title, lead, [*sections, *map(_section, pieces, rolls, sounds)], settings)
    if len(page) > MAX_BYTES and any(sounds):
        sounds = [_save_sound(path.parent, shown) for shown in pieces]
        page = _page(title, f"{lead} {_BESIDE}", [*sections, *map(_section, pieces, rolls, sounds)], settings)
    path.write_bytes(page)


def _page(title: str, lead: str, sections: Sequence[str], settings: Mapping[str, str]) -> bytes:
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in settings.items()
    ]
    page = Template(_TEMPLATE.read_text("utf-8")).substitute(
        title=escape(title), lead=escape(lead), pieces="\n".join(sections), settings="\n".join(rows)
    )
    return printable(page).encode()


def _save_sound(folder: Path, shown: PagePiece) -> str:
    """Writes the MP3 file of a piece; returns its address relative to the page, empty for a piece without sound."""
    if not shown.mp3:
        return ""
    name = f"{shown.name}.mp3".replace("/", "_")
    (folder / name).write_bytes(shown.mp3)
    return _address(name)


def _address(name: str) -> str:
    """The relative address of a file beside the page."""
    return quote(os.fsencode(name), safe="")


def describe(piece: Piece) -> str:
    """The figures of a piece: notes, beats, length, tempo, velocities."""
    seconds = _seconds(piece, piece.n_beats)
    velocity = piece.notes["velocity"]
    span = f" · velocity {velocity.min()}–{velocity.max()}" if velocity.size else ""
    tempo_bpm = 60 * piece.n_beats / seconds  # the mean, as single beats are rounded to tempo tokens
    return f"{piece.notes.size} notes · {piece.n_beats} beats · {_clock(seconds)} · {tempo_bpm:.0f} BPM{span}"


def _seconds(piece: Piece, beats: int) -> float:
    """Length of the first beats of a piece."""
    return float(piece.beats_sec[min(beats, piece.n_beats)] - piece.beats_sec[0])


def _clock(seconds: float) -> str:
    """Seconds as a player shows them."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _spoken(shown: PagePiece) -> str:
    """A piece in words, for screen readers: its name, length, and where the prompt ends."""
    words = [shown.name, shown.remark, _clock(_seconds(shown.piece, shown.piece.n_beats))]
    if shown.prompt_end_beat > 0:
        end = _clock(_seconds(shown.piece, shown.prompt_end_beat))
        words.append(
            f"prompt until {end}, new from there" if _has_new_part(shown) else "all of it the prompt"
        )
    if shown.gap is not None:
        begin, end = (_clock(_seconds(shown.piece, beat)) for beat in shown.gap)
        words.append(f"gap from {begin} to {end}")
    return ", ".join(filter(None, words))


def _has_new_part(shown: PagePiece) -> bool:
    """Whether a prompt is followed by something new, or there is a gap."""
    return 0 < shown.prompt_end_beat < shown.piece.n_beats or shown.gap is not None


def _roll(shown: PagePiece) -> _Roll:
    """The picture of a piece as the page holds it."""
    drawn = shown.picture or piano_roll_image(
        shown.piece, prompt_end_beat=shown.prompt_end_beat, gap=shown.gap
    )
    return _Roll(picture_uri(drawn.image), drawn.box, drawn.width_in)


def _section(shown: PagePiece, roll: _Roll, sound: str) -> str:
    """The part of the page with one piece; `sound` is the address of its sound, empty for no player."""
    left, top, right, bottom = roll.box
    facts = describe(shown.piece)
    spoken = _spoken(shown)
    return _SECTION.substitute(
        name=escape(shown.name),
        spoken=escape(spoken),
        facts=escape(f"{shown.remark} · {facts}" if shown.remark else facts),
        alt=escape(f"Piano roll of {spoken}: {facts}"),
        wide=round(roll.width_in / _FULL_WIDTH_IN, 4),
        left=round(100 * left, 3),
        top=round(100 * top, 3),
        bottom=round(100 * bottom, 3),
        **{"from": round(left, 5), "to": round(right, 5)},
        seconds=round(_seconds(shown.piece, shown.piece.n_beats), 4),
        picture=roll.uri,
        player=_player(shown, sound),
    )


def _player(shown: PagePiece, sound: str) -> str:
    """The button that plays the new part, the player, and links to the files of a piece."""
    parts = []
    if sound and _has_new_part(shown):
        second = _seconds(shown.piece, shown.prompt_end_beat if shown.gap is None else shown.gap[0])
        part = "new part" if shown.gap is None else "gap"
        parts.append(
            _BUTTON.substitute(
                second=round(second, 4), time=_clock(second), name=escape(shown.name), part=part
            )
        )
    if sound:
        preload = "auto" if sound.startswith("data:") else "metadata"
        label = escape(f"Sound of {_spoken(shown)}")
        parts.append(f'<audio controls preload="{preload}" aria-label="{label}" src="{sound}"></audio>')
    midi = escape(f"{shown.name}.mid")
    parts.append(f'<a href="{data_uri("audio/midi", shown.midi)}" download="{midi}">{midi}</a>')
    if shown.wav:
        wav = escape(shown.wav)
        parts.append(f'<a href="{_address(shown.wav)}" download="{wav}">{wav}</a>')
    return "\n".join(parts)


def picture_uri(image: Image.Image) -> str:
    """A picture as a data URI: lossless WebP with the least effort that still finds repeated areas."""
    webp = io.BytesIO()
    image.save(webp, "webp", lossless=True, quality=0, method=4)
    return data_uri("image/webp", webp.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Content of a MIME type as an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
