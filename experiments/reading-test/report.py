"""The table and the headline figures of reading-test.

python report.py OUT    writes metrics.json and the table of README.md from results.jsonl in a folder
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.results import RESULTS, Row, publish, read_rows, table


def headlines(rows: list[Row]) -> dict[str, float]:
    return {
        "questions": len(rows),
        "found": sum(row["found"] == "yes" for row in rows),
        "seconds_most": max(row["seconds"] for row in rows),
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    head = ["question", "pages opened", "s", "found", "mended since"]
    lines = [
        [row["question"], " → ".join(row["pages"]), str(row["seconds"]), row["found"], row["mended"]]
        for row in rows
    ]
    return {"results": table(head, lines)}


if __name__ == "__main__":
    out = Path(sys.argv[1])
    found = read_rows(out / RESULTS)
    publish(out, found, headlines(found), tables(found))
