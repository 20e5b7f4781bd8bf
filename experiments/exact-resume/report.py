"""The table and the headline figures of exact-resume."""

from __future__ import annotations

from experiments.results import Row, table


def headlines(rows: list[Row]) -> dict[str, float]:
    return {
        "cases": len(rows),
        "kills": sum(row["kills"] for row in rows),
        "identical_cases": sum(row["identical"] for row in rows),
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    lines = [
        [
            *(row["case"], f"{row['kills']}"),
            ", ".join(f"{phase} {count}" for phase, count in row["during"].items()),
            "yes" if row["identical"] else "no",
        ]
        for row in rows
    ]
    return {"results": table(["stage and processes", "kills", "killed during", "identical"], lines)}
