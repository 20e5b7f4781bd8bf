"""The table and the headline figures of tokenizer-fuzzing."""

from __future__ import annotations

from experiments.results import Row, table

COLUMNS = ("sequences", "tokens", "skipped", "cells", "notes", "whole", "beatless")


def headlines(rows: list[Row]) -> dict[str, float]:
    kinds = [row for row in rows if "kind" in row]
    summary = next(row for row in rows if row["family"] == "summary")
    return {
        "sequences": sum(row["sequences"] for row in kinds),
        "failed": summary["failed"],
        "beatless_incomplete": sum(row["beatless_incomplete"] for row in kinds),
        **{key: summary[key] for key in ("pieces", "seed", "seconds")},
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    lines = [
        [
            f"{row['family']}: {row['kind']}" if "kind" in row else row["tokenizer"],
            *(f"{row[column]:,}".replace(",", " ") for column in COLUMNS),
        ]
        for row in rows
        if row["family"] != "summary"
    ]
    return {"results": table(["", *COLUMNS], lines)}
