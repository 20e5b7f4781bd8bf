"""Makes a folder of 100 performances with their beats: one of each of the first 100 works of ASAP's training split.

python hundred.py ASAP FOLDER    ASAP: the folder with metadata.csv; FOLDER gets links
"""

from __future__ import annotations

import sys
from pathlib import Path

from pianolm.data.sources import Record, collect

PIECES = 100


def chosen(asap: Path) -> list[Record]:
    """One performance of each of the first works, in the order of their ids."""
    records = collect({"source": "asap", "root": str(asap)}, asap).records
    first: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: record.id):
        if record.split == "train" and record.kind == "performance":
            first.setdefault(record.composition, record)
    return [first[work] for work in sorted(first)][:PIECES]


def main(asap: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, record in enumerate(chosen(asap)):
        name = f"{number:03d}"
        for link, file in (
            (folder / f"{name}.mid", record.midi_path),
            (folder / f"{name}_annotations.txt", Path(record.beats)),
        ):
            if not link.is_symlink():
                link.symlink_to(file.resolve())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
