"""The page of a prepared artifact: what the data is, what was decided on the way, and some pieces to see and hear."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import SPLITS, CellStore, PieceRow
from pianolm.data.licences import licence_id
from pianolm.data.sources.base import shuffle_key
from pianolm.music.piece import Piece
from pianolm.report import audio
from pianolm.report.distributions import Histograms, draw_histograms
from pianolm.report.html import PagePiece, save_page
from pianolm.report.page_sections import picture_section, table_section

_PIECES, _LEAST_SURE = 6, 2
_EXCERPT_SEC = 30.0
_ROWS = 20
_TEMPO_BPM = np.geomspace(15, 480, 61)
_VELOCITY = np.arange(0.5, 128.5, 2)
_NOTES_PER_SEC = np.arange(0, 30.5, 0.5)
_MINUTES = np.geomspace(1 / 8, 128, 41)
Table = Sequence[Mapping[str, str]]


def save_prepared_page(directory: Path, path: Path) -> int:
    """Writes the page.

    Args:
        directory: A prepared artifact.
        path: HTML file to write.

    Returns:
        Number of pieces on it.
    """
    store = CellStore.open(directory)
    tables = {
        name: _read(directory / f"{name}.csv")
        for name in ("rejects", "excluded", "repairs", "remarks", "works")
    }
    sections = [
        _data_sets(store),
        _histograms(store),
        _reasons("Rejected files", tables["rejects"], "reason", "no file was rejected"),
        _reasons("Left out", tables["excluded"], "why", "no piece was left out"),
        _reasons("Remarks of reading", tables["remarks"], "remark", "nothing to remark"),
        _repairs(store, tables["repairs"]),
        *_works(store, tables["works"]),
        _licences(store),
    ]
    chosen = _choose(store.pieces)
    remarks = defaultdict[tuple[str, str], list[str]](list)
    for row in tables["remarks"]:
        remarks[row.get("source", ""), row["path"]].append(row["remark"])
    of_piece = [remarks[piece.source, piece.path] for piece in store.pieces]
    shown = (_excerpt(store, index, of_piece[index]) for index in chosen)
    lead = (
        f"{len(store):,} pieces, {sum(row.flat for row in store.pieces):,} of them with flat velocities, "
        f"{len(tables['rejects']):,} files rejected. Lines in the piano rolls are beats, the stronger ones downbeats."
    )
    save_page(path, "Prepared data", lead, shown, {"artifact": str(directory)}, sections)
    return len(chosen)


def _read(path: Path) -> list[dict[str, str]]:
    """Rows of a table of the artifact; none where it has no such table. Older ones name no data sets."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _data_sets(store: CellStore) -> str:
    rows = defaultdict[str, Counter[str]](Counter)
    for index, row in enumerate(store.pieces):
        beats_sec = store.beats_sec(index)
        counts = {"notes": row.notes, "beats": row.beats, "flat": row.flat, row.split: 1, row.kind: 1}
        rows[row.source].update(counts)
        rows[row.source]["seconds"] += float(beats_sec[-1] - beats_sec[0])  # type: ignore[assignment]
    columns = ("data set", *SPLITS, "performances", "scores", "hours", "notes", "beats", "flat velocities")
    keys = (*SPLITS, "performance", "score", "seconds", "notes", "beats", "flat")
    table = [
        [source, *(round(counts[key] / 3600, 1) if key == "seconds" else int(counts[key]) for key in keys)]
        for source, counts in rows.items()
    ]
    if len(table) > 1:
        table.append(["all", *(round(sum(column), 1) for column in list(zip(*table, strict=True))[1:])])
    return table_section("Data sets", columns, table)


def _histograms(store: CellStore) -> str:
    edges = {
        "tempo of beats": ("BPM", _TEMPO_BPM),
        "velocity": ("velocity, pieces with flat ones left out", _VELOCITY),
        "density of pieces": ("notes a second", _NOTES_PER_SEC),
        "length of pieces": ("minutes", _MINUTES),
    }
    panels = [
        Histograms(label, title, bins, {split: np.zeros(bins.size - 1, np.int64) for split in SPLITS})
        for title, (label, bins) in edges.items()
    ]
    for index, row in enumerate(store.pieces):
        beats_sec = store.beats_sec(index)
        seconds = float(beats_sec[-1] - beats_sec[0])
        velocity = store.cells(index).segment_velocity
        values = (
            60 / np.diff(beats_sec),
            velocity[:0] if row.flat else velocity,
            row.notes / seconds,
            seconds / 60,
        )
        for panel, value in zip(panels, values, strict=True):
            panel.counts[row.split][:] += _counts(np.asarray(value, np.float64).reshape(-1), panel.edges)
    alt = "Distributions of tempo, velocity, density and length in each split"
    return picture_section("Distributions", draw_histograms(panels), alt, "share of each bin, by split")


def _counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """[K] values in each bin; those beyond the edges are in the first and the last one."""
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]


