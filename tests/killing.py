"""Kills training runs at random moments, starts them again and compares what they publish with unbroken runs.

`python -m tests.killing --kills 20 --out results.json`: every case of `CASES` in turn, tiny models on the CPU.
A run is `python -m pianolm.run` in a process group of its own; a kill is SIGKILL to the whole group.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import torch

from pianolm.run import execute

from .tiny import TINY, composed

STEPS, VAL_EVERY, CHECKPOINT_EVERY = 160, 15, 10
"""The last step is no multiple of 15; of the validations before it every other one meets a checkpoint."""

SHARED = (
    *TINY,
    "data.validation_fraction=0",  # on training pieces the last weights are the best, so that all kills come before
    "model.dropout=0.1",
    "trainer.learning_rate=1e-3",
    "trainer.val_tokens=2048",
    "callbacks.lines_every=1",
    "callbacks.log_every=1",
)
NOT_COMPARED = re.compile(r"second|memory|resumed_from_step|epoch")
"""Metrics of the machine rather than of the training, and a number that means nothing here."""

_LINE = re.compile(r"^  step (\d+)/(\d+)  (.*)$")
_PATIENCE_SEC = 240


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        stage: base, finetune or velvq.
        processes: 1 or 2.
        settings: Overrides that reach this stage alone, so that its upstream artifacts are shared by all cases.
    """

    stage: str
    processes: int
    settings: tuple[str, ...] = ()

    def overrides(self, steps: int = STEPS) -> list[str]:
        """The command line without its paths."""
        return [
            *SHARED,
            f"stage={self.stage}",
            f"{self.stage}.max_steps={steps}",
            f"{self.stage}.val_every={VAL_EVERY}",
            f"callbacks.checkpoint_every={CHECKPOINT_EVERY}",
            f"hardware={'cpu' if self.processes == 1 else 'ddp_cpu'}",
            *self.settings,
        ]


_ACCUMULATED = "base.micro_batch_tokens=64"
CASES = {
    f"{name}, {processes} process{'es' * (processes > 1)}": Case(stage, processes, settings)
    for name, stage, settings in (
        ("base", "base", (_ACCUMULATED,)),
        ("finetune", "finetune", ()),
        ("velvq=segment", "velvq", ("velvq=segment", "velvq.learning_rate=0.02")),
        ("velvq=frame", "velvq", ("velvq=frame", "velvq.learning_rate=0.003")),
    )
    for processes in (1, 2)
}


def build_upstream(root: Path, stage: str = "finetune", *overrides: str) -> Path:
    """The artifact of a stage and all it needs, quickly made; returns the artifacts' directory."""
    execute(composed(*SHARED, *places(root), f"stage={stage}", *overrides), root / "run")
    return root / "artifacts"


def places(root: Path) -> list[str]:
    """Overrides that put all that is written below `root`."""
    return [
        f"paths.artifacts={root}/artifacts",
        f"paths.work={root}/work",
        f"paths.outputs={root}/outputs",
    ]


@dataclass(frozen=True)
class Line:
    """A line of progress.

    Attributes:
        seconds: When it was read.
        step: Optimizer steps done.
        validation: Whether it tells of a validation; else of a training step.
    """

    seconds: float
    step: int
    validation: bool


