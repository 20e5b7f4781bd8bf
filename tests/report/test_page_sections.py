"""Tables and pictures of a page."""

from __future__ import annotations

from pianolm.report.page_sections import picture_section, table_section
from pianolm.report.piano_roll import figure


def test_numbers_stand_on_the_right_and_text_is_escaped() -> None:
    section = table_section("A & b", ("name", "count"), [("<x>", 12345), ("y", 1.5)], "two > one")
    assert '<h2>A &amp; b</h2><p class="facts">two &gt; one</p>' in section
    assert '<th scope="col">name</th><th scope="col" class="number">count</th>' in section
    assert '<tr><td>&lt;x&gt;</td><td class="number">12,345</td></tr>' in section
    assert '<td class="number">1.5</td>' in section


def test_a_table_without_rows_is_its_note() -> None:
    section = table_section("Rejects", ("path",), [], "none")
    assert "<table" not in section
    assert '<p class="facts">none</p>' in section


def test_a_picture_says_what_it_shows() -> None:
    section = picture_section("Tempo", figure(1, 1), 'a "curve"')
    assert 'src="data:image/webp;base64,' in section
    assert 'alt="a &quot;curve&quot;"' in section
