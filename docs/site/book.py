"""The book of experiments, `experiments/README.md`: a line for each folder, from its README, figures and rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

_HEAD = """\
# Experiments

Each folder asks one question. Its README has the answer, a table and the command; `results.jsonl` the measurements,
`metrics.json` the headline figures, and `report.py` makes the tables from the rows, which tests compare. `PATH` is a
data set as it was unpacked ([which ones](../docs/data.md#data-sets)); commands run from the top of a checkout.

Minutes are the times that the rows hold, added up, on one or two cores of a machine that did other work as well; –
where they hold none, or only those of a part.

This page is made from the folders; `python -m docs.site.write` writes it again.
"""

_BENCHMARKS = """
## Benchmarks

What measures machines more than music.

"""


class Shown(NamedTuple):
    """What a line of the book shows.

    Attributes:
        figure: Key of `metrics.json`; empty for its first one.
        seconds: Key of the rows of `results.jsonl` that adds up to the time of all of it; empty where none does.
    """

    figure: str = ""
    seconds: str = ""


SHOWN = {
    "ablations": Shown("ties/tokenizer.ties=explicit", "seconds"),
    "beats": Shown(seconds="seconds"),
    "benchmarks/prepare-scale": Shown("seconds", "seconds"),
    "box-model": Shown("pop/bits_per_note_without_bars", "seconds"),
    "codebook-embedding": Shown("bits_per_note_codebook_induction"),
    "continuations": Shown("bar_likeness", "seconds"),
    "dynamics": Shown("told/velocity_r"),
    "exact-resume": Shown("identical_cases", "seconds"),
    "first-chain": Shown("finetune/val/bits_per_note", "seconds"),
    "first-sweep": Shown("identical"),
    "generation-validity": Shown("valid_fraction"),
    "hostile-input": Shown("mutants_wrong", "seconds"),
    "learning": Shown("finetune/bits_per_note"),
    "pedal": Shown("extend/tokens_per_note"),
    "reading-test": Shown("found"),
    "repetition": Shown("kinds-2/bar_likeness"),
    "roundtrip": Shown("notes_exact"),
    "scaling": Shown(seconds="train_seconds"),
    "tempo-tuning": Shown("pop909/log50_tuned/tempo_bits_per_note"),
    "tokenizer-comparison": Shown(
        "comparable_bits_per_note_codebook_ties=explicit_constrained_over_remi", "train_seconds"
    ),
    "tokenizer-fuzzing": Shown("failed", "seconds"),
    "works": Shown("notes_alone/precision"),
    "velvq": Shown(seconds="seconds"),
}


def book_page(experiments: Path) -> str:
    """`experiments/README.md`.

    Args:
        experiments: The folder of experiments.
    """
    folders = sorted(path.parent.relative_to(experiments).as_posix() for path in experiments.rglob("run.sh"))
    lines = {folder: _line(experiments / folder, SHOWN.get(folder, Shown()), folder) for folder in folders}
    head = ["| question | answer | figure | command | minutes |", "|---|---|---|---|---|"]
    of_machines = {folder for folder in folders if folder.startswith("benchmarks/")}
    parts = [
        [*head, *(line for name, line in lines.items() if (name in of_machines) == side)]
        for side in (False, True)
    ]
    return _HEAD + "\n" + "\n".join(parts[0]) + "\n" + _BENCHMARKS + "\n".join(parts[1]) + "\n"


def _line(folder: Path, shown: Shown, link: str) -> str:
    text = (folder / "README.md").read_text("utf-8").splitlines()
    metrics: dict[str, float] = json.loads((folder / "metrics.json").read_text("utf-8"))
    key = shown.figure or next(iter(metrics))
    command = text[next(number for number, line in enumerate(text) if line.startswith("```bash")) + 1]
    cells = (
        f"[{text[0].removeprefix('# ')}]({link}/README.md)",
        text[2].strip("*"),
        "–" if metrics.get("dry") else f"`{key}` {_number(metrics[key])}",  # a dry run measures nothing
        f"`{command.partition(' #')[0].strip()}`",
        _minutes(folder, shown.seconds),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _number(value: float) -> str:
    """Four figures, or as many as keep a share below one apart from one."""
    return next(
        text for text in (f"{value:.4g}", f"{value:.6g}", repr(value)) if (float(text) == 1) == (value == 1)
    )


def _minutes(folder: Path, key: str) -> str:
    if not key:
        return "–"
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()
    ]
    return f"{sum(row.get(key, 0.0) for row in rows) / 60:.0f}"


def write(root: Path) -> None:
    """Writes the book of a checkout."""
    (root / "experiments" / "README.md").write_text(book_page(root / "experiments"), "utf-8")
