"""What `evaluate=samples` writes: a table, pictures, a row a piece and side, MIDI, and a page with some pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.csv_file import write_csv
from pianolm.data.cell_store import PieceRow
from pianolm.evaluation.distributions import FEATURES
from pianolm.evaluation.music_statistics import STATISTICS, Key, key_name
from pianolm.evaluation.resampling import Estimate
from pianolm.evaluation.selection import evenly_spaced
from pianolm.music.piece import Piece
from pianolm.report.distributions import Histograms, draw_histograms
from pianolm.report.html import PagePiece, save_page
from pianolm.report.side_by_side import draw_side_by_side

COPIES, COPIED_FROM = "longest_copy_notes", "copied_from"
TABLE, PIECES, PAGE = "samples.md", "pieces.csv", "index.html"
DISTRIBUTIONS, ROLLS, MIDI = "distributions.png", "rolls.png", "midi"
MODEL, HUMAN = "model", "human"
PAIRS_SHOWN = 5
"""Pairs in the picture and on the page, evenly spaced; the MIDI files hold all."""
_HEADING = (
    "Continuations beside the human rest",
    "The first {beats} beats of each piece, shaded, and how the model and the human go on",
)
_WORDS = {**STATISTICS, COPIES: "longest run of notes copied from the training set"}
_DPI = 90


@dataclass(frozen=True, eq=False)
class Side:
    """A piece that goes on after its prompt.

    Attributes:
        piece: Prompt and new beats.
        beats: Number of new beats.
        statistics: By name; NaN where there is nothing to tell it from.
        counts: Distributions by the names in `FEATURES`, [K] each.
    """

    piece: Piece
    beats: int
    statistics: Mapping[str, float]
    counts: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two ways in which one prompt goes on.

    Attributes:
        row: Row of the piece in the cell store.
        key: Key of the prompt.
        bar_beats: Length of a bar.
        model: The model's.
        human: The human rest.
    """

    row: PieceRow
    key: Key
    bar_beats: int
    model: Side
    human: Side

    @property
    def sides(self) -> dict[str, Side]:
        """Both, by name."""
        return {MODEL: self.model, HUMAN: self.human}


@dataclass(frozen=True)
class Comparison:
    """A line of the table.

    Attributes:
        name: Metric key.
        model: The model's figure; for a distance, that between the model and the human rests.
        human: The human figure; for a distance, that between two halves of the human rests.
    """

    name: str
    model: Estimate | None
    human: Estimate | None

    @property
    def is_distance(self) -> bool:
        """Whether it is a distance of distributions."""
        return self.name.startswith("js_")

    def named(self) -> dict[str, Estimate]:
        """The figures that exist by metric key."""
        human = f"{self.name}_human" if self.is_distance else f"human_{self.name}"
        both = {self.name: self.model, human: self.human}
        return {name: estimate for name, estimate in both.items() if estimate is not None}


def write(
    run_dir: Path,
    cfg: Mapping[str, Any],
    pairs: Sequence[Pair],
    lines: Sequence[Comparison],
    prompt_beats: int,
    heading: tuple[str, str] = _HEADING,
) -> None:
    """Prints the table and writes all files.

    Args:
        run_dir: Directory of the run.
        cfg: Its configuration, of which `generate.audio`, `generate.soundfont` and `generate.page` are read.
        pairs: The pieces.
        lines: Of the table.
        prompt_beats: Length of the prompts.
        heading: Title of the page, and how the sentence below it begins.
    """
    text = table(lines)
    print("\n".join(text), flush=True)
    pictures = f"![distributions]({DISTRIBUTIONS})\n\n![piano rolls]({ROLLS})\n"
    (run_dir / TABLE).write_text("\n".join([*text, "", pictures]), "utf-8")
    files = _write_midi(run_dir, pairs)
    _write_pieces(run_dir / PIECES, pairs, files)
    draw_histograms(_histograms(pairs, lines)).savefig(run_dir / DISTRIBUTIONS, dpi=_DPI)
    shown = evenly_spaced(list(range(len(pairs))), PAIRS_SHOWN)
    rolls = {
        f"{pairs[index].row.id}, {key_name(pairs[index].key)}": {
            name: side.piece for name, side in pairs[index].sides.items()
        }
        for index in shown
    }
    bars = [pairs[index].bar_beats for index in shown]
    draw_side_by_side(rolls, prompt_beats, bars).savefig(run_dir / ROLLS, dpi=_DPI)
    if cfg["generate"]["page"]:
        _write_page(
            run_dir, cfg, {index: pairs[index] for index in shown}, files, lines, prompt_beats, heading
        )


