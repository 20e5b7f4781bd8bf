"""The page of a run: complete in one file; in a browser it shows pictures, plays sound and needs no network."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pianolm.music.midi import read_midi
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece
from pianolm.report.audio import mp3_bytes, render
from pianolm.report.html import PagePiece, describe, save_page
from pianolm.report.piano_roll import draw_piano_roll
from tests.browser import Browser

RATE_HZ = 44_100
NASTY = 'Für <b>"Elise"</b> & $co ${x} \'.mid'


def music(seed: int, beats: int = 8) -> Piece:
    rng = np.random.default_rng(seed)
    onset = np.sort(rng.uniform(0, beats / 2 - 0.6, 3 * beats))
    return Piece.from_notes(
        make_notes(onset, onset + 0.4, rng.integers(40, 80, onset.size), rng.integers(20, 110, onset.size)),
        np.arange(beats + 1) * 0.5,
    )


def shown(name: str, seed: int, folder: Path, beats: int = 8, prompt: int = 0) -> PagePiece:
    piece = music(seed, beats)
    piece.to_midi(folder / "piece.mid")
    mp3 = mp3_bytes(render(piece, RATE_HZ), RATE_HZ)
    return PagePiece(name, piece, (folder / "piece.mid").read_bytes(), mp3, prompt, "after the prompt")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    pieces = [shown("piece_00", 0, folder, prompt=4), shown(NASTY, 1, folder), shown("long", 2, folder, 120)]
    path = folder / "index.html"
    save_page(path, NASTY, f"From {NASTY}", pieces, {"model": NASTY, "seed": "0"})
    return path


class Outline(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    VOID = frozenset({"meta", "img", "source", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.text.append(data.strip())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def outline(page: Path) -> Outline:
    parsed = Outline()
    parsed.feed(page.read_text("utf-8"))
    parsed.close()
    assert not parsed._open, "every tag is closed"
    return parsed


def test_everything_is_in_one_file(page: Path, outline: Outline) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"https?://", text)
    assert not re.search(r"url\(|@import|<link|<iframe|fetch\(|XMLHttpRequest", text)
    links = [
        value
        for _, attributes in outline.tags
        for name, value in attributes.items()
        if name in ("src", "srcset", "href", "poster", "action")
    ]
    assert links
    assert all(link is not None and link.startswith("data:") for link in links)


def test_each_piece_has_a_player_two_pictures_and_its_midi(outline: Outline, tmp_path: Path) -> None:
    assert len(outline.of("audio")) == len(outline.of("img")) == len(outline.of("source")) == 3
    assert all("controls" in player for player in outline.of("audio"))
    assert all(picture["alt"] for picture in outline.of("img"))
    assert all(player["aria-label"] for player in outline.of("audio"))
    downloads = outline.of("a")
    assert [link["download"] for link in downloads] == ["piece_00.mid", f"{NASTY}.mid", "long.mid"]
    for seed, link in enumerate(downloads):
        content = str(link["href"]).removeprefix("data:audio/midi;base64,")
        (tmp_path / "back.mid").write_bytes(base64.b64decode(content, validate=True))
        expected, found = music(seed, 120 if seed == 2 else 8).notes, read_midi(tmp_path / "back.mid").notes
        assert np.array_equal(np.sort(found["pitch"]), np.sort(expected["pitch"]))


def test_256_colours_hardly_change_a_picture(outline: Outline) -> None:
    content = str(outline.of("img")[0]["src"]).removeprefix("data:image/webp;base64,")
    found = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    assert len(found.getcolors(257) or range(257)) <= 256
    original = io.BytesIO()
    draw_piano_roll(music(0), prompt_end_beat=4)[0].savefig(original, format="png", dpi=130)
    difference = np.abs(np.asarray(found, int) - np.asarray(Image.open(original).convert("RGB"), int)).max(
        axis=2
    )
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.99) < 12


def test_names_are_escaped(outline: Outline) -> None:
    assert outline.text.count(NASTY) == 4, "title, heading, name of a piece, a setting"
    assert f"From {NASTY}" in outline.text
    assert not outline.of("b")
    assert len(outline.of("tr")) == 2


def test_a_piece_is_described_by_figures() -> None:
    piece = Piece.from_notes(make_notes([0.0, 1.0], [0.5, 1.5], [60, 61], [30, 90]), np.arange(131) * 0.5)
    assert describe(piece) == "2 notes · 130 beats · 1:05 · 120 BPM · velocity 30–90"
    uneven = Piece.from_notes(make_notes([], [], [], []), np.cumsum([0.0, 0.6, 0.6, 0.8, 0.8, 0.6, 0.6]))
    assert "90 BPM" in describe(uneven), "6 beats in 4 seconds"
    assert describe(Piece.from_notes(make_notes([], [], [], []), np.arange(3) * 0.5)) == (
        "0 notes · 2 beats · 0:01 · 120 BPM"
    )


def test_without_sound_there_is_no_player(tmp_path: Path) -> None:
    piece = music(0)
    save_page(tmp_path / "a.html", "t", "l", [PagePiece("piece_00", piece, b"MThd")], {})
    assert "<audio" not in (tmp_path / "a.html").read_text("utf-8")


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(page)
        yield opened


def test_in_a_browser_pictures_and_sound_load(browser: Browser) -> None:
    sizes = browser.run("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
    assert len(sizes) == 3
    assert all(width > 1000 and height > 300 for width, height in sizes)
    assert sizes[2][0] > 1.2 * sizes[0][0], "a long piece has a wide picture"
    seconds = browser.run(
        "Promise.all([...document.querySelectorAll('audio')].map(a => new Promise((done, fail) => {"
        "  const tell = () => done(a.duration);"
        "  a.readyState ? tell() : (a.onloadedmetadata = tell, a.onerror = () => fail(a.error.message)); })))"
    )
    assert seconds == pytest.approx([5.5, 5.5, 61.5], abs=0.1)


def test_in_a_browser_a_piece_plays_and_the_line_follows(browser: Browser) -> None:
    browser.run("document.querySelectorAll('audio')[1].play()")
    browser.run("document.querySelectorAll('audio')[0].play()")
    at = browser.run(
        "new Promise(done => { const a = document.querySelector('audio');"
        "  const look = () => a.currentTime > 0.3 ? done([a.currentTime,"
        "    document.querySelector('.head').getBoundingClientRect().x,"
        "    document.querySelector('.roll').getBoundingClientRect().x,"
        "    document.querySelector('.roll').getBoundingClientRect().width]) : setTimeout(look, 20); look(); })"
    )
    second, head, roll, width = at
    left, right = browser.run("(d => [+d.left, +d.right])(document.querySelector('.roll').dataset)")
    assert head == pytest.approx(roll + width * (left + (right - left) * second / 4.0), abs=0.1 * width)
    assert head > roll + left * width
    assert browser.run("document.querySelectorAll('audio')[1].paused"), "one piece at a time"


def test_in_a_browser_a_click_on_the_picture_plays_from_there(browser: Browser) -> None:
    sought = browser.run(
        "new Promise(done => { const roll = document.querySelector('.roll'), box = roll.getBoundingClientRect();"
        "  const audio = document.querySelector('audio'); audio.pause();"
        "  const d = roll.dataset, at = +d.left + 0.5 * (d.right - d.left);"
        "  audio.addEventListener('seeked', () => done(audio.currentTime), {once: true});"
        "  roll.dispatchEvent(new MouseEvent('click', {clientX: box.x + at * box.width, bubbles: true})); })"
    )
    assert sought == pytest.approx(2.0, abs=0.1)


def test_in_a_browser_nothing_is_requested_and_the_console_is_empty(browser: Browser, page: Path) -> None:
    browser.run("new Promise(done => setTimeout(done, 200))")
    assert set(browser.requests()) <= {page.as_uri()}
    assert browser.complaints() == []


def test_in_a_browser_the_page_is_light_or_dark(browser: Browser, tmp_path: Path) -> None:
    from matplotlib.image import imread

    means = []
    for dark in (False, True):
        browser.screenshot(tmp_path / "page.png", dark=dark)
        means.append(float(imread(tmp_path / "page.png")[..., :3].mean()))
    assert means[0] > 0.8
    assert means[1] < 0.25
    assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "only pictures scroll sideways"
