"""Gathers the runs of run.sh: results.jsonl, metrics.json and the tables of README.md.

python report.py RUNS OUT    RUNS holds sweeps/NAME/NUMBER/metrics.json and measured/NAME.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from experiments.results import RESULTS, Row, publish, read_metrics, read_rows, table

COLUMNS = {
    "val/velocity_mae": ("MAE", 3),
    "val/velocity_mae_1": ("1 segment", 3),
    "val/velocity_mae_2": ("2", 3),
    "val/velocity_mae_3": ("3", 3),
    "val/velocity_mae_4plus": ("4 and more", 3),
    "val/note_velocity_p95": ("p95 of a note", 0),
    "val/codes_used": ("codes used", 3),
    "val/code_perplexity": ("perplexity", 0),
    "seconds": ("seconds", 0),
    "seconds_to_0.54": ("seconds to 0.54", 0),
}
SWEEPS = ("form", "latent", "codebook_size", "max_segments", "seed", "removed")
"""Sweeps on ASAP, in the order of the table; the default is in several. `removed`: rows of options that are gone."""
DEFAULT, REFERENCE = "velvq=segment velvq.seed=0", "velvq=frame"
BOUNDS = {"kmeans": "*k-means for each number of segments*", "cell_mean": "*mean of each cell*"}
TRANSFER = {"acpas": "ACPAS", "pop909": "POP909"}
CACHE = {"cache": "writing the cache", "tables": "tables of `velvq=segment` from it"}


def gather(runs: Path) -> list[Row]:
    """A row for each trained codec and each measurement."""
    rows: list[Row] = []
    for sweep in sorted((runs / "sweeps").iterdir()):
        jobs = [path for path in sweep.iterdir() if path.name.isdigit()]
        for job in sorted(jobs, key=lambda path: int(path.name)):
            overrides = yaml.safe_load((job / ".hydra" / "overrides.yaml").read_text("utf-8"))
            command = " ".join(override for override in overrides if override.startswith("velvq"))
            metrics = {key: value for key, value in read_metrics(job).items() if key != "resumed_from_step"}
            rows.append({"sweep": sweep.name, "job": command, **metrics})
    measured = {path.stem: json.loads(path.read_text("utf-8")) for path in (runs / "measured").glob("*.json")}
    rows += [{"bound": name, **row} for name, row in measured["bounds"].items()]
    rows += [{"transfer": name, **measured[f"transfer_{name}"]} for name in TRANSFER]
    rows += [{"shift": name, **row} for name, row in measured["shift"].items()]
    rows += [{"loading": job, **row} for job, row in measured["loading"].items()]
    cache = measured["cache_20m"]
    sizes = {key: cache[key] for key in ("cells", "pieces")}
    return [*rows, *({"cache": name, **sizes, **cache[name]} for name in CACHE)]


def of(rows: list[Row], kind: str) -> dict[str, Row]:
    """The rows that have a key, by its value."""
    return {row[kind]: row for row in rows if kind in row}


def headlines(rows: list[Row]) -> dict[str, float]:
    """The default codec's figures under the names of stage=velvq, and the errors it is compared with."""
    jobs, bounds = of(rows, "job"), of(rows, "bound")
    mae = "val/velocity_mae"
    return {
        **{key: jobs[DEFAULT][key] for key in COLUMNS},
        f"frame/{mae}": jobs[REFERENCE][mae],
        **{f"{name}/{mae}": bounds[name][mae] for name in BOUNDS},
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    jobs = {row["job"]: row for sweep in SWEEPS for row in rows if row.get("sweep") == sweep}
    fixed = of(rows, "bound")
    lines = [figures(name, fixed[key]) for key, name in BOUNDS.items()]
    lines += [figures(f"`{job}`{commit(row)}", row) for job, row in unique(jobs).items()]
    step = [
        [f"`{job}`", f"{row['step_ms']:.1f}", f"{row['batch_ms']:.1f}", f"{100 * row['share']:.1f} %"]
        for job, row in of(rows, "loading").items()
    ]
    return {
        "codecs": table(["", *(name for name, _ in COLUMNS.values())], lines),
        "other data": other_data(rows),
        "shift": shifts(rows),
        "cache": cache(rows),
        "loading": table(["", "a step with its batch, CPU ms", "the batch, CPU ms", "share"], step),
    }


def commit(row: Row) -> str:
    """The commit that a row of a removed option was measured at."""
    return f" at {row['commit']}" if "commit" in row else ""


def unique(jobs: dict[str, Row]) -> dict[str, Row]:
    """Each codec once: several commands name the default."""
    found: dict[tuple[Any, ...], str] = {}
    for job, row in jobs.items():
        figures = tuple(row.get(key) for key in COLUMNS)
        if figures not in found or job == DEFAULT:
            found[figures] = job
    order = sorted(found.values(), key=lambda job: job != DEFAULT)
    return {job: jobs[job] for job in order}


def figures(name: str, row: Row) -> list[str]:
    return [name, *(f"{row[key]:.{digits}f}" if key in row else "–" for key, (_, digits) in COLUMNS.items())]


def other_data(rows: list[Row]) -> list[str]:
    """The default codec of ASAP on other data, beside codecs trained there."""
    width = sum(key.startswith("val/") for key in COLUMNS)
    own = {row["sweep"]: row for row in rows if row.get("sweep") in TRANSFER}
    lines = [figures("ASAP, on ASAP", of(rows, "job")[DEFAULT])]
    for key, name in TRANSFER.items():
        lines += [
            figures(f"ASAP, on {name}", of(rows, "transfer")[key]),
            figures(f"{name}, on {name}", own[key]),
        ]
    head = ["trained on, measured on", *(name for name, _ in COLUMNS.values())]
    return table(head[: width + 1], [line[: width + 1] for line in lines])


def shifts(rows: list[Row]) -> list[str]:
    head = ["velocities", "pieces (left out)", "decoded shift, mean", "off by, mean", "off by, most"]
    lines = [
        [
            *(name, f"{row['pieces']} ({row['pieces_left_out']})", f"{row['mean_decoded_shift']:+.4f}"),
            *(f"{row['error_mean']:.4f}", f"{row['error_largest_of_a_piece']:.4f}"),
            *(f"{row['velocity_mae_as_played']:.3f}", f"{row['velocity_mae_shifted']:.3f}"),
        ]
        for name, row in of(rows, "shift").items()
    ]
    return table([*head, "MAE, as played", "MAE, shifted"], lines)


def cache(rows: list[Row]) -> list[str]:
    found = of(rows, "cache")
    cells = next(iter(found.values()))["cells"]
    head = [f"{cells:,} cells", "seconds", "own memory, peak (before), MiB", "with mapped files, MiB"]
    lines = [
        [
            *(CACHE[key], f"{row['seconds']:.1f}", f"{row['own_mib_peak']} ({row['own_mib_before']})"),
            f"{row['peak_mib_with_mapped_files']}",
        ]
        for key, row in found.items()
    ]
    return table(head, lines)


def main(runs: Path, out: Path) -> None:
    removed = [row for row in read_rows(out / RESULTS) if "commit" in row]
    rows = gather(runs) + removed
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
