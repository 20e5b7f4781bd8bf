"""Everything that this experiment does: mutants, damage, kills, full disks, cases, written pieces and mistakes.

    python hostile.py --out DIRECTORY [--data PATH] [--cases PATH] [--parts mutants,damage,…]

Each part replaces its own rows of results.jsonl.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bulk
from cases import case_rows
from commands import SETTINGS, places, tiny
from damage import Case, given_cases, model_cases, rebuilt_cases
from full_disk import fill_disks
from isolated import isolated
from kills import kill_all
from mistakes import make
from population import Mutant, composed_originals, mutants, real_originals
from reading import Outcome, read_all
from report import headlines, tables
from writing import write_all

from experiments.results import RESULTS, Row, publish, read_rows
from pianolm.run import execute

_COMPOSED, _REAL = 12, 8
_DEMO_PIECES = 60
_REBUILT = ("prepare", "codebook", "tokenize", "base")
_WORKERS = 2


def mutant_rows(count: int, seed: int, data: Path | None, scratch: Path) -> Iterator[Row]:
    """Reads mutants one by one and all at once; a row for every kind of mutation, and one for stage `prepare`."""
    originals = composed_originals(_COMPOSED, scratch / "composed")
    originals += real_originals(data, _REAL) if data is not None else []
    for original in originals:
        original.write(scratch / "originals")
    folder = scratch / "mutants"
    folder.mkdir()
    rows: dict[tuple[str, str], Row] = {}
    outcomes: dict[str, Outcome] = {}
    for mutant, outcome in read_all(mutants(originals, count, seed), folder, scratch / "originals"):
        outcomes[f"{mutant.name}.mid"] = outcome
        key = mutant.family, mutant.kind
        _count(rows.setdefault(key, _new_row(mutant)), mutant, outcome)
        if len(outcomes) % 500 == 0:
            print(f"{len(outcomes)} mutants, {sum(row['wrong'] for row in rows.values())} wrong", flush=True)
    yield from rows.values()
    yield {"kind": "stage=prepare", **bulk.prepare(folder, outcomes, scratch, _WORKERS)}


def _new_row(mutant: Mutant) -> Row:
    counts = dict.fromkeys(("files", "used", "rejected", "wrong", "slowest_sec"), 0)
    return {"family": mutant.family, "kind": mutant.kind, "may": mutant.may, **counts, "first": ""}


def _count(row: Row, mutant: Mutant, outcome: Outcome) -> None:
    row["files"] += 1
    row["rejected" if outcome.reason else "used"] += not outcome.problem or bool(outcome.reason)
    row["slowest_sec"] = round(max(row["slowest_sec"], outcome.seconds), 2)
    if outcome.problem:
        row["wrong"] += 1
        row["first"] = row["first"] or f"{mutant.name}: {outcome.problem}"


def damage_rows(
    values: int, seed: int, root: Path, scratch: Path, rebuilt: Iterable[str] = _REBUILT
) -> Iterator[Row]:
    """Damages artifacts and model directories; a row for every place and file."""
    (model,) = (path for path in (root / "artifacts" / "finetune").iterdir() if path.is_dir())
    rows: dict[tuple[str, str], Row] = {}
    found: list[Callable[[], Iterator[Case]]] = [
        lambda: model_cases(model, scratch, values, seed),
        lambda: given_cases(root, scratch, tiny),
        lambda: rebuilt_cases(root, scratch, tiny, tuple(rebuilt)),
    ]
    for cases in found:
        for case in cases():
            counts = dict.fromkeys(("cases", "told", "same", "wrong", "slowest_sec"), 0)
            new = {"place": case.place, "file": case.file, **counts, "first": ""}
            row = rows.setdefault((case.place, case.file), new)
            row["cases"] += 1
            row["wrong"] += bool(case.problem)
            row["told" if case.said else "same"] += not case.problem
            row["first"] = row["first"] or (f"{case.how}: {case.problem}" if case.problem else "")
            if case.place != "artifact that is reused":  # there the time is that of building it again
                row["slowest_sec"] = max(row["slowest_sec"], case.seconds)
    yield from rows.values()


def build_chain(root: Path) -> Path:
    """Runs the tiny chain once; returns its directory."""
    ending = isolated(lambda: bool(execute(tiny(root, "stage=generate"), root / "run")), limit_bytes=None)
    assert ending.value, f"{ending}: {SETTINGS} {places(root)}"
    return root


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--values", type=int, default=100, help="random absurd values in model directories")
    parser.add_argument("--kills", type=int, default=5, help="kills of each phase with each signal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder with pop909/ and asap/")
    parser.add_argument("--cases", type=Path, help="folder of small files with a README.md")
    parser.add_argument("--parts", default="mutants,damage,kills,disks,cases,writing,mistakes")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of results.jsonl, metrics.json and README.md"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hostile-input-") as folder:
        run_parts(args, Path(folder))


def run_parts(args: argparse.Namespace, scratch: Path) -> None:
    """Runs the parts asked for and publishes their rows beside those of the others."""
    chain = scratch / "chain"
    parts: dict[str, Callable[[Path], Iterator[Row]]] = {
        "mutants": lambda at: mutant_rows(args.mutants, args.seed, args.data, at),
        "damage": lambda at: damage_rows(args.values, args.seed, chain, at),
        "kills": lambda at: map(asdict, kill_all(chain, at, args.kills, args.seed)),
        "disks": lambda at: map(asdict, fill_disks(chain, at)),
        "cases": lambda at: case_rows(args.cases) if args.cases else iter(()),
        "writing": lambda at: write_all(args.data, _DEMO_PIECES, at),
        "mistakes": make,
    }
    wanted = [part for part in parts if part in args.parts.split(",")]
    if {"damage", "kills", "disks"} & set(wanted):
        build_chain(chain)
    wrong = 0
    for part in wanted:
        place = scratch / part
        place.mkdir()
        start = time.perf_counter()
        found = [{"part": part, **row} for row in parts[part](place)]
        found.append({"part": "seconds", "of": part, "seconds": round(time.perf_counter() - start)})
        shutil.rmtree(place)
        wrong += sum(_is_wrong(row) for row in found)
        rows = [
            row for row in read_rows(args.out / RESULTS) if part not in (row["part"], row.get("of"))
        ] + found
        rows.sort(key=lambda row: [*parts, "seconds"].index(row["part"]))
        publish(args.out, rows, headlines(rows), tables(rows))
        print(f"{part}: {found[-1]['seconds']} s", flush=True)
        for row in filter(_is_wrong, found):
            print(json.dumps(row, ensure_ascii=False), flush=True)
    if wrong:
        sys.exit(f"{wrong} rows with something wrong")


def _is_wrong(row: dict[str, Any]) -> bool:
    return bool(row.get("problem") or row.get("wrong") or row.get("differ"))


if __name__ == "__main__":
    main()
