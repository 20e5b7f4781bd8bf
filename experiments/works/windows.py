"""How near the onsets of two notes may be for the sketch of a piece to take them for one chord.

python windows.py ASAP ACPAS ROWS

From notes alone, for each window: the works of up to three files of each work of ASAP and ACPAS, and which of two
renditions of one file of each work (as in measure.py, without wrong notes) find each other.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from measure import agreement, find, rendition, truth

from experiments.results import append_row
from pianolm.data.sources import collect
from pianolm.data.works import note_sketch
from pianolm.errors import UserError
from pianolm.music.midi import read_midi

WINDOWS_SEC = (0.06, 0.05, 0.04, 0.03)
FILES = 3


def main(asap: str, acpas: str, rows: Path) -> None:
    records = []
    for source, root in (("asap", asap), ("acpas", acpas)):
        records += collect({"source": source, "root": root, "beats": "auto"}, Path()).records
    of_work = defaultdict(list)
    for record, work in zip(records, truth(records, acpas), strict=True):
        of_work[work].append(record)
    notes, works, first = [], [], {}
    for work, files in of_work.items():
        for record in files[:: max(len(files) // FILES, 1)][:FILES]:
            try:
                notes.append(read_midi(record.midi_path).notes)
            except UserError:
                continue
            works.append(work)
            first.setdefault(work, notes[-1])
    rng = np.random.default_rng(0)
    renditions = [rendition(piece, rng, wrong=0) for piece in first.values() for _ in range(2)]
    played = [work for work in first for _ in range(2)]
    for window in WINDOWS_SEC:
        note_sketch.TOGETHER_SEC = window
        for name, pieces, true in (("files", notes, works), ("renditions", renditions, played)):
            found, _ = find([note_sketch.sketch_notes(piece) for piece in pieces], [None] * len(pieces))
            append_row(rows, {"window_ms": round(1000 * window), "of": name, **agreement(found, true)})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:3], Path(sys.argv[3]))
