"""Gathers what run.sh left in a directory into results.json and the tables of README.md beside this file.

python collect.py DIRECTORY    with sweeps/NAME/NUMBER/metrics.json and measured/NAME.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
MARKS = ("<!-- written by collect.py -->", "<!-- end -->")
COLUMNS = {
    "val/velocity_mae": "MAE",
    "val/velocity_mae_1": "1 segment",
    "val/velocity_mae_2": "2",
    "val/velocity_mae_3": "3",
    "val/velocity_mae_4plus": "4 and more",
    "val/note_velocity_p95": "p95 of a note",
    "val/codes_used": "codes used",
    "val/code_perplexity": "perplexity",
    "seconds": "seconds",
    "seconds_to_0.54": "seconds to 0.54",
}
DIGITS = {
    "val/note_velocity_p95": 0,
    "val/codes_used": 3,
    "val/code_perplexity": 0,
    "seconds": 0,
    "seconds_to_0.54": 0,
}
MEAN, KMEANS = "*mean of each cell*", "*k-means for each number of segments*"
TABLES = {
    "The reference form and the default": ("reference", "default", KMEANS, MEAN),
    "Frame form: the mask alone, or mask and onset": ("onset",),
    "Frame form: width of the latent": ("latent",),
    "Number of codes": ("codebook_size",),
    "Error that is minimised": ("error",),
    "Segments that a code tells apart": (MEAN, "slots"),
    "Seeds of the default": ("seed",),
}

Row = dict[str, Any]


def trained(directory: Path) -> dict[str, list[Row]]:
    """Metrics of every job by sweep, and under `job` what of its command concerns the codec."""
    sweeps: dict[str, list[Row]] = {}
    for sweep in sorted((directory / "sweeps").iterdir()):
        jobs = sorted(
            (path for path in sweep.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
        )
        for job in jobs:
            overrides = yaml.safe_load((job / ".hydra" / "overrides.yaml").read_text())
            metrics = json.loads((job / "metrics.json").read_text())
            kept = {key: value for key, value in metrics.items() if key not in ("artifact", "stage")}
            command = " ".join(override for override in overrides if override.startswith("velvq"))
            sweeps.setdefault(sweep.name, []).append({"job": command, **kept})
    return sweeps


def table(rows: list[Row], columns: dict[str, str]) -> list[str]:
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---|" + "---|" * len(columns)]
    for row in rows:
        name = row["job"] if row["job"].startswith("*") else f"`{row['job']}`"
        figures = (f"{row[key]:.{DIGITS.get(key, 3)}f}" if key in row else "–" for key in columns)
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    return lines


def markdown(results: dict[str, Any]) -> str:
    """Everything between the marks of the README."""
    sweeps, measured = results["sweeps"], results["measured"]
    bounds = {MEAN: measured["bounds"]["cell_mean"], KMEANS: measured["bounds"]["kmeans"]}
    named = {name: [{"job": name, **figures}] for name, figures in bounds.items()}
    named |= {**sweeps, "default": [{**sweeps["seed"][0], "job": "velvq=segment"}]}
    named["reference"] = [{**sweeps["onset"][0], "job": "velvq=frame"}]
    lines: list[str] = []
    for title, parts in TABLES.items():
        lines += [f"### {title}", "", *table([row for part in parts for row in named[part]], COLUMNS), ""]
    lines += ["### Other data", "", *other_data(named["default"][0], sweeps, measured), ""]
    lines += ["### Pieces played louder and softer", "", *shifts(measured["shift"]), ""]
    lines += ["### Cell cache of 20 million cells", "", *cache(measured["cache_20m"]), ""]
    lines += [
        "### A training step, and getting its batch",
        "",
        "`python experiments/velvq/loading.py STORE`",
        "",
    ]
    lines += ["| | a step with its batch, CPU ms | the batch, CPU ms | share |", "|---|---|---|---|"]
    lines += [
        f"| `{job}` | {row['step_ms']:.1f} | {row['batch_ms']:.1f} | {100 * row['share']:.1f} % |"
        for job, row in measured["loading"].items()
    ]
    return "\n".join(lines)


def other_data(default: Row, sweeps: dict[str, list[Row]], measured: dict[str, Any]) -> list[str]:
    """The default codec of ASAP elsewhere, beside codecs trained there."""
    columns = {key: name for key, name in COLUMNS.items() if key.startswith("val/")}
    rows = [{**default, "job": "*trained on ASAP, measured on ASAP*"}]
    for key, name in {"acpas": "ACPAS", "pop909": "POP909"}.items():
        rows.append({"job": f"*trained on ASAP, measured on {name}*", **measured[f"transfer_{key}"]})
        rows.append({**sweeps[key][0], "job": f"*trained on {name}, measured on {name}*"})
    return ["`python experiments/velvq/transfer.py CODEC STORE`", "", *table(rows, columns)]


def shifts(measured: dict[str, Any]) -> list[str]:
    lines = ["`python experiments/velvq/shift.py CODEC STORE`", ""]
    lines += [
        "| velocities | pieces (left out) | decoded shift, mean | off by, mean | off by, most | MAE, as played | MAE |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [
        f"| {name} | {row['pieces']} ({row['pieces_left_out']}) | {row['mean_decoded_shift']:+.4f} "
        f"| {row['error_mean']:.4f} | {row['error_largest_of_a_piece']:.4f} "
        f"| {row['velocity_mae_as_played']:.3f} | {row['velocity_mae_shifted']:.3f} |"
        for name, row in measured.items()
    ]
    return lines


def cache(measured: dict[str, Any]) -> list[str]:
    lines = [
        f"`python experiments/velvq/cache_20m.py STORE`: {measured['cells']:,} cells, {measured['pieces']:,} pieces."
    ]
    lines += [
        "",
        "| | seconds | own memory, peak (before), MiB | with mapped files, MiB |",
        "|---|---|---|---|",
    ]
    for key, name in {"cache": "writing the cache", "tables": "tables of `velvq=segment` from it"}.items():
        row = measured[key]
        lines.append(
            f"| {name} | {row['seconds']:.1f} | {row['own_mib_peak']} ({row['own_mib_before']}) "
            f"| {row['peak_mib_with_mapped_files']} |"
        )
    return lines


def put_into(readme: Path, text: str) -> None:
    """Replaces what stands between the marks."""
    before, _, rest = readme.read_text("utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    given = Path(sys.argv[1])
    gathered = {
        "sweeps": trained(given),
        "measured": {
            path.stem: json.loads(path.read_text()) for path in sorted((given / "measured").glob("*.json"))
        },
    }
    (HERE / "results.json").write_text(json.dumps(gathered, indent=2) + "\n", "utf-8")
    put_into(HERE / "README.md", markdown(gathered))
