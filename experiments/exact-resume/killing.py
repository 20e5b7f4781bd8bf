"""Kills training runs at random moments, resumes them and compares their artifacts with those of uninterrupted runs.

    python killing.py --kills 20 --out DIRECTORY

Every case of `CASES` in turn, tiny models on the CPU. A run is `python -m pianolm.run` in a process group of its own; a
kill is SIGKILL to the whole group.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comparison import differences, lost_rows, other_course
from report import headlines, tables
from runs import CASES, CHECKPOINT_EVERY, STEPS, VAL_EVERY, Case, Run, Timing, build_upstream

from experiments.results import publish

PHASES = ("step", "validation", "step", "checkpoint")
"""Phases of most kills; half of them lie in any step."""
DEFAULT_TIMING = Timing(startup=5, step=0.05, validation=0.1, publishing=0.1)


@dataclass(frozen=True)
class Moment:
    """When to kill: in the phase `phase` (start, step, validation, checkpoint, publishing) from step `step` on."""

    phase: str
    step: int


def draw_moments(count: int, steps: int, rng: random.Random) -> list[Moment]:
    """Draws random moments, ordered by step: half in any step, a quarter each in validations and checkpoint writes.

    With more than five moments the first lies before training and the last in the last validation, and one more is
    added while the artifact is published, which may come too late.
    """
    first = ["start"] if count > 5 else []
    last = ["validation", "publishing"] if count > 5 else []
    moments = [Moment(phase, 0) for phase in first]
    drawn = sorted(rng.randint(1, steps - 1) for _ in range(count - len(first) - len(last[:1])))
    phases = [PHASES[i % len(PHASES)] for i in range(len(drawn))]
    rng.shuffle(phases)
    for phase, step in zip(phases, drawn, strict=True):
        every = {"validation": VAL_EVERY, "checkpoint": CHECKPOINT_EVERY}.get(phase, 1)
        moments.append(Moment(phase, min(-(-step // every) * every, steps)))
    return [*moments, *(Moment(phase, steps) for phase in last)]


def kill_at(run: Run, moment: Moment, work: Path, timing: Timing, rng: random.Random) -> bool:
    """Waits for the moment and kills; False if the run ended before."""
    before = _stamped(work)  # files left by an earlier kill
    if moment.phase == "start":
        time.sleep(rng.uniform(0, timing.startup))
    elif moment.phase == "step":
        run.wait_for(lambda line: line.step >= moment.step)
        time.sleep(rng.uniform(0, timing.step))
    elif moment.phase == "validation":
        run.wait_for(lambda line: line.step >= moment.step)
        time.sleep(rng.uniform(0, timing.validation))
    elif moment.phase == "checkpoint":
        run.wait_for(lambda line: line.step >= moment.step - 1)
        while not _stamped(work) - before and run.process.poll() is None:
            pass  # writing takes milliseconds: sleeping would miss it
    elif moment.phase == "publishing":
        run.wait_for(lambda line: line.validation and line.step >= moment.step)
        time.sleep(rng.uniform(0, timing.publishing / 2))  # the other half is the end of the process
    return run.kill()


def unfinished_checkpoints(work: Path) -> list[Path]:
    """Partial checkpoint files, being written or left by a killed run."""
    return [path for folder in (work, work / "best") for path in folder.glob(".*.partial")]


def interrupted(run: Run, before: set[tuple[Path, int]], work: Path, steps: int) -> str:
    """The phase in which a run was killed, derived from its output and files."""
    if _stamped(work) - before:
        return "checkpoint"
    if not run.lines:
        return "start"
    last = run.lines[-1]
    if last.step == steps:
        return "publishing" if last.validation else "validation"
    return "validation" if not last.validation and last.step % VAL_EVERY == 0 else "step"


def _stamped(work: Path) -> set[tuple[Path, int]]:
    found = set()
    for path in unfinished_checkpoints(work):
        with contextlib.suppress(FileNotFoundError):  # renamed just now
            found.add((path, path.stat().st_mtime_ns))
    return found


@dataclass
class Outcome:
    """The result of a case.

    Attributes:
        kills: Number of kills by phase.
        resumed: Step that each run after a kill resumed from.
        differences: Between the artifacts of the uninterrupted and the killed run, one line each; should be empty.
        leftovers: Processes and files that should not exist.
        lost_rows: Steps whose row no run logged.
        seconds: Total time.
    """

    kills: Counter[str] = field(default_factory=Counter)
    resumed: list[int] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    lost_rows: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kills": sum(self.kills.values()),
            "during": dict(sorted(self.kills.items())),
            "resumed_from_step": self.resumed,
            "identical": not self.differences,
            "differences": self.differences,
            "leftovers": self.leftovers,
            "lost_log_rows_of_steps": self.lost_rows,
            "seconds": round(self.seconds),
        }


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run.

    Attributes:
        root: Directory of all its output.
        artifact: The artifact it published.
        timing: Duration of its phases.
    """

    root: Path
    artifact: Path
    timing: Timing = DEFAULT_TIMING


