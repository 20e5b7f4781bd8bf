"""The page of a run: complete in one file; in a browser it shows pictures, plays sound and needs no network."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from pianolm.music.midi import read_midi
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece
from pianolm.report import html
from pianolm.report.audio import mp3_bytes, render
from pianolm.report.html import PagePiece, describe, picture_uri, save_page
from pianolm.report.piano_roll import draw_piano_roll, piano_roll_image
from tests.browser import Browser

RATE_HZ = 44_100
NASTY = 'Für <b>"Elise"</b> & $co ${x} \'.mid'
SOUND_SECONDS = (
    "Promise.all([...document.querySelectorAll('audio')].map(a => new Promise((done, fail) => {"
    "  const tell = () => done(a.duration);"
    "  a.readyState ? tell() : (a.onloadedmetadata = tell, a.onerror = () => fail(a.error.message)); })))"
)


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
    midi = (folder / "piece.mid").read_bytes()
    return PagePiece(name, piece, midi, mp3, prompt, "after the prompt", wav=f"{name}.wav")


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


def parse(page: Path) -> Outline:
    parsed = Outline()
    parsed.feed(page.read_text("utf-8"))
    parsed.close()
    assert not parsed._open, "every tag is closed"
    return parsed


@pytest.fixture(scope="module")
def outline(page: Path) -> Outline:
    return parse(page)


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
    outside = [link for link in links if link is not None and not link.startswith("data:")]
    assert len(links) > 9
    assert outside == [link["href"] for link in outline.of("a") if str(link["download"]).endswith(".wav")]


def test_each_piece_has_a_player_two_pictures_and_its_midi(outline: Outline, tmp_path: Path) -> None:
    assert len(outline.of("audio")) == len(outline.of("img")) == 3
    assert all("controls" in player for player in outline.of("audio"))
    assert all(picture["alt"] for picture in outline.of("img"))
    assert all(player["aria-label"] for player in outline.of("audio"))
    downloads = [str(link["download"]) for link in outline.of("a")]
    names = ("piece_00", NASTY, "long")
    assert downloads == [f"{name}.{ending}" for name in names for ending in ("mid", "wav")]
    for seed, link in enumerate(outline.of("a")[::2]):
        content = str(link["href"]).removeprefix("data:audio/midi;base64,")
        (tmp_path / "back.mid").write_bytes(base64.b64decode(content, validate=True))
        expected, found = music(seed, 120 if seed == 2 else 8).notes, read_midi(tmp_path / "back.mid").notes
        assert np.array_equal(np.sort(found["pitch"]), np.sort(expected["pitch"]))


def test_pictures_are_those_that_matplotlib_draws(outline: Outline) -> None:
    content = str(outline.of("img")[0]["src"]).removeprefix("data:image/webp;base64,")
    found = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    original = io.BytesIO()
    draw_piano_roll(music(0), prompt_end_beat=4)[0].savefig(original, format="png", dpi=130)
    assert np.array_equal(np.asarray(found), np.asarray(Image.open(original).convert("RGB")))


def test_a_picture_that_is_given_is_not_drawn_again(tmp_path: Path) -> None:
    given = piano_roll_image(music(0), "a title")
    below = given.without_title()
    pieces = [PagePiece("a", music(0), b"MThd", picture=below), PagePiece("b", music(0), b"MThd")]
    save_page(tmp_path / "a.html", "t", "l", pieces, {})
    first, second = (str(picture["src"]) for picture in parse(tmp_path / "a.html").of("img"))
    assert first == picture_uri(below.image)
    drawn = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in (first, second)]
    assert drawn[0].size == drawn[1].size, "without the title"
    assert below.box == pytest.approx(piano_roll_image(music(0)).box, abs=1e-3)
    rows = np.abs(np.asarray(drawn[0], int) - np.asarray(drawn[1], int)).max(axis=(1, 2))
    assert (rows > 0).mean() < 0.02, "the same picture"


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


def test_a_button_plays_from_the_end_of_the_prompt(outline: Outline, tmp_path: Path) -> None:
    (button,) = outline.of("button")
    assert float(str(button["data-start"])) == 2.0
    assert button["aria-label"] == "Play the new part of piece_00, from 0:02"
    assert "Play the new part (0:02)" in outline.text
    uneven = Piece.from_notes(make_notes([3.0], [3.5], [60], [70]), [1.0, 1.7, 2.2, 3.1, 3.9])
    for prompt_beats, expected in ((0, []), (3, [2.1]), (4, [])):
        sounding = PagePiece("a", uneven, b"MThd", b"mp3", prompt_beats)
        save_page(tmp_path / "a.html", "t", "l", [sounding], {})
        buttons = parse(tmp_path / "a.html").of("button")
        assert [float(str(one["data-start"])) for one in buttons] == expected


def test_players_and_pictures_are_named_for_screen_readers(outline: Outline) -> None:
    after = "after the prompt"
    spoken = [
        f"piece_00, {after}, 0:04, prompt until 0:02, new from there",
        f"{NASTY}, {after}, 0:04",
        f"long, {after}, 1:00",
    ]
    assert [player["aria-label"] for player in outline.of("audio")] == [f"Sound of {one}" for one in spoken]
    alts = [str(picture["alt"]) for picture in outline.of("img")]
    assert all(alt.startswith(f"Piano roll of {one}: ") for alt, one in zip(alts, spoken, strict=True))
    assert "24 notes" in alts[0]


FILE_NAMES = (NASTY.replace("/", "-"), "夜想曲 № 1", "50% #1?", "a:b", os.fsdecode(b"f\xfcr"), "x" * 244)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time that pictures take."""
    box = (0.05, 0.1, 0.95, 0.9)
    monkeypatch.setattr(html, "_roll", lambda _: html._Roll("data:,roll", box, 14.0))


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_large_page_keeps_its_sound_in_files_beside_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounding = PagePiece(name, music(0), b"MThd", b"sound" * 100, wav=f"{name}.wav")
    silent = PagePiece("silent", music(1), b"MThd")
    save_page(tmp_path / "a.html", name, "Lead.", [sounding, silent], {"model": name})
    small = parse(tmp_path / "a.html")
    assert str(small.of("audio")[0]["src"]).startswith("data:audio/mpeg;base64,")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    size = (tmp_path / "a.html").stat().st_size
    for limit in (size, size - 1):
        monkeypatch.setattr(html, "MAX_BYTES", limit)
        save_page(tmp_path / "a.html", name, "Lead.", [sounding, silent], {"model": name})
        assert (tmp_path / f"{name}.mp3").is_file() == (limit < size)
    (player,) = parse(tmp_path / "a.html").of("audio")
    assert os.fsdecode(unquote_to_bytes(str(player["src"]))) == f"{name}.mp3"
    assert (tmp_path / f"{name}.mp3").read_bytes() == b"sound" * 100
    assert len(list(tmp_path.iterdir())) == 2, "no file for the piece without sound"
    page = parse(tmp_path / "a.html")
    assert "Lead. The sound is in files beside this page (.mp3); keep them in its folder." in page.text
    links = [str(link["href"]) for link in page.of("a") if not str(link["href"]).startswith("data:")]
    assert [os.fsdecode(unquote_to_bytes(link)) for link in links] == [f"{name}.wav"]
    assert all(re.fullmatch(r"[\w.~%-]+", link, re.ASCII) for link in links)


