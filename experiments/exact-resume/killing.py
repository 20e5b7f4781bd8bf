"""Kills training runs at random moments, resumes them and compares their artifacts with those of uninterrupted runs.

    python killing.py --kills 20 --out DIRECTORY

Every case of `CASES` in turn, tiny models on the CPU. A run is `python -m pianolm.run` in a process group of its own; a
kill is SIGKILL to the whole group.
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
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from report import headlines, tables

from experiments.results import publish
from pianolm.run import CONFIG_DIR, execute

STEPS, VAL_EVERY, CHECKPOINT_EVERY = 160, 15, 10
"""The last step is no multiple of 15; every other validation before it coincides with a checkpoint."""

SHARED = (
    "data.pieces=8",
    "data.validation_fraction=0",  # on training pieces the last weights are the best, so that all kills come before
    "model.width=32",
    "model.layers=1",
    "model.heads=2",
    "model.kv_heads=2",
    "model.ffn=48",
    "trainer.context=64",
    "trainer.batch_tokens=256",
    "trainer.warmup_steps=2",
    "velvq.codebook_size=32",
    "velvq.batch_cells=64",
    "velvq.max_steps=6",
    "velvq.val_every=3",
    "hardware=cpu",
    "logger=csv",
    "compute.threads=1",
    "model.dropout=0.1",
    "trainer.learning_rate=1e-3",
    "trainer.val_tokens=2048",
    "callbacks.lines_every=1",
    "callbacks.log_every=1",
)
NOT_COMPARED = re.compile(r"second|memory|resumed_from_step|epoch")
"""Metrics that depend on the machine or on where a run was interrupted."""

_LINE = re.compile(r"^  step (\d+)/(\d+)  (.*)$")
_PATIENCE_SEC = 240


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        stage: base, finetune or velvq.
        processes: 1 or 2.
        settings: Overrides that change this stage only, so that all cases share the upstream artifacts.
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


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved configuration as `pianolm.run` hands it to a stage."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return OmegaConf.to_container(compose("config", list(overrides)), resolve=True)  # type: ignore[return-value]


def build_upstream(root: Path, stage: str = "finetune", *overrides: str) -> Path:
    """Builds a stage and its upstream artifacts with tiny settings; returns the artifacts' directory."""
    execute(composed(*SHARED, *places(root), f"stage={stage}", *overrides), root / "run")
    return root / "artifacts"


def places(root: Path) -> list[str]:
    """Overrides that put all output below `root`."""
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
        validation: True for a validation, False for a training step.
    """

    seconds: float
    step: int
    validation: bool


class Run:
    """A training command in a process group of its own; leaving the `with` block kills it."""

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
        """Waits for a line of progress; False if the run ends without it."""
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
        """SIGKILL to the group; False if the run had ended by itself."""
        alive = self.process.poll() is None
        if alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(10)
        return alive and self.process.returncode == -signal.SIGKILL

    def finish(self) -> None:
        """Waits for the end and asserts exit code 0."""
        assert self.process.wait(_PATIENCE_SEC) == 0, self.text
        self._reader.join(10)

    @property
    def text(self) -> str:
        """The last lines it printed."""
        return "\n".join(self.output[-40:])

    def orphans(self) -> list[str]:
        """Command lines of processes of the group that still run."""
        found = []
        for process in psutil.process_iter(["pid", "status", "cmdline"]):
            try:
                same = os.getpgid(process.pid) == self.process.pid
            except (ProcessLookupError, PermissionError):
                continue
            # a process that was just killed has no command line any more and may not be a zombie yet
            if same and process.info["status"] != psutil.STATUS_ZOMBIE and process.info["cmdline"]:
                found.append(" ".join(process.info["cmdline"]))
        return found


@dataclass(frozen=True)
class Timing:
    """Seconds that each phase takes in an uninterrupted run; random delays are drawn from them."""

    startup: float
    step: float
    validation: float
    publishing: float

    @classmethod
    def of(cls, run: Run) -> Timing:
        """Measures the phases from a run's lines, just after its end."""
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
    moments = [Moment(aim, 0) for aim in first]
    drawn = sorted(rng.randint(1, steps - 1) for _ in range(count - len(first) - len(last[:1])))
    aims = [AIMS[i % len(AIMS)] for i in range(len(drawn))]
    rng.shuffle(aims)
    for aim, step in zip(aims, drawn, strict=True):
        every = {"validation": VAL_EVERY, "checkpoint": CHECKPOINT_EVERY}.get(aim, 1)
        moments.append(Moment(aim, min(-(-step // every) * every, steps)))
    return [*moments, *(Moment(aim, steps) for aim in last)]


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
    timing: Timing = Timing(startup=5, step=0.05, validation=0.1, publishing=0.1)


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
    found = re.search(r"goes on from step (\d+)", "\n".join(run.output))
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


def differences(expected: Path, found: Path) -> Iterator[str]:
    """Compares two artifacts file by file; yields a line for each file that differs."""
    names = [
        {path.relative_to(a).as_posix() for path in a.rglob("*") if path.is_file()} for a in (expected, found)
    ]
    for name in sorted(names[0] ^ names[1]):
        yield f"{name}: only in the {'uninterrupted' if name in names[0] else 'killed'} run's artifact"
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
            yield f"{key}: {values[0]} uninterrupted, {values[1]} killed"
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
    """Values that all runs below `root` logged, by step and metric; more than one value where they disagree."""
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
    """Yields a line on the first step whose logged values differ or, except for `lost_rows`, are missing."""
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
        found_values = f"{values[0]} uninterrupted, {values[1]} killed"
        yield f"{len(other)} logged values, first {name} of step {at + 1}: {found_values}"


def lost_rows(expected_root: Path, found_root: Path) -> list[int]:
    """Steps with a checkpoint and without a validation whose row the killed runs did not log.

    The row is written after the checkpoint: after a kill between the two no run repeats the step.
    """
    expected, found = course(expected_root), course(found_root)
    validated = {at for at, name in expected if name.startswith("val/")}
    lost = {at for at, _ in expected.keys() - found.keys()} - validated
    return sorted(at + 1 for at in lost if (at + 1) % CHECKPOINT_EVERY == 0)


_STATES = ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "random_states")
"""Parts of a checkpoint that determine how training continues; the others hold paths and times."""


def _other_states(a: Path, b: Path) -> Iterator[str]:
    left, right = (
        dict(_leaves({name: saved[name] for name in _STATES}))
        for saved in (torch.load(path, weights_only=True) for path in (a, b))
    )
    other = [name for name in left.keys() | right.keys() if left.get(name) != right.get(name)]
    if other:
        yield f"{a.name}: {len(other)} of {len(left)} values, {min(other)} for one"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of nested containers by their path, tensors as bytes."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for key, inner in enumerate(value):
            yield from _leaves(inner, f"{name}/{key}")
    else:
        yield name, value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


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
