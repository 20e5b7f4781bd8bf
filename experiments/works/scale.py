"""Thousands of files with many renditions of the same music, and what preparing them takes.

python scale.py make FILES OUT ASAP ACPAS OTHER,OTHER,...    writes renditions of the data sets' files as MIDI files
python scale.py run FOLDER RUNS WORKERS ROWS                 prepares the folder and measures time, memory and works

Files are made from all files of the data sets in turn: transposed by up to half an octave, at a changing tempo,
onsets shifted by some 10 ms.
"""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from measure import agreement, read, rendition, truth

from experiments.results import append_row
from pianolm.music.midi import write_midi

SOURCES = "sources.csv"
_PER_FOLDER = 1000


def make(files: int, out: Path, asap: str, acpas: str, others: str) -> None:
    """Writes the files, and beside the folder a table of which piece each was made from."""
    named = dict(part.split("=", 1) for part in others.split(",") if part)
    records, notes = read({"asap": asap, "acpas": acpas, **named})
    true = truth(records, acpas)
    order = np.random.default_rng(0).permutation(len(records))
    out.mkdir(parents=True)
    with (out.parent / f"{out.name}-{SOURCES}").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("piece", "original", "work", "source"))
        for index in range(files):
            original = int(order[index % len(order)])
            # The notes of a file depend on its number alone, so that fewer files are the first of many.
            piece = rendition(notes[original], np.random.default_rng(index), wrong=0)
            folder = out / f"{index // _PER_FOLDER:03d}"
            folder.mkdir(exist_ok=True)
            path = folder / f"{index:06d}.mid"
            write_midi(path, piece, np.arange(0, piece["offset_sec"].max() + 1, 0.5))
            record = records[original]
            table.writerow((f"folder/{folder.name}/{path.name}", record.id, true[original], record.source))


def run(folder: Path, runs: Path, workers: int, rows: Path) -> None:
    """Prepares the folder in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pianolm.run", "stage=prepare", "data=folder", f"data.root={folder}"]
    command += [f"compute.workers={workers}", f"paths.artifacts={runs}/artifacts", f"paths.work={runs}/work"]
    subprocess.run([*command, f"hydra.run.dir={runs}/run", "logger=csv"], check=True)
    wall = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    metrics = json.loads((runs / "run" / "metrics.json").read_text("utf-8"))
    with (Path(metrics["artifact"]) / "works.csv").open(encoding="utf-8", newline="") as file:
        found = {row["piece"]: row["work"] for row in csv.DictReader(file)}
    with (folder.parent / f"{folder.name}-{SOURCES}").open(encoding="utf-8", newline="") as file:
        made = [row for row in csv.DictReader(file) if row["piece"] in found]
    known = [
        row for row in made if row["source"] in ("asap", "acpas")
    ]  # of the other sets no works are known
    of_known = agreement([found[row["piece"]] for row in known], [row["work"] for row in known])
    copies = agreement([found[row["piece"]] for row in made], [row["original"] for row in made])
    append_row(
        rows,
        {
            "files": metrics["files"],
            "workers": workers,
            "wall_seconds": round(wall, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_rss_mb": metrics["peak_rss_mb"],
            "found_works": metrics["works"],
            "precision": of_known["precision"],
            "recall": of_known["recall"],
            "recall_of_renditions": copies["recall"],
        },
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", files, out, asap, acpas, others]:
            make(int(files), Path(out), asap, acpas, others)
        case ["run", folder, runs, workers, rows]:
            run(Path(folder), Path(runs), int(workers), Path(rows))
        case _:
            sys.exit(__doc__)
