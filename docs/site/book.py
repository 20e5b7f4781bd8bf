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
where they hold none, only those of a part, or one of them in several rows.

This page is made from the folders; `python -m docs.site.write` writes it again.
"""

_BENCHMARKS = """
## Benchmarks

What measures machines more than music.

"""


class Shown(NamedTuple):
    """What a line of the book shows.

    Attributes:
        key: The figure's key in `metrics.json`.
        figure: What it is, with its unit.
        seconds: Key of the rows of `results.jsonl` that adds up to the time of all of it; empty where none does.
    """

    key: str
    figure: str
    seconds: str = ""


_BITS = "bits a note"
SHOWN = {
    "ablations": Shown("ties/tokenizer.ties=explicit", f"explicit ties, {_BITS}"),
    "beats": Shown("asap/beat_f", "beat F, ASAP"),
    "benchmarks/distributed": Shown(
        "largest_difference_of_val_loss", "largest difference of a validation loss"
    ),
    "benchmarks/generation-speed": Shown(
        "speedup_box_batch1", "bundled model's shape, one piece, times as fast"
    ),
    "benchmarks/gpu": Shown("eager_tokens_per_second", "tokens a second"),
    "benchmarks/prepare-scale": Shown("seconds", "46,000 files, seconds", "seconds"),
    "benchmarks/tokenizer-speed": Shown("speedup_vs_miditok_remi", "encoding, times as fast as REMI"),
    "benchmarks/training-speed": Shown("step_time_over_bare_loop", "time of a step over a bare loop's"),
    "box-model": Shown("pop/bits_per_note_without_bars", _BITS, "seconds"),
    "codebook-embedding": Shown("bits_per_note_codebook_induction", _BITS),
    "continuations": Shown("bar_likeness", "bar likeness", "seconds"),
    "controls": Shown("rank_correlation_loudness", "rank correlation, loudness"),
    "dynamics": Shown("told/velocity_r", "correlation with the human velocities"),
    "exact-resume": Shown("identical_cases", "identical of 8 cases", "seconds"),
    "fill": Shown("bits_per_note_both_sides_4", f"both sides of 4 beats, {_BITS}"),
    "first-chain": Shown("finetune/val/bits_per_note", _BITS, "seconds"),
    "first-sweep": Shown("identical", "identical of 6 jobs"),
    "generation-validity": Shown("valid_fraction", "share of valid pieces"),
    "hostile-input": Shown("mutants_wrong", "files with a wrong result", "seconds"),
    "learning": Shown("finetune/bits_per_note", _BITS),
    "pedal": Shown("extend/tokens_per_note", "pedalled, tokens a note"),
    "reading-test": Shown("found", "answers found of 18"),
    "recipe": Shown("1.1M/bits_per_note", f"1.1 million parameters, {_BITS}"),
    "repetition": Shown("kinds-2/bar_likeness", "bar likeness"),
    "roundtrip": Shown("notes_exact", "share of exact notes"),
    "scaling": Shown("3.1M/all/bits_per_note", f"3.1 M, one pass, {_BITS}", "train_seconds"),
    "tempo-tuning": Shown("pop909/log50_tuned/tempo_bits_per_note", f"tuned tempi of POP909, {_BITS}"),
    "tokenizer-comparison": Shown(
        "comparable_bits_per_note_codebook_ties=explicit_constrained_over_remi",
        "bits over REMI's",
        "train_seconds",
    ),
    "tokenizer-fuzzing": Shown("failed", "failures", "seconds"),
    "velvq": Shown("val/velocity_mae", "mean error, MIDI units"),
    "what-bits-miss": Shown("auc_bits/deadpan", "AUC of bits, deadpan"),
    "works": Shown("notes_alone/precision", "precision from notes alone"),
    "your-music": Shown("finetuned/bits_per_note", f"fine-tuned, {_BITS}"),
}
"""The figure of each experiment."""


def book_page(experiments: Path) -> str:
    """`experiments/README.md`.

    Args:
        experiments: The folder of experiments.

    Raises:
        ValueError: `SHOWN` has no figure for an experiment.
    """
    folders = sorted(path.parent.relative_to(experiments).as_posix() for path in experiments.rglob("run.sh"))
    if unnamed := [folder for folder in folders if folder not in SHOWN]:
        raise ValueError(
            f"experiments/{unnamed[0]} has no figure for the book; name it in SHOWN in docs/site/book.py"
        )
    lines = {folder: _line(experiments / folder, SHOWN[folder], folder) for folder in folders}
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
    command = text[next(number for number, line in enumerate(text) if line.startswith("```bash")) + 1]
    cells = (
        f"[{text[0].removeprefix('# ')}]({link}/README.md)",
        text[2].strip("*"),
        # a dry run measures nothing
        "–" if metrics.get("dry") else f"{shown.figure}: {_number(metrics[shown.key])}",
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