def table(lines: Sequence[Comparison]) -> list[str]:
    """Markdown: the statistics of both sides, then the distances of their distributions."""
    rows = [["", "model", "95 %", "human", "95 %"], ["---"] * 5]
    rows += [_cells(_WORDS[line.name], line) for line in lines if not line.is_distance]
    rows += [
        [],
        ["Jensen–Shannon distance", "model to human", "95 %", "halves of the human", "95 %"],
        ["---"] * 5,
    ]
    rows += [
        _cells(FEATURES[line.name.removeprefix("js_")].label, line) for line in lines if line.is_distance
    ]
    return [f"| {' | '.join(row)} |" if row else "" for row in rows]


def _cells(words: str, line: Comparison) -> list[str]:
    digits = 2 if line.is_distance or line.name == "bar_likeness" else 1
    cells = [words]
    for estimate in (line.model, line.human):
        if estimate is None:
            cells += ["–", "–"]
        else:
            value, low, high = (f"{figure:.{digits}f}" for figure in estimate)
            cells += [value, f"{low} to {high}"]
    return cells


def _write_midi(run_dir: Path, pairs: Sequence[Pair]) -> list[dict[str, str]]:
    """Writes the MIDI files of all pairs; returns their paths in the run directory by side."""
    (run_dir / MIDI).mkdir(exist_ok=True)
    stems = [Path(pair.row.path).stem for pair in pairs]
    unique = len(set(stems)) == len(stems)
    files = []
    for number, (stem, pair) in enumerate(zip(stems, pairs, strict=True)):
        name = stem if unique else f"{number:03d}_{stem}"
        files.append({side: f"{MIDI}/{name}_{side}.mid" for side in pair.sides})
        for side, one in pair.sides.items():
            one.piece.to_midi(run_dir / files[-1][side])
    return files


def _write_pieces(path: Path, pairs: Sequence[Pair], files: Sequence[Mapping[str, str]]) -> None:
    names = list(pairs[0].model.statistics)
    rows = []
    for pair, midi in zip(pairs, files, strict=True):
        for name, side in pair.sides.items():
            about = (pair.row.id, name, midi[name], key_name(pair.key), pair.bar_beats, side.beats)
            figures = [side.statistics[key] for key in names]
            rows.append((*about, *("" if math.isnan(value) else round(value, 4) for value in figures)))
    write_csv(path, ("id", "side", "midi", "key", "bar_beats", "new_beats", *names), rows)


def _histograms(pairs: Sequence[Pair], lines: Sequence[Comparison]) -> list[Histograms]:
    """The distributions of both sides, those that the table has a distance of."""
    found = []
    for line in lines:
        if line.is_distance:
            name = line.name.removeprefix("js_")
            counts = {
                side: np.sum([pair.sides[side].counts[name] for pair in pairs], axis=0)
                for side in (MODEL, HUMAN)
            }
            title = _cells(FEATURES[name].label, line)[1]
            found.append(Histograms(FEATURES[name].label, f"distance {title}", FEATURES[name].edges, counts))
    return found


def _write_page(
    run_dir: Path,
    cfg: Mapping[str, Any],
    shown: Mapping[int, Pair],
    files: Sequence[Mapping[str, str]],
    lines: Sequence[Comparison],
    prompt_beats: int,
    heading: tuple[str, str],
) -> None:
    """A page with some pairs, to see and to hear."""
    from pianolm.report import audio
    from pianolm.report.fluidsynth import choose_soundfont

    options = cfg["generate"]
    soundfont = choose_soundfont(options["soundfont"]) if options["audio"] else None
    pieces = []
    for index, pair in shown.items():
        for name, side in pair.sides.items():
            mp3 = b""
            if options["audio"]:
                samples = audio.render(side.piece, audio.SAMPLE_RATE_HZ, soundfont)
                mp3 = audio.page_mp3(samples, soundfont)
            midi = run_dir / files[index][name]
            pieces.append(
                PagePiece(midi.stem, side.piece, midi.read_bytes(), mp3, prompt_beats, key_name(pair.key))
            )
    rows = {}
    for line in lines:
        name = FEATURES[line.name.removeprefix("js_")].label if line.is_distance else _WORDS[line.name]
        _, value, interval, human, _ = _cells(name, line)
        words = f"distance of {name}" if line.is_distance else name
        rows[words] = (
            f"{value} ({interval}), {'halves of the human' if line.is_distance else 'human'} {human}"
        )
    title, begin = heading
    lead = f"{begin.format(beats=prompt_beats)}; {len(shown)} of {len(files)} pieces."
    save_page(run_dir / PAGE, title, lead, pieces, rows)
    print(f"evaluate: to see and hear some pairs, open {run_dir / PAGE}", flush=True)
