"""What packing a trained part for `pianolm/models/` needs: licences are checked, the record is written anew."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pianolm.artifacts import read_record, write_record
from pianolm.export.card import CARD
from pianolm.export.credits import credits_of

_RECORDED = ("stage", "fingerprint", "upstream", "licences", "metrics", "trained")
_REFUSED = ("NC", "ND", "SA", "unknown")
"""Parts of licences under which a model could not be used freely."""


def record_of(directory: Path) -> dict[str, Any]:
    """The record of an artifact, or of a part that is packed already."""
    record = read_record(directory)
    assert record is not None, f"{directory} is an artifact"
    return record


def free_record_of(trained: Path) -> dict[str, Any]:
    """The record of a trained artifact, with what it was trained with beside what it is packed with.

    Raises:
        SystemExit: It learned from music whose licence a bundled model may not have.
    """
    record = record_of(trained)
    if refused := [name for name in record["licences"] if any(part in name.split("-") for part in _REFUSED)]:
        raise SystemExit(
            f"{trained}: learned from music under {', '.join(refused)}, which a bundled model may not"
        )
    return {**record, "trained": {name: record[name] for name in ("versions", "git_commit")}}


def pack_files(trained: Path, artifacts: Path, out: Path, names: Sequence[str]) -> dict[str, Any]:
    """Copies files of a trained artifact, writes its credits and returns its record; a card in `out` stays."""
    record = free_record_of(trained)
    card = (out / CARD).read_text("utf-8") if (out / CARD).is_file() else ""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in names:
        shutil.copyfile(trained / name, out / name)
    credits_of(trained, [artifacts]).write(out)
    (out / CARD).write_text(card, "utf-8")
    return record


def write_packed(out: Path, record: dict[str, Any], most_bytes: int) -> None:
    """Writes artifact.json with a hash of each file of a folder, and checks its size."""
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    write_record(out, {name: record[name] for name in _RECORDED})
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert size <= most_bytes, f"{size} bytes"
    print(f"{out}: {size:,} bytes")
