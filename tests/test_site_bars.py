"""The page of bars shows what the tokenizer says of composed music, and draws and plays it in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from docs.site.bars import bars_page, demo_piece, pieces, tokenizers
from docs.site.hooks import outside_addresses

from .browser import Browser
from .markdown import ROOT

PAGE = ROOT / "docs" / "bars.html"
HINT = "write it again with `python -m docs.site.write`"
LOUDNESS = """(async () => {
  const {notes} = shown(), end = Math.max(...notes.map(note => note[1]));
  const audio = new OfflineAudioContext(1, Math.ceil(44100 * (end + 1)), 44100);
  for (const note of notes) strike(audio, audio.destination, note, 0);
  const samples = (await audio.startRendering()).getChannelData(0), cut = Math.round(44100 * end);
  const rms = (part) => Math.sqrt(part.reduce((sum, x) => sum + x * x, 0) / part.length);
  const peak = samples.reduce((most, x) => Math.max(most, Math.abs(x)));
  return [rms(samples.subarray(0, cut)), rms(samples.subarray(cut + 22050)), peak];
})()"""


def test_the_page_is_up_to_date_and_complete_in_one_file() -> None:
    text = PAGE.read_text("utf-8")
    assert text == bars_page(), HINT
    assert outside_addresses(text) == []
    assert len(text) < 400_000


def test_the_codes_of_each_cell_are_its_pattern_and_its_tokens_are_those_of_the_piece() -> None:
    kinds = set()
    for number, shown in zip((3, 5), pieces()[:2], strict=True):
        title, piece = demo_piece(number)
        assert shown["title"] == title
        for bar in shown["bars"]:
            for name, layout in bar["layouts"].items():
                tokens = [(beat, token) for beat, found in enumerate(layout["tokens"]) for token in found]
                ids = np.array([token[0] for _, token in tokens])
                whole = tokenizers()[name].encode(piece).ids
                windows = np.lib.stride_tricks.sliding_window_view(whole, ids.size)
                assert (windows == ids).all(axis=1).any()
                for beat, pitch, pattern, _ in bar["cells"]:
                    parts = [t[5] for b, t in tokens if (b, t[3]) == (beat, pitch) and not t[6]]
                    assert "".join(parts) == pattern
                kinds |= {token[1] for _, token in tokens}
    assert kinds >= {"L1", "L2", "PITCH", "VELOCITY", "TEMPO", "BAR", "DURATION"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.open(PAGE)
        yield browser


def count(browser: Browser, selector: str) -> int:
    found: int = browser.run(f"document.querySelectorAll({selector!r}).length")
    return found


def test_it_draws_every_note_cell_code_and_token_of_each_bar(browser: Browser) -> None:
    for number, shown in enumerate(pieces()):
        browser.run(f"$('piece').value = {number}; $('piece').dispatchEvent(new Event('change'))")
        for bar in shown["bars"]:
            assert browser.run("$('bar').textContent") == f"bar {bar['bar']}"
            for name, layout in bar["layouts"].items():
                browser.run(f"document.querySelector('[name=layout][value={name}]').click()")
                tokens = [token for found in layout["tokens"] for token in found]
                assert count(browser, "#tokens button") == len(tokens)
                assert count(browser, "#cells .cell") == len(bar["cells"])
                assert count(browser, "#codes .code") == sum(
                    bool(token[5]) and not token[6] for token in tokens
                )
                assert count(browser, "#notes .cell") == len(bar["notes"])
            browser.run("$('after').click()")
        assert browser.run("$('after').disabled")


def test_pointing_at_a_token_marks_its_cell_and_says_what_it_means(browser: Browser) -> None:
    browser.run(
        "document.querySelector('#tokens .VELOCITY').dispatchEvent(new Event('pointerover', {bubbles: true}))"
    )
    assert "decoded" in browser.run("$('said').textContent")
    assert count(browser, "#cells .cell.on") == 1
    assert count(browser, "#tokens .token.on") >= 3
    assert count(browser, "#notes .cell.on") >= 1
    browser.run("$('panels').dispatchEvent(new Event('pointerleave'))")
    assert count(browser, ".on") == 0


def test_a_bar_sounds_while_its_notes_last_as_composed_and_from_its_tokens(browser: Browser) -> None:
    for notes in ("composed", "decoded"):
        browser.run(f"document.querySelector('[name=notes][value={notes}]').click()")
        sounding, after, peak = browser.run(LOUDNESS)
        assert sounding > 0.01
        assert after < sounding / 20
        assert peak < 2


def test_play_starts_the_sound_and_moves_the_lines_and_stops(browser: Browser, tmp_path: Path) -> None:
    browser.run("$('play').click()")
    moved = """new Promise(done => { const look = () => document.querySelector('#notes .head').style.visibility ===
        'visible' && context.state === 'running' ? done(true) : requestAnimationFrame(look); look(); })"""
    assert browser.run(moved)
    browser.run("$('play').click()")
    assert browser.run("playing === null && $('play').textContent.includes('Play')")
    browser.run("document.querySelector('#cells .cell').dispatchEvent(new Event('click', {bubbles: true}))")
    assert browser.run("playing !== null")
    assert browser.complaints() == []
    assert [address for address in browser.requests() if not address.startswith("file:")] == []
