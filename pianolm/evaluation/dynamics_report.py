"""What `evaluate=dynamics` writes: a row for each piece, a picture, and a page with some pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pianolm.csv_file import write_csv
from pianolm.data.cell_store import PieceRow
from pianolm.evaluation.excerpts import bar_length, cut
from pianolm.evaluation.selection import evenly_spaced
from pianolm.evaluation.velocity_agreement import Agreement
from pianolm.music.bars import DEFAULT_BAR_BEATS
from pianolm.music.piece import Piece
from pianolm.report.html import PagePiece, save_page
from pianolm.report.side_by_side import draw_side_by_side
from pianolm.stage import Metrics

PIECES, PAGE, ROLLS, MIDI = "pieces.csv", "index.html", "rolls.png", "midi"
MODEL, CONSTANT, HUMAN, PAIRED, PAIRED_CONSTANT = "", "constant_", "human_", "paired_", "paired_constant_"
COMPARISONS = (MODEL, CONSTANT, HUMAN, PAIRED, PAIRED_CONSTANT)
"""Prefixes of the metrics, by what is compared with the pianist: the model, the median, the second pianist (on the
notes that both play), and model and median on these notes alone."""
FLAT, RENDERED, PIANIST = "flat", "rendered", "human"
"""Names of the three versions of a piece."""
SHOWN_PIECES, DRAWN_PIECES, SHOWN_BEATS = 10, 4, 64
"""Pieces on the page and in the picture, evenly spaced, and how many of their first beats."""
_FIGURES = ("mae", "r", "js")
_DPI = 70


@dataclass(frozen=True, eq=False)
class PieceDynamics:
    """Agreement with the pianist of one performance.

    Attributes:
        row: Row of the performance in the cell store.
        agreements: By prefix, see `COMPARISONS`.
        second_pianist: Id of the second pianist's performance, empty if there is none.
        versions: The notes compared by `FLAT`, `RENDERED` and `PIANIST`, whose velocities they have.
    """

    row: PieceRow
    agreements: Mapping[str, Agreement]
    second_pianist: str
    versions: Mapping[str, Piece]


def mean_agreement(agreements: Sequence[Agreement]) -> Agreement:
    """Mean over pieces, weighted by their notes."""
    notes = [agreement.notes for agreement in agreements]
    means = (
        np.average([getattr(agreement, name) for agreement in agreements], weights=notes) for name in _FIGURES
    )
    return Agreement(sum(notes), *map(float, means))


def metrics_of(results: Sequence[PieceDynamics]) -> Metrics:
    """The metrics of some pieces, at least one."""
    notes = sum(result.agreements[MODEL].notes for result in results)
    metrics: Metrics = {"pieces": len(results), "notes": notes}
    for prefix in COMPARISONS:
        agreements = [result.agreements[prefix] for result in results if prefix in result.agreements]
        if agreements:
            metrics |= _named(prefix, mean_agreement(agreements))
    paired = [result.agreements for result in results if result.second_pianist]
    metrics["paired_pieces"] = len(paired)
    if paired:
        paired_notes = sum(agreements[HUMAN].notes for agreements in paired)
        all_notes = sum(agreements[MODEL].notes for agreements in paired)
        metrics |= {"paired_notes": paired_notes, "paired_fraction": paired_notes / all_notes}
    return metrics


def _named(prefix: str, agreement: Agreement) -> dict[str, float]:
    """Figures by metric name, without the correlation of a constant."""
    names = [name for name in _FIGURES if name != "r" or prefix not in (CONSTANT, PAIRED_CONSTANT)]
    return {f"{prefix}velocity_{name}": float(getattr(agreement, name)) for name in names}


def write_pieces(run_dir: Path, results: Sequence[PieceDynamics]) -> None:
    """Writes `pieces.csv`."""
    names = [name for prefix in COMPARISONS for name in _named(prefix, Agreement(0, 0, 0, 0))]
    rows = []
    for result in results:
        figures: dict[str, float] = {}
        for prefix, agreement in result.agreements.items():
            figures |= _named(prefix, agreement)
        paired_notes = result.agreements[HUMAN].notes if result.second_pianist else ""
        about = (result.row.id, result.row.path, result.agreements[MODEL].notes, result.second_pianist)
        rows.append((*about, paired_notes, *(round(figures[n], 4) if n in figures else "" for n in names)))
    write_csv(run_dir / PIECES, ("id", "path", "notes", "second_human", "paired_notes", *names), rows)


def write_page(run_dir: Path, cfg: Mapping[str, Any], results: Sequence[PieceDynamics], model: Path) -> None:
    """Writes the picture, MIDI, and a page on which some pieces are seen and heard flat, rendered and by the pianist.

    Args:
        run_dir: Directory of the run.
        cfg: Its configuration, of which `generate.audio`, `generate.soundfont` and `evaluate.*` are read.
        results: The pieces measured.
        model: Path of the model.
    """
    from pianolm.report import audio
    from pianolm.report.fluidsynth import choose_soundfont

    options = cfg["generate"]
    soundfont = choose_soundfont(options["soundfont"]) if options["audio"] else None
    shown = evenly_spaced(list(range(len(results))), SHOWN_PIECES)
    excerpts = {index: _excerpts(results[index]) for index in shown}
    drawn = evenly_spaced(shown, DRAWN_PIECES)
    _draw(run_dir / ROLLS, {results[index].row.path: excerpts[index] for index in drawn})
    pieces = []
    (run_dir / MIDI).mkdir(exist_ok=True)
    for index, versions in excerpts.items():
        said = _words(results[index].agreements[MODEL])
        for version, piece in versions.items():
            mp3 = b""
            if options["audio"]:
                mp3 = audio.page_mp3(audio.render(piece, audio.SAMPLE_RATE_HZ, soundfont), soundfont)
            midi = run_dir / MIDI / f"{index:03d}_{Path(results[index].row.path).stem}_{version}.mid"
            piece.to_midi(midi)
            remark = said if version == RENDERED else ""
            pieces.append(PagePiece(midi.stem, piece, midi.read_bytes(), mp3, remark=remark))
    lead = (
        f"The first {SHOWN_BEATS} beats of {len(shown)} of {len(results)} pieces: with one velocity, with those of the "
        "model, and as the pianist played them."
    )
    rows = {"model": str(model), **{name: str(value) for name, value in cfg["evaluate"].items()}}
    rows["all pieces"] = _words(mean_agreement([result.agreements[MODEL] for result in results]))
    save_page(run_dir / PAGE, "Dynamics beside a pianist's", lead, pieces, rows)
    print(f"evaluate: to see and hear some pieces, open {run_dir / PAGE}", flush=True)


def _excerpts(result: PieceDynamics) -> dict[str, Piece]:
    """The beginning of each version of a piece."""
    pianist = result.versions[PIANIST]
    first = int(pianist.cells.beat[0])
    stop = min(first + SHOWN_BEATS, pianist.n_beats)
    return {name: cut(piece, first, stop) for name, piece in result.versions.items()}


def _draw(path: Path, rows: Mapping[str, Mapping[str, Piece]]) -> None:
    bars = [bar_length(one[PIANIST], SHOWN_BEATS) or DEFAULT_BAR_BEATS for one in rows.values()]
    draw_side_by_side(rows, 0, bars).savefig(path, dpi=_DPI)


def _words(agreement: Agreement) -> str:
    """The figures in words."""
    return (
        f"correlation with the pianist {agreement.r:.2f}, mean error {agreement.mae:.1f}, "
        f"distance of the distributions {agreement.js:.2f}"
    )
