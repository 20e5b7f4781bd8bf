"""The table and the headline figures of generation-validity."""

from __future__ import annotations

from experiments.results import Row, table

FRACTIONS = ("valid_fraction", "without_skipped_fraction", "same_notes_fraction", "same_velocity_fraction")


def headlines(rows: list[Row]) -> dict[str, float]:
    """All pieces together; of each fraction the lowest of the models."""
    return {
        "pieces": sum(row["pieces"] for row in rows),
        **{key: min(row[key] for row in rows) for key in FRACTIONS},
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    keys = [key for key in rows[0] if key != "model"]
    lines = [[key, *(_shown(row[key]) for row in rows)] for key in keys]
    return {"results": table(["", *(row["model"] for row in rows)], lines)}


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)
    )