class Run:
    """A training command in a process group of its own, which ends with the `with` block at the latest."""

    def __init__(self, overrides: list[str], root: Path) -> None:
        (root / "tmp").mkdir(parents=True, exist_ok=True)
        self.lines: list[Line] = []
        self.output: list[str] = []
        self._news = threading.Condition()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pianolm.run", *overrides, *places(root)],
            cwd=root,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(root / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()

    def _read(self) -> None:
        assert self.process.stdout is not None, "a pipe"
        with self.process.stdout as pipe:
            for text in pipe:
                found = _LINE.match(text)
                with self._news:
                    self.output.append(text.rstrip("\n"))
                    if found:
                        validation = found[3].startswith("val/")
                        self.lines.append(Line(time.monotonic(), int(found[1]), validation))
                    self._news.notify_all()

    def wait_for(self, condition: Callable[[Line], bool]) -> bool:
        """Waits for a line of progress; False where the run ended without it."""
        seen = 0
        with self._news:
            while True:
                if any(condition(line) for line in self.lines[seen:]):
                    return True
                seen = len(self.lines)
                if self.process.poll() is not None:
                    return False
                self._news.wait(0.2)
                assert time.monotonic() - self.started < _PATIENCE_SEC, self.text

    def kill(self) -> bool:
        """SIGKILL to the group; False where the run had ended by itself."""
        alive = self.process.poll() is None
        if alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(10)
        return alive and self.process.returncode == -signal.SIGKILL

    def finish(self) -> None:
        """Waits for the end, which has to be a good one."""
        assert self.process.wait(_PATIENCE_SEC) == 0, self.text
        self._reader.join(10)

    @property
    def text(self) -> str:
        """What it printed, the end of it."""
        return "\n".join(self.output[-40:])

    def orphans(self) -> list[str]:
        """Processes of the group that are still there."""
        found = []
        for process in psutil.process_iter(["pid", "status", "cmdline"]):
            try:
                same = os.getpgid(process.pid) == self.process.pid
            except (ProcessLookupError, PermissionError):
                continue
            # one that was killed just now has lost its command line and is no zombie yet
            if same and process.info["status"] != psutil.STATUS_ZOMBIE and process.info["cmdline"]:
                found.append(" ".join(process.info["cmdline"]))
        return found


@dataclass(frozen=True)
class Pace:
    """Seconds that things take in an unbroken run, which random delays are drawn from."""

    startup: float
    step: float
    validation: float
    publishing: float

    @classmethod
    def of(cls, run: Run) -> Pace:
        """Measured from a run's lines, just after its end."""
        pairs = list(zip(run.lines, run.lines[1:], strict=False))
        steps = [b.seconds - a.seconds for a, b in pairs if not a.validation and not b.validation]
        validations = [b.seconds - a.seconds for a, b in pairs if not a.validation and b.validation]
        return cls(
            startup=run.lines[0].seconds - run.started,
            step=statistics.median(steps),
            validation=statistics.median(validations),
            publishing=time.monotonic() - run.lines[-1].seconds,
        )


AIMS = ("step", "validation", "step", "checkpoint")


@dataclass(frozen=True)
class Moment:
    """When to kill: `aim` is start, step, validation, checkpoint or publishing; from optimizer step `step` on."""

    aim: str
    step: int


def draw_moments(count: int, steps: int, rng: random.Random) -> list[Moment]:
    """Random moments in the order of their steps: half of them at any step, a quarter each aimed at a validation and
    at the writing of a checkpoint. Of many, the first comes before training and the last in the last validation, and
    one more while the artifact is published, which may come too late."""
    first = ["start"] if count > 5 else []
    last = ["validation", "publishing"] if count > 5 else []
    moments = [Moment(aim, 0) for aim in first]
    drawn = sorted(rng.randint(1, steps - 1) for _ in range(count - len(first) - len(last[:1])))
    aims = [AIMS[i % len(AIMS)] for i in range(len(drawn))]
    rng.shuffle(aims)
    for aim, step in zip(aims, drawn, strict=True):
        every = {"validation": VAL_EVERY, "checkpoint": CHECKPOINT_EVERY}.get(aim, 1)
        moments.append(Moment(aim, min(-(-step // every) * every, steps)))
    return [*moments, *(Moment(aim, steps) for aim in last)]


def kill_at(run: Run, moment: Moment, work: Path, pace: Pace, rng: random.Random) -> bool:
    """Waits for the moment and kills; False where the run ended before."""
    before = _stamped(work)  # what an earlier kill left
    if moment.aim == "start":
        time.sleep(rng.uniform(0, pace.startup))
    elif moment.aim == "step":
        run.wait_for(lambda line: line.step >= moment.step)
        time.sleep(rng.uniform(0, pace.step))
    elif moment.aim == "validation":
        run.wait_for(lambda line: line.step >= moment.step)
        time.sleep(rng.uniform(0, pace.validation))
    elif moment.aim == "checkpoint":
        run.wait_for(lambda line: line.step >= moment.step - 1)
        while not _stamped(work) - before and run.process.poll() is None:
            pass  # writing takes milliseconds: a nap would miss it
    elif moment.aim == "publishing":
        run.wait_for(lambda line: line.validation and line.step >= moment.step)
        time.sleep(rng.uniform(0, pace.publishing / 2))  # the other half is the end of the process
    return run.kill()


def unfinished_checkpoints(work: Path) -> list[Path]:
    """Files of checkpoints that are being written, or were when the run was killed."""
    return [path for folder in (work, work / "best") for path in folder.glob(".*.partial")]


def struck(run: Run, before: set[tuple[Path, int]], work: Path, steps: int) -> str:
    """What the run was doing when it was killed, by what it had printed and left."""
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
    """What came of a case.

    Attributes:
        kills: By what was going on.
        resumed: Step that each run after a kill went on from.
        differences: Between the unbroken run's artifact and the other's, a line each; empty is what is wanted.
        leftovers: Processes and files that should not be there.
        lost_rows: Steps of which no run logged a row.
        seconds: In all.
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
class Whole:
    """An unbroken run.

    Attributes:
        root: All that it wrote.
        artifact: What it published.
        pace: How long things took.
    """

    root: Path
    artifact: Path
    pace: Pace = Pace(startup=5, step=0.05, validation=0.1, publishing=0.1)


def unbroken(case: Case, upstream: Path, root: Path, steps: int = STEPS) -> Whole:
    """Trains a case in one go."""
    shutil.copytree(upstream, root / "artifacts")
    with Run(case.overrides(steps), root) as run:
        run.finish()
        pace = Pace.of(run)
    return Whole(root, published(root, case.stage, upstream), pace)


def prove(
    case: Case,
    whole: Whole,
    upstream: Path,
    root: Path,
    kills: int,
    seed: int,
    steps: int = STEPS,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Trains a case with kills, and compares.

    Args:
        case: What is trained.
        whole: The same unbroken.
        upstream: Artifacts' directory that holds what the stage needs.
        root: Everything is written below it.
        kills: How many.
        seed: Of the moments.
        steps: Optimizer steps.
        say: Prints a line of progress.
    """
    started, outcome, rng = time.monotonic(), Outcome(), random.Random(seed)
    shutil.copytree(upstream, root / "artifacts")
    work = root / "work" / case.stage / whole.artifact.name
    for moment in draw_moments(kills, steps, rng):
        before = _stamped(work)
        with Run(case.overrides(steps), root) as run:
            killed = kill_at(run, moment, work, whole.pace, rng)
        outcome.leftovers += run.orphans()
        assert killed or run.process.returncode == 0, run.text
        if not killed:
            say(f"  aimed at {moment.aim} {moment.step}: it had ended")
            break
        found = struck(run, before, work, steps)
        say(f"  aimed at {moment.aim} {moment.step}: {found}, {_resumed(run)} → {_reached(run)}")
        outcome.kills[found] += 1
        outcome.resumed.append(_resumed(run))
    with Run(case.overrides(steps), root) as run:
        run.finish()
    outcome.resumed.append(_resumed(run))
    outcome.leftovers += run.orphans()
    outcome.leftovers += [str(path) for path in leftovers(root, case.stage)]
    outcome.differences = [
        *differences(whole.artifact, published(root, case.stage, upstream)),
        *other_course(whole.root, root),
    ]
    outcome.lost_rows = lost_rows(whole.root, root)
    outcome.seconds = time.monotonic() - started
    return outcome


def _resumed(run: Run) -> int:
    found = re.search(r"goes on from step (\d+)", "\n".join(run.output))
    return int(found[1]) if found else 0


def _reached(run: Run) -> int:
    return run.lines[-1].step if run.lines else _resumed(run)


def published(root: Path, stage: str, upstream: Path) -> Path:
    """The artifact of a stage that was not there before."""
    folder = root / "artifacts" / stage
    old = {path.name for path in (upstream / stage).iterdir()} if (upstream / stage).is_dir() else set()
    found = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in old]
    assert len(found) == 1, found
    return found[0]


def leftovers(root: Path, stage: str) -> list[Path]:
    """Unfinished artifacts and checkpoints after the end."""
    return [*(root / "artifacts").rglob("*.partial"), *(root / "work" / stage).rglob("*.*")]


def differences(expected: Path, found: Path) -> Iterator[str]:
    """Compares two artifacts file by file, a line for each that differs."""
    names = [
        {path.relative_to(a).as_posix() for path in a.rglob("*") if path.is_file()} for a in (expected, found)
    ]
    for name in sorted(names[0] ^ names[1]):
        yield f"{name}: only in the {'unbroken' if name in names[0] else 'killed'} run's artifact"
    for name in sorted(names[0] & names[1]):
        a, b = expected / name, found / name
        if name == "artifact.json":
            yield from _other_metrics(a, b)
        elif name.endswith(".ckpt"):
            yield from _other_states(a, b)
        elif name != "config.yaml" and a.read_bytes() != b.read_bytes():  # which holds the run's own paths
            how = _other_tensors(a, b) if name.endswith(".safetensors") else "other bytes"
            yield f"{name}: {how}"


def _other_metrics(a: Path, b: Path) -> Iterator[str]:
    left, right = (json.loads(path.read_text()) for path in (a, b))
    for key in sorted(left["metrics"].keys() | right["metrics"].keys()):
        values = [record["metrics"].get(key) for record in (left, right)]
        if not NOT_COMPARED.search(key) and values[0] != values[1]:
            yield f"{key}: {values[0]} unbroken, {values[1]} killed"
    for key in ("stage", "fingerprint", "upstream"):
        if left[key] != right[key]:
            yield f"{key} of artifact.json"


def _other_tensors(a: Path, b: Path) -> str:
    from safetensors.numpy import load_file

    left, right = load_file(a), load_file(b)
    other = [name for name in left if name not in right or left[name].tobytes() != right[name].tobytes()]
    return f"{len(other)} of {len(left)} tensors differ"


Course = dict[tuple[int, str], set[str]]


def course(root: Path) -> Course:
    """What all runs below `root` logged, by step and metric; more than one value where they disagree."""
    found: Course = defaultdict(set)
    for path in root.rglob("metrics.csv"):
        header, *rows = path.read_text().split("\n")
        names = header.split(",")
        for row in rows[:-1]:  # after the last line break there is nothing, or half a row
            values = dict(zip(names, row.split(","), strict=True))
            for name, value in values.items():
                if value and name != "step" and not NOT_COMPARED.search(name):
                    found[int(values["step"]), name].add(value)
    return found


def other_course(expected_root: Path, found_root: Path) -> Iterator[str]:
    """The first step at which what was logged differs or, but for `lost_rows`, is missing."""
    expected, found = course(expected_root), course(found_root)
    lost = {step - 1 for step in lost_rows(expected_root, found_root)}
    other = sorted(
        (at, name)
        for at, name in expected.keys() | found.keys()
        if expected.get((at, name)) != found.get((at, name)) and not (at in lost and (at, name) not in found)
    )
    if other:
        at, name = other[0]
        values = [", ".join(sorted(log.get((at, name), {"nothing"}))) for log in (expected, found)]
        yield f"{len(other)} logged values, first {name} of step {at + 1}: {values[0]} unbroken, {values[1]} killed"


def lost_rows(expected_root: Path, found_root: Path) -> list[int]:
    """Steps with a checkpoint and without a validation of which the killed runs lack the row of the log.

    The row is written after the checkpoint; a kill between the two leaves a step that is done and no run does again.
    """
    expected, found = course(expected_root), course(found_root)
    validated = {at for at, name in expected if name.startswith("val/")}
    lost = {at for at, _ in expected.keys() - found.keys()} - validated
    return sorted(at + 1 for at in lost if (at + 1) % CHECKPOINT_EVERY == 0)


_STATES = ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "random_states")
"""What of a checkpoint determines how training goes on; the rest holds paths and times."""


def _other_states(a: Path, b: Path) -> Iterator[str]:
    left, right = (
        dict(_leaves({name: saved[name] for name in _STATES}))
        for saved in (torch.load(path, weights_only=True) for path in (a, b))
    )
    other = [name for name in left.keys() | right.keys() if left.get(name) != right.get(name)]
    if other:
        yield f"{a.name}: {len(other)} of {len(left)} values, {min(other)} for one"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested containers by its place, tensors as their bytes."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for key, inner in enumerate(value):
            yield from _leaves(inner, f"{name}/{key}")
    else:
        yield name, value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each case")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--out", type=Path, help="results as JSON")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the run underway ends too
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        upstream = build_upstream(Path(scratch) / "upstream")
        for number, (name, case) in enumerate(CASES.items()):
            if args.only not in name:
                continue
            print(name, flush=True)
            root = Path(scratch) / f"case{number}"
            whole = unbroken(case, upstream, root / "unbroken", args.steps)
            outcome = prove(
                case,
                whole,
                upstream,
                root / "killed",
                args.kills,
                args.seed + number,
                args.steps,
                lambda line: print(line, flush=True),
            )
            results[name] = outcome.as_json()
            print(f"  {json.dumps(results[name])}", flush=True)
            if args.out:
                settings = {"steps": args.steps, "validation_every": VAL_EVERY}
                settings |= {"checkpoint_every": CHECKPOINT_EVERY, "seed": args.seed}
                args.out.write_text(json.dumps({**settings, "cases": results}, indent=1) + "\n")
    bad = [name for name, result in results.items() if not result["identical"] or result["leftovers"]]
    sys.exit(f"not identical, or not tidy: {'; '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
