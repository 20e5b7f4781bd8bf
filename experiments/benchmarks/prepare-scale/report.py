"""The tables and the headline figures of prepare-scale."""

from __future__ import annotations

from experiments.results import Row, table

_COUNTS = ((1_000, 2), (1_000_000, 0))
"""Files for which the growth is written, and digits after the point."""
TERMS = {
    "finding and hashing files": ("seconds_hashing", "s"),
    "reading, works and writing": ("seconds_preparing", "s"),
    "hashes of the artifact": ("seconds_publishing", "s"),
    "answer that it is reused": ("seconds_reusing", "s"),
    "peak memory of the main process": ("main_peak_mb", "MB"),
    "artifact": ("artifact_mb", "MB"),
    "kept results while it runs": ("work_peak_mb", "MB"),
}
"""What grows with the number of files: its key and unit."""


def _two(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["workers"] == 2]


def headlines(rows: list[Row]) -> dict[str, float]:
    """Of all files with two processes, and against one; `identical` is 1 where both made the same artifact."""
    all_files, one = _two(rows)[-1], next(row for row in rows if row["workers"] == 1)
    keys = ("files", "seconds", "main_peak_mb", "artifact_mb", "seconds_reusing")
    return {
        **{key: round(all_files[key], 2) for key in keys},
        "one_process_over_two": round(one["seconds_preparing"] / all_files["seconds_preparing"], 2),
        "identical": int(one["payload"] == all_files["payload"]),
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    head = ["files", "processes", "s", "files/s", *(f"{name}, {unit}" for name, (_, unit) in TERMS.items())]
    lines = [
        [
            f"{row['files']:,}",
            str(row["workers"]),
            f"{row['seconds']:,.0f}",
            f"{row['files'] / row['seconds_preparing']:,.0f}",
            *(f"{row[key]:,.1f}" for key, _ in TERMS.values()),
        ]
        for row in rows
    ]
    few, many = _two(rows)[0], _two(rows)[-1]
    growth = {
        name: (many[key] - few[key]) / (many["files"] - few["files"]) for name, (key, _) in TERMS.items()
    }
    million = [
        [
            name,
            *(
                f"{count * growth[name]:,.{digits}f} {unit}" if growth[name] > 0 else "–"
                for count, digits in _COUNTS
            ),
        ]
        for name, (_, unit) in TERMS.items()
    ]
    return {
        "results": table(head, lines),
        "million": table(["", "a thousand files more", "a million"], million),
    }
