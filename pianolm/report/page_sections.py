"""Parts of a page before its pieces: tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from string import Template

from matplotlib.figure import Figure

from pianolm.report.html import picture_uri
from pianolm.report.piano_roll import figure_image

_SECTION = Template("""<section aria-label="$name">
<header><h2>$name</h2><p class="facts">$note</p></header>
$content
</section>""")
_SCROLLED = Template("""<div class="scroll" tabindex="0" role="group" aria-label="$name">
$content
</div>""")
_PICTURE = Template("""<img class="picture" src="$picture" alt="$alt">""")


def table_section(name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """A table.

    Args:
        name: Heading.
        columns: Names of the columns.
        rows: Numbers get separators of thousands and stand on the right.
        note: Sentence beside the heading.
    """
    numbers = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))
    ]
    kinds = [' class="number"' if number else "" for number in numbers]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(columns, kinds, strict=True)
    )
    lines = [
        "<tr>"
        + "".join(f"<td{kind}>{_cell(value)}</td>" for value, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    ]
    content = (
        f'<table class="rows"><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(lines)}\n</tbody></table>'
    )
    return _section(name, note, content if rows else "")


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else escape(str(value))


def picture_section(name: str, drawn: Figure, alt: str, note: str = "") -> str:
    """A picture as wide as the page.

    Args:
        name: Heading.
        drawn: The picture.
        alt: What it shows, for screen readers.
        note: Sentence beside the heading.
    """
    picture = picture_uri(figure_image(drawn))
    return _section(name, note, _PICTURE.substitute(picture=picture, alt=escape(alt)))


def _section(name: str, note: str, content: str) -> str:
    name = escape(name)
    scrolled = _SCROLLED.substitute(name=name, content=content) if content else ""
    return _SECTION.substitute(name=name, note=escape(note), content=scrolled)
