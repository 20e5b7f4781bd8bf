"""Packs a trained beat tracker for `pianolm/models/beats`: weights, credits, works left out, and what the card needs.

The square matrices at the end of blocks are stored in 8 bits, so that the folder stays below its limit.

    PYTHONPATH=. python experiments/beats/pack.py TRACKER ARTIFACTS OUT
    PYTHONPATH=. python experiments/beats/pack.py OUT    after the card was edited: records its hash

TRACKER is the artifact of stage beats, ARTIFACTS the directory in which that of stage prepare is found. A card
(README.md) that lies in OUT stays.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from experiments.packing import pack_files, record_of, write_packed
from pianolm.music.beat_network import BeatNetwork

MOST_BYTES = 4_000_000
EXCLUDED = "EXCLUDED.csv"


def pack(tracker: Path, artifacts: Path, out: Path) -> None:
    record = pack_files(tracker, artifacts, out, ())  # the network is written in its own way
    network = BeatNetwork.from_directory(tracker)
    network.save(out, eight_bits=[name for name in network.tensors if name.endswith(".mix.weight")])
    shutil.copyfile(artifacts / "prepare" / record["upstream"]["cells"] / "excluded.csv", out / EXCLUDED)
    write_packed(out, record, MOST_BYTES)


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) == 1:
        write_packed(paths[0], record_of(paths[0]), MOST_BYTES)
    else:
        pack(*paths)
