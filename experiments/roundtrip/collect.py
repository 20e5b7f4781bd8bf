"""Gathers the metrics of run.sh into results.json and the table of README.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path

MARKS = ("<!-- written by collect.py -->", "<!-- end -->")
ROWS = (
    ("pieces", "pieces"),
    ("notes", "notes"),
    ("notes_exact", "notes_exact"),
    ("merged", "notes_merged"),
    ("cut", "notes_cut"),
    ("other", "notes_other"),
    ("codes_per_cell", "codes_per_cell"),
    ("tokens_per_note", "tokens_per_note"),
    ("onset_ms p50 / p95", "onset_ms_p50", "onset_ms_p95"),
    ("offset_ms p50 / p95", "offset_ms_p50", "offset_ms_p95"),
    ("beat_ms p50 / p95", "beat_ms_p50", "beat_ms_p95"),
    ("velocity_mae", "velocity_mae"),
)


def shown(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6f}" if 0.9 < value < 1 else f"{value:.3f}" if value < 5 else f"{value:.1f}"


def main(out: Path, tokenizer: Path, here: Path) -> None:
    names = ("asap", "acpas", "pop909")
    found = {name: json.loads((out / name / "metrics.json").read_text()) for name in names}
    made = json.loads((tokenizer / "artifact.json").read_text())["metrics"]
    kept = {name: {k: v for k, v in m.items() if k not in ("artifact", "stage")} for name, m in found.items()}
    (here / "results.json").write_text(json.dumps({**kept, "tokenize": made}, indent=2) + "\n")
    lines = ["| | " + " | ".join(names) + " |", "|---|---|---|---|"]
    for label, *keys in ROWS:
        cells = (" / ".join(shown(found[name][key]) for key in keys) for name in names)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    readme = here / "README.md"
    before, _, rest = readme.read_text("utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    readme.write_text(before + "\n".join([MARKS[0], *lines, MARKS[1]]) + after, "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
