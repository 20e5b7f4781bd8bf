"""What packing a trained part for `pianolm/models/` needs: licences are checked, the record is written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pianolm.artifacts import read_record, write_record

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
        SystemExit: It learned from music whose licence a model in the box may not have.
    """
    record = record_of(trained)
    if refused := [name for name in record["licences"] if any(part in name.split("-") for part in _REFUSED)]:
        raise SystemExit(
            f"{trained}: learned from music under {', '.join(refused)}, which a model in the box may not"
        )
    return {**record, "trained": {name: record[name] for name in ("versions", "git_commit")}}


def write_packed(out: Path, record: dict[str, Any], most_bytes: int) -> None:
    """Writes artifact.json with a hash of each file of a folder, and checks its size."""
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    write_record(out, {name: record[name] for name in _RECORDED})
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert size <= most_bytes, f"{size} bytes"
    print(f"{out}: {size:,} bytes")
