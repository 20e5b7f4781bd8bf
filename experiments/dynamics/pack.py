"""Packs a trained dynamics model for `pianolm/models/dynamics`: weights, credits, and what the card needs.

    PYTHONPATH=. python experiments/dynamics/pack.py MODEL ARTIFACTS OUT
    PYTHONPATH=. python experiments/dynamics/pack.py OUT    after the card was edited: records its hash

MODEL is the artifact of stage dynamics, ARTIFACTS the directory in which that of stage prepare is found. A card
(README.md) that lies in OUT stays.
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.packing import pack_files, record_of, write_packed
from pianolm.dynamics.files import CONFIG_FILE, WEIGHTS_FILE

MOST_BYTES = 6_000_000


def pack(model: Path, artifacts: Path, out: Path) -> None:
    write_packed(out, pack_files(model, artifacts, out, (CONFIG_FILE, WEIGHTS_FILE)), MOST_BYTES)


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) == 1:
        write_packed(paths[0], record_of(paths[0]), MOST_BYTES)
    else:
        pack(*paths)
