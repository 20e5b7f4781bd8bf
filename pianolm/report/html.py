"""A web page for a run: its pieces as pictures, sound and MIDI, and the settings.

The page is a single file that holds its pictures, sound and MIDI, so it needs no network.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from matplotlib.figure import Figure
from PIL import Image

from pianolm.music.piece import Piece
from pianolm.report.piano_roll import draw_piano_roll

_TEMPLATE = Path(__file__).with_name("page.html")
_DPI = 130
_FULL_WIDTH_IN = 14.0
"""Width of a picture that fills the page; a wider one scrolls."""

_SECTION = Template("""<section aria-label="$name">
<header><h2>$name</h2><p class="facts">$facts</p></header>
<div class="scroll" tabindex="0" role="group" aria-label="Piano roll of $name; a click plays from there">
<div class="roll" style="width: $width%; --left: $left%; --top: $top%; --bottom: $bottom%"
  data-left="$from" data-right="$to" data-seconds="$seconds">
<picture><source media="(prefers-color-scheme: dark)" srcset="$dark"><img src="$light" alt="$alt"></picture>
<div class="head" aria-hidden="true"></div>
</div>
</div>
<div class="play">$player<a href="$midi" download="$name.mid">$name.mid</a></div>
</section>""")


@dataclass(frozen=True)
class PagePiece:
    """A piece of the page.

    Attributes:
        name: Heading, and name of the MIDI file.
        piece: The music, at least one beat long.
        midi: Content of its MIDI file.
        mp3: Content of its MP3 file; empty for no player.
        prompt_end_beat: Beats at its beginning that are the prompt's.
        remark: Text before its figures.
    """

    name: str
    piece: Piece
    midi: bytes
    mp3: bytes = b""
    prompt_end_beat: int = 0
    remark: str = ""


def save_page(
    path: str | Path, title: str, lead: str, pieces: Sequence[PagePiece], settings: Mapping[str, str]
) -> None:
    """Writes the page of a run.

    Args:
        path: HTML file to write.
        title: Heading.
        lead: The sentence below it.
        pieces: In the order of the page.
        settings: Rows of the table of settings: names and values.
    """
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in settings.items()
    ]
    page = Template(_TEMPLATE.read_text("utf-8")).substitute(
        title=escape(title),
        lead=escape(lead),
        pieces="\n".join(map(_section, pieces)),
        settings="\n".join(rows),
    )
    Path(path).write_text(page, "utf-8")


def describe(piece: Piece) -> str:
    """The figures of a piece: notes, beats, length, tempo, velocities."""
    seconds = piece.beats_sec[-1] - piece.beats_sec[0]
    velocity = piece.notes["velocity"]
    span = f" · velocity {velocity.min()}–{velocity.max()}" if velocity.size else ""
    tempo_bpm = 60 * piece.n_beats / seconds  # the mean, as single beats are rounded to tempo tokens
    length = f"{int(seconds // 60)}:{int(seconds % 60):02d}"
    return f"{piece.notes.size} notes · {piece.n_beats} beats · {length} · {tempo_bpm:.0f} BPM{span}"


def _section(shown: PagePiece) -> str:
    """The part of the page with one piece."""
    pictures, box, width_in = {}, (0.0, 0.0, 1.0, 1.0), _FULL_WIDTH_IN
    for dark in (False, True):
        drawn, box = draw_piano_roll(shown.piece, prompt_end_beat=shown.prompt_end_beat, dark=dark)
        width_in = drawn.get_figwidth()
        pictures[dark] = _data_uri("image/webp", _webp(drawn))
    left, top, right, bottom = box
    facts = describe(shown.piece)
    label = escape(f"Sound of {shown.name}")
    sound = _data_uri("audio/mpeg", shown.mp3)
    player = f'<audio controls preload="auto" aria-label="{label}" src="{sound}"></audio>'
    return _SECTION.substitute(
        name=escape(shown.name),
        facts=escape(f"{shown.remark} · {facts}" if shown.remark else facts),
        alt=escape(f"Piano roll of {shown.name}: {facts}"),
        width=round(100 * width_in / _FULL_WIDTH_IN, 2),
        left=round(100 * left, 3),
        top=round(100 * top, 3),
        bottom=round(100 * bottom, 3),
        **{"from": round(left, 5), "to": round(right, 5)},
        seconds=round(float(shown.piece.beats_sec[-1] - shown.piece.beats_sec[0]), 4),
        light=pictures[False],
        dark=pictures[True],
        player=player if shown.mp3 else "",
        midi=_data_uri("audio/midi", shown.midi),
    )


def _webp(drawn: Figure) -> bytes:
    """A figure as lossless WebP with 256 colours: a fifth of the size of a PNG, two thirds of that with all colours."""
    png, webp = io.BytesIO(), io.BytesIO()
    drawn.savefig(png, format="png", dpi=_DPI, pil_kwargs={"compress_level": 1})
    reduced = Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.convert("RGB").save(webp, "webp", lossless=True, quality=100)
    return webp.getvalue()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
