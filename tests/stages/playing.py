"""Runs of stage `generate` with small models, and what their pages say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pianolm.run import execute
from tests.report.test_html import Outline
from tests.tiny import tiny

PROMPT_BEATS = 16
"""Of the fixture `midi_file`."""
HOT = 20  # temperature at which an untrained model seldom repeats itself and seldom ends a piece
MIDI_ONLY = ("generate.audio=false", "generate.page=false", "generate.pieces=1")
MidiFile = Callable[..., Path]


def generate(root: Path, model: Path, *overrides: str) -> tuple[dict[str, Any], Path]:
    run_dir = root / "run"
    settings = ("stage=generate", f"upstream.model={model}", "generate.soundfont=null", *overrides)
    return execute(tiny(root, *settings), run_dir), run_dir


def outline(path: Path) -> Outline:
    parsed = Outline()
    parsed.feed(path.read_text("utf-8"))
    return parsed


def beats_of(run_dir: Path) -> list[int]:
    """Beats of each piece as the page shows them; silent beats at the end are not in the MIDI file."""
    facts = " ".join(outline(run_dir / "index.html").text)
    return [int(number) for number in re.findall(r"notes · (\d+) beats", facts)]


def headings(run_dir: Path) -> list[str]:
    """Names of the pieces on a page, in order."""
    return [str(link["download"]).removesuffix(".mid") for link in outline(run_dir / "index.html").of("a")]
