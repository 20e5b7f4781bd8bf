"""Packs a trained beat tracker for `pianolm/models/beats`: weights, credits, works left out, and what the card needs.

    python experiments/beats/pack.py TRACKER ARTIFACTS OUT
    python experiments/beats/pack.py OUT                      after the card was edited: records its hash

TRACKER is the artifact of stage beats, ARTIFACTS the directory in which that of stage prepare is found. A card
(README.md) that lies in OUT stays.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from pianolm.artifacts import read_record, write_record
from pianolm.export.card import CARD
from pianolm.export.credits import credits_of
from pianolm.music.beat_network import CONFIG_FILE, WEIGHTS_FILE

MOST_BYTES = 4_000_000
EXCLUDED = "EXCLUDED.csv"
RECORDED = ("stage", "fingerprint", "upstream", "licences", "metrics", "trained")
REFUSED = ("NC", "ND", "SA", "unknown")
"""Parts of licences under which a model could not be used freely."""


def record_of(directory: Path) -> dict[str, Any]:
    record = read_record(directory)
    assert record is not None, f"{directory} is an artifact"
    return record


def pack(tracker: Path, artifacts: Path, out: Path) -> None:
    record = record_of(tracker)
    if refused := [name for name in record["licences"] if any(part in name.split("-") for part in REFUSED)]:
        raise SystemExit(
            f"{tracker}: learned from music under {', '.join(refused)}, which a model in the box may not"
        )
    card = (out / CARD).read_text("utf-8") if (out / CARD).is_file() else ""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(tracker / name, out / name)
    shutil.copyfile(artifacts / "prepare" / record["upstream"]["cells"] / "excluded.csv", out / EXCLUDED)
    credits_of(tracker, [artifacts]).write(out)
    (out / CARD).write_text(card, "utf-8")
    record["trained"] = {name: record[name] for name in ("versions", "git_commit")}
    write(out, record)


def write(out: Path, record: dict[str, Any]) -> None:
    """Writes artifact.json with a hash of each file, and checks the size."""
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    write_record(out, {name: record[name] for name in RECORDED})
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert size <= MOST_BYTES, f"{size} bytes"
    print(f"{out}: {size:,} bytes")


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) == 1:
        write(paths[0], record_of(paths[0]))
    else:
        pack(*paths)