def uninterrupted(case: Case, upstream: Path, root: Path, steps: int = STEPS) -> Reference:
    """Trains a case without kills."""
    shutil.copytree(upstream, root / "artifacts")
    with Run(case.overrides(steps), root) as run:
        run.finish()
        timing = Timing.of(run)
    return Reference(root, published(root, case.stage, upstream), timing)


def train_with_kills(
    case: Case,
    reference: Reference,
    upstream: Path,
    root: Path,
    kills: int,
    seed: int,
    steps: int = STEPS,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Trains a case with kills and compares it with the uninterrupted run.

    Args:
        case: What is trained.
        reference: The uninterrupted run of the same case.
        upstream: Artifacts' directory with everything the stage needs.
        root: Directory of all output.
        kills: Number of kills.
        seed: Seed of the moments.
        steps: Optimizer steps.
        say: Prints a line of progress.
    """
    started, outcome, rng = time.monotonic(), Outcome(), random.Random(seed)
    shutil.copytree(upstream, root / "artifacts")
    work = root / "work" / case.stage / reference.artifact.name
    for moment in draw_moments(kills, steps, rng):
        before = _stamped(work)
        with Run(case.overrides(steps), root) as run:
            killed = kill_at(run, moment, work, reference.timing, rng)
        outcome.leftovers += run.orphans()
        assert killed or run.process.returncode == 0, run.text
        if not killed:
            say(f"  aimed at {moment.phase} {moment.step}: it had ended")
            break
        found = interrupted(run, before, work, steps)
        say(f"  aimed at {moment.phase} {moment.step}: {found}, {_resumed(run)} → {_reached(run)}")
        outcome.kills[found] += 1
        outcome.resumed.append(_resumed(run))
    with Run(case.overrides(steps), root) as run:
        run.finish()
    outcome.resumed.append(_resumed(run))
    outcome.leftovers += run.orphans()
    outcome.leftovers += [str(path) for path in leftovers(root, case.stage)]
    outcome.differences = [
        *differences(reference.artifact, published(root, case.stage, upstream)),
        *other_course(reference.root, root),
    ]
    outcome.lost_rows = lost_rows(reference.root, root)
    outcome.seconds = time.monotonic() - started
    return outcome


def _resumed(run: Run) -> int:
    found = re.search(r"continues from step (\d+)", "\n".join(run.output))
    return int(found[1]) if found else 0


def _reached(run: Run) -> int:
    return run.lines[-1].step if run.lines else _resumed(run)


def published(root: Path, stage: str, upstream: Path) -> Path:
    """The artifact of a stage that `upstream` does not have."""
    folder = root / "artifacts" / stage
    old = {path.name for path in (upstream / stage).iterdir()} if (upstream / stage).is_dir() else set()
    found = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in old]
    assert len(found) == 1, found
    return found[0]


def leftovers(root: Path, stage: str) -> list[Path]:
    """Unfinished artifacts and checkpoints after the end of training."""
    return [*(root / "artifacts").rglob("*.partial"), *(root / "work" / stage).rglob("*.*")]


def measure(name: str, number: int, upstream: Path, root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Runs one case and returns its row of results.jsonl."""
    case = CASES[name]
    reference = uninterrupted(case, upstream, root / "uninterrupted", args.steps)
    outcome = train_with_kills(
        *(case, reference, upstream, root / "killed", args.kills, args.seed + number, args.steps),
        say=lambda line: print(line, flush=True),
    )
    settings = {"steps": args.steps, "validation_every": VAL_EVERY}
    settings |= {"checkpoint_every": CHECKPOINT_EVERY, "seed": args.seed}
    return {"case": name, **settings, **outcome.as_json()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills of each case")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--out", type=Path, help="folder of results.jsonl, metrics.json and README.md")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the current run ends too
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        upstream = build_upstream(Path(scratch) / "upstream")
        for number, name in enumerate(CASES):
            if args.only not in name:
                continue
            print(name, flush=True)
            rows.append(measure(name, number, upstream, Path(scratch) / f"case{number}", args))
            print(f"  {json.dumps(rows[-1])}", flush=True)
            if args.out:
                publish(args.out, rows, headlines(rows), tables(rows))
    bad = [row["case"] for row in rows if not row["identical"] or row["leftovers"]]
    sys.exit(f"not identical, or leftovers: {'; '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