def _reasons(name: str, rows: Table, column: str, none: str) -> str:
    """Reasons with the number of rows that differ in nothing but numbers and names, and an example each."""
    groups = defaultdict[str, list[Mapping[str, str]]](list)
    for row in rows:
        groups[re.sub(r"'[^']*'|\d[\d., ]*", "…", row[column].replace(row["path"], "…"))].append(row)
    common = sorted(groups.values(), key=len, reverse=True)
    table = [(len(group), group[0][column], group[0]["path"]) for group in common[:_ROWS]]
    note = f"{len(rows):,} in all, {len(common):,} kinds" if rows else none
    return table_section(name, ("count", "such as", "of"), table, note)


def _repairs(store: CellStore, rows: Table) -> str:
    changes = ("reordered", "merged", "inserted")
    most = sorted(rows, key=lambda row: -sum(int(row[name]) for name in changes))[:_ROWS]
    counted = ("beats", *changes, "added_before", "added_after")
    columns = ("source", "path", *counted)
    table = [[row.get("source", ""), row["path"], *(int(row[name]) for name in counted)] for row in most]
    repaired = sum(row.repaired for row in store.pieces)
    note = (
        f"{repaired:,} pieces with beats reordered, merged or inserted; those with most first"
        if rows
        else "none"
    )
    return table_section("Repaired beats", [name.replace("_", " ") for name in columns], table, note)


def _works(store: CellStore, rows: Table) -> Iterator[str]:
    """Works in several data sets, and pieces that their works moved to another split."""
    if not rows:
        return
    source_of = {row.id: row.source for row in store.pieces}
    pieces = defaultdict[str, list[Mapping[str, str]]](list)
    for row in rows:
        pieces[row["work"]].append(row)
    sources = {
        work: Counter(source_of.get(row["piece"], row["piece"].partition("/")[0]) for row in group)
        for work, group in pieces.items()
    }
    several = [work for work, counts in sources.items() if len(counts) > 1]
    table = [
        (
            work,
            ", ".join(f"{count} of {source}" for source, count in sources[work].items()),
            pieces[work][0]["split"],
            ", ".join(sorted({row["found_by"] for row in pieces[work]})),
        )
        for work in several[:_ROWS]
    ]
    note = f"{len(several):,} of {len(pieces):,} works; works.csv lists all"
    yield table_section("Works in several data sets", ("work", "pieces", "split", "found by"), table, note)
    moved = [row for row in rows if row.get("own_split", row["split"]) != row["split"]]
    table_of_moved = [(row["piece"], row["own_split"], row["split"], row["work"]) for row in moved[:_ROWS]]
    note = f"{len(moved):,} pieces, so that no work is in two splits" if moved else "none"
    yield table_section(
        "Pieces moved to the split of their work", ("piece", "from", "to", "work"), table_of_moved, note
    )


def _licences(store: CellStore) -> str:
    groups = defaultdict[str, list[PieceRow]](list)
    for row in store.pieces:
        groups[licence_id(row.licence)].append(row)
    table = [
        (
            licence,
            len(rows),
            ", ".join(sorted({row.source for row in rows})),
            "; ".join(sorted({row.attribution for row in rows} - {""})[:3]),
        )
        for licence, rows in sorted(groups.items())
    ]
    return table_section("Licences", ("licence", "pieces", "data sets", "to be named, such as"), table)


def _choose(rows: Sequence[PieceRow]) -> list[int]:
    """Pieces to show: the two whose estimated beats are least sure, and others by chance, of each data set in turn."""
    usable = [index for index, row in enumerate(rows) if row.notes]
    sure = {index: _confidence(rows[index]) for index in usable}
    estimated = sorted((value, index) for index, value in sure.items() if value is not None)
    least_sure = [index for _, index in estimated[:_LEAST_SURE]]
    by_source = defaultdict[str, list[int]](list)
    for index in sorted(usable, key=lambda index: shuffle_key("page", rows[index].id)):
        if index not in least_sure:
            by_source[rows[index].source].append(index)
    in_turn = (index for turn in zip_longest(*by_source.values()) for index in turn if index is not None)
    return [
        *least_sure,
        *(index for index, _ in zip(in_turn, range(_PIECES - len(least_sure)), strict=False)),
    ]


def _confidence(row: PieceRow) -> float | None:
    """How sure the beats are that were estimated from the notes, 0–1; None for beats of another origin."""
    return getattr(row, "beat_confidence", None)


def _excerpt(store: CellStore, index: int, remarks: Iterable[str]) -> PagePiece:
    """The beginning of a piece, from the bar of its first note on."""
    row = store.pieces[index]
    bar_starts, beats_sec = store.bar_starts(index), np.asarray(store.beats_sec(index))
    piece = Piece.from_cells(store.cells(index), beats_sec, row.flat, bar_starts=bar_starts)
    first = int(piece.cells.beat[0])
    first = int(max(bar_starts[bar_starts <= first], default=first))
    n_beats = int(np.searchsorted(beats_sec[first:], beats_sec[first] + _EXCERPT_SEC))
    part = piece.from_beat(first, max(n_beats, 1))
    facts = [row.split, row.kind, *remarks]
    if (confidence := _confidence(row)) is not None:
        facts.append(f"confidence of the beats {confidence:.2f}")
    mp3 = audio.page_mp3(audio.render(part), None)
    with tempfile.TemporaryDirectory() as folder:
        part.to_midi(midi := Path(folder) / "part.mid")
        content = midi.read_bytes()
    return PagePiece(os.path.splitext(row.id)[0], part, content, mp3, remark=" · ".join(facts))