@pytest.mark.usefixtures("no_pictures")
def test_a_page_without_sound_has_no_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MAX_BYTES", 1)
    save_page(tmp_path / "a.html", "t", "Lead.", [PagePiece("a", music(0), b"MThd")], {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    assert "Lead." in parse(tmp_path / "a.html").text


@pytest.mark.usefixtures("no_pictures")
def test_without_sound_there_is_no_player(tmp_path: Path) -> None:
    piece = music(0)
    save_page(tmp_path / "a.html", "t", "l", [PagePiece("piece_00", piece, b"MThd")], {})
    found = parse(tmp_path / "a.html")
    assert not found.of("audio")
    assert not found.of("button")


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
    seconds = browser.run(SOUND_SECONDS)
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


def test_in_a_browser_the_button_plays_the_new_part(browser: Browser) -> None:
    second, paused = browser.run(
        "new Promise(done => { const audio = document.querySelector('audio'); audio.currentTime = 0;"
        "  audio.addEventListener('timeupdate', function look() { if (audio.currentTime > 2.1) {"
        "    audio.removeEventListener('timeupdate', look); done([audio.currentTime, audio.paused]); } });"
        "  document.querySelector('button').click(); })"
    )
    assert 2.1 < second < 3.5
    assert not paused


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_in_a_browser_labels_are_readable_and_only_pictures_scroll(
    browser: Browser, width: int, tmp_path: Path
) -> None:
    browser.screenshot(tmp_path / "page.png", width)
    shown = browser.run("[...document.images].map(i => i.getBoundingClientRect().width / i.naturalWidth)")
    label_px = 9 / 72 * 130  # 9 points in a picture of 130 dots an inch
    assert all(label_px * scale >= 9.9 for scale in shown)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_in_a_browser_nothing_is_requested_and_the_console_is_empty(browser: Browser, page: Path) -> None:
    browser.run("new Promise(done => setTimeout(done, 200))")
    assert set(browser.requests()) <= {page.as_uri()}
    assert browser.complaints() == []


@pytest.mark.usefixtures("no_pictures")
def test_in_a_browser_sound_beside_the_page_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MAX_BYTES", 1)
    names = FILE_NAMES[:-1]
    pieces = [replace(shown("piece", 0, tmp_path), name=name) for name in names]
    save_page(tmp_path / "a.html", "t", "l", pieces, {})
    with Browser(tmp_path / "profile") as browser:
        browser.open(tmp_path / "a.html")
        seconds = browser.run(SOUND_SECONDS)
        assert browser.complaints() == []
    assert seconds == pytest.approx([5.5] * len(names), abs=0.1)


def test_in_a_browser_the_page_is_light_or_dark(browser: Browser, tmp_path: Path) -> None:
    from matplotlib.image import imread

    means = []
    for dark in (False, True):
        browser.screenshot(tmp_path / "page.png", dark=dark)
        means.append(float(imread(tmp_path / "page.png")[..., :3].mean()))
    assert means[0] > 0.8
    assert means[1] < 0.25
    assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "only pictures scroll sideways"
