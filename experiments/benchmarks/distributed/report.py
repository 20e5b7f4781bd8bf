"""The tables and the headline figures of benchmarks/distributed."""

from __future__ import annotations

from experiments.results import Row, table

RESUME, STEPS = "resume", "steps"


def of_kind(rows: list[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def difference(rows: list[Row], row: Row) -> float:
    """Of the last validation loss from that of the run that was not killed."""
    return abs(row["val_loss"] - of_kind(rows, RESUME)[0]["val_loss"])


def headlines(rows: list[Row]) -> dict[str, float]:
    found: dict[str, float] = {}
    if resumed := of_kind(rows, RESUME):
        found["largest_difference_of_val_loss"] = max(difference(rows, row) for row in resumed)
    for name in ("wall", "processor") if len(steps := of_kind(rows, STEPS)) == 3 else ():
        one, ddp, fsdp = (row[f"{name}_sec"] for row in steps)
        found[f"ddp_over_one_process_{name}"] = round(ddp / one, 3)
        found[f"fsdp_over_ddp_{name}"] = round(fsdp / ddp, 3)
    return found


def tables(rows: list[Row]) -> dict[str, list[str]]:
    resumed = [
        [
            row["run"],
            str(row["resumed_from_step"] or "–"),
            f"{row['val_loss']:.7f}",
            f"{difference(rows, row):.1e}",
            str(row["files"]),
        ]
        for row in of_kind(rows, RESUME)
    ]
    steps = [
        [row["run"], f"{row['wall_sec']:.3f} s", f"{row['processor_sec']:.3f} s", str(row["steps"])]
        for row in of_kind(rows, STEPS)
    ]
    return {
        "resume": table(
            ["run", "continued from step", "val/loss after the last step", "difference", "files published"],
            resumed,
        ),
        "steps": table(["run", "a step, by the clock", "processor time of all processes", "steps"], steps),
    }
