"""Packs a trained dynamics model for `pianolm/models/dynamics`: weights, credits, and what the card needs.

    PYTHONPATH=. python experiments/dynamics/pack.py MODEL ARTIFACTS OUT
    PYTHONPATH=. python experiments/dynamics/pack.py OUT    after the card was edited: records its hash

MODEL is the artifact of stage dynamics, ARTIFACTS the directory in which that of stage prepare is found. A card
(README.md) that lies in OUT stays.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from experiments.packing import free_record_of, record_of, write_packed
from pianolm.dynamics.files import CONFIG_FILE, WEIGHTS_FILE
from pianolm.export.card import CARD
from pianolm.export.credits import credits_of

MOST_BYTES = 6_000_000


def pack(model: Path, artifacts: Path, out: Path) -> None:
    record = free_record_of(model)
    card = (out / CARD).read_text("utf-8") if (out / CARD).is_file() else ""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(model / name, out / name)
    credits_of(model, [artifacts]).write(out)
    (out / CARD).write_text(card, "utf-8")
    write_packed(out, record, MOST_BYTES)


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) == 1:
        write_packed(paths[0], record_of(paths[0]), MOST_BYTES)
    else:
        pack(*paths)
