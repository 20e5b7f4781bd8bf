"""Trains the same Llama on the same notes in different tokenizations, and compares bits per note.

    python compare.py --plan trial --data asap --root PATH

A job trains one model and adds a row to results.jsonl. A job with a row is skipped, so an interrupted run continues
with the same command. Several processes may run the same command, one thread each: a job belongs to the first that
locks it. `--report` only writes tables and pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from corpus import Corpus
from filelock import FileLock, Timeout
from miditok_tokens import MIDITOK, MidiTokTokens
from report import CONSTRAINED, draw, headlines, tables
from representations import MODES, PianoTokens, Tokens, digest
from scoring import figures, score
from training import MUON_OVER_ADAMW, WEIGHT_DECAY, Curve, NotesModule, train
from transformers import LlamaForCausalLM

from experiments.results import (
    METRICS,
    README,
    RESULTS,
    Row,
    append_row,
    read_rows,
    replace_section,
    write_metrics,
)
from pianolm.lm.model import build_llama, count_parameters
from pianolm.tokenizer.features import token_features
from pianolm.training.trainer import keep_freed_memory

HERE = Path(__file__).resolve().parent
SIDES = ("pianolm-table", "pianolm-codebook", *MIDITOK)
NETWORK = 4
"""Raised when initialisation or training changes, so that rows from before are not compared with new ones."""


@dataclass(frozen=True)
class Plan:
    """Sizes of a comparison.

    Attributes:
        width, layers, heads, ffn: Of the Llama.
        window: Tokens of a window.
        batch: Windows per step.
        notes: Notes to train on.
        validation_notes: Notes to score after training.
        curve_notes: Notes to score during training.
        learning_rates: Peak learning rates of AdamW to try.
        warmup: Fraction of the notes over which the learning rate rises.
        points: Number of scores during training.
    """

    width: int
    layers: int
    heads: int
    ffn: int
    window: int
    batch: int
    notes: int
    validation_notes: int
    curve_notes: int
    learning_rates: tuple[float, ...]
    warmup: float = 0.1
    points: int = 4


PLANS = {
    "trial": Plan(256, 4, 4, 640, 512, 2, 500_000, 30_000, 3_000, (5e-4, 1e-3, 2e-3)),
    "small": Plan(128, 3, 4, 256, 256, 2, 40_000, 4_000, 1_000, (1e-3, 2e-3)),
    "smoke": Plan(64, 2, 2, 128, 128, 4, 3_000, 1_000, 500, (4e-3,)),
}
BODY = {"kv_heads": None, "rope_theta": 10000.0, "dropout": 0.0, "init": "induction"}
DEMO = {"data.pieces": 240, "velvq.max_steps": 300, "velvq.val_every": 150}
"""Overrides for the demo data."""


@dataclass(frozen=True)
class Job:
    """One model to train."""

    data: str
    mode: str
    tokens: str
    embedding: str
    options: str
    optimizer: str
    learning_rate: float
    seed: int
    notes: int
    precision: str


def run_job(job: Job, plan: Plan, tokens: Tokens, corpus: Corpus, device: str) -> Row:
    """Trains one model and scores it; returns its row without the job."""
    torch.manual_seed(job.seed)
    model = build_model(job, plan, tokens)
    on_curve, curve_notes, curve = corpus.encoded(tokens, corpus.curve), corpus.notes(corpus.curve), []

    def score_curve(seen: int) -> None:
        bits = score(model, tokens, on_curve)
        free, constrained = (sum(float(b[i].sum()) for b in bits) / curve_notes for i in (0, 1))
        curve.append((seen, round(free, 4), round(constrained, 4)))
        print(f"{name_of(job)}: {seen:,} notes, {free:.2f} bits per note", flush=True)

    constrained = CONSTRAINED in job.options.split()
    optimizer = job.optimizer, job.learning_rate
    module = NotesModule(model, tokens, *optimizer, plan.warmup, job.notes, constrained)
    trained = train(
        module,
        corpus.encoded(tokens, corpus.train),
        *(plan.window, plan.batch, job.seed),
        Curve(job.notes, plan.points, score_curve),
        device,
        job.precision,
    )
    return {
        **figures(model.to(device), tokens, corpus),
        "seconds_per_note": trained.seconds / trained.notes,
        "train_seconds": round(trained.seconds, 1),
        "notes_seen": trained.notes,
        "steps": trained.steps,
        "parameters": count_parameters(model),
        "vocabulary": tokens.type_V.size,
        "tokens_fingerprint": tokens.fingerprint,
        "curve": curve,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def build_model(job: Job, plan: Plan, tokens: Tokens) -> LlamaForCausalLM:
    """The network of a job, with fresh weights."""
    sizes = {name: getattr(plan, name) for name in ("width", "layers", "heads", "ffn")}
    settings = {**sizes, **BODY, "embedding": job.embedding}
    features = None
    if job.embedding == "codebook":
        assert isinstance(tokens, PianoTokens), "only pianolm's ids have features"
        features = token_features(tokens.tokenizer)
    marks = (tokens.pad, tokens.bos, tokens.eos)
    return build_llama(settings, tokens.type_V.size, *marks, plan.window, features)


def name_of(job: Job) -> str:
    side = f"pianolm-{job.embedding}" if job.tokens == "pianolm" else job.tokens
    learning = f"{job.optimizer} {job.learning_rate:g} seed {job.seed}"
    return f"{job.data} {job.mode} {f'{side} {job.options}'.strip()} {learning}"


class Results:
    """The rows of `results.jsonl`, which several processes add to."""

    def __init__(self, out: Path, work: Path) -> None:
        self.path, self.lock = out / RESULTS, FileLock(work / "results.lock")

    def rows(self) -> list[Row]:
        """The rows of the present network; rows of others stay in the file and are not compared."""
        return [row for row in read_rows(self.path) if row["job"].get("network") == NETWORK]

    def add(self, row: Row) -> None:
        with self.lock:
            append_row(self.path, row)

    def has(self, job: dict[str, Any]) -> bool:
        return any(row["job"] == job for row in self.rows())


def built(arguments: argparse.Namespace, stage: str, options: str = "") -> Path:
    """The artifact of a stage, built if missing; options are those of a job."""
    artifacts, work = arguments.artifacts, arguments.work
    settings: dict[str, Any] = {"data": arguments.data, "logger": "csv", "compute.threads": 1}
    settings |= {"paths.artifacts": artifacts, "paths.work": artifacts / ".work"}
    settings |= DEMO if arguments.data == "demo" else {"data.root": arguments.root}
    overrides = [f"{key}={value}" for key, value in settings.items()]
    overrides += [f"tokenizer.{option}" for option in options.split() if option != CONSTRAINED]
    with tempfile.TemporaryDirectory(dir=work) as run_dir:
        command = [
            sys.executable,
            "-m",
            "pianolm.run",
            f"stage={stage}",
            *overrides,
            f"hydra.run.dir={run_dir}",
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)
        return Path(json.loads(Path(run_dir, METRICS).read_text())["artifact"])


def tokens_of(job: Job, arguments: argparse.Namespace) -> Tokens:
    """The tokenization of a job."""
    if job.tokens in MIDITOK:
        return MidiTokTokens(job.tokens, job.mode)
    return PianoTokens(built(arguments, "tokenize", job.options), job.mode)


def jobs_of(arguments: argparse.Namespace, plan: Plan) -> list[Job]:
    """All jobs, ordered by seed, learning rate and side, so that an interrupted run can already be compared."""
    factor = MUON_OVER_ADAMW if arguments.optimizer == "muon" else 1
    rates = arguments.learning_rates or [factor * rate for rate in plan.learning_rates]
    found = []
    for seed, mode, rate, name in product(arguments.seeds, arguments.modes, rates, arguments.sides):
        tokens, _, embedding = name.partition("-")
        for options in arguments.options or [[]] if tokens == "pianolm" else [[]]:
            constrained = arguments.constrained or CONSTRAINED in options
            names = [*sorted({*options} - {CONSTRAINED}), *([CONSTRAINED] if constrained else [])]
            side = tokens, embedding or "table", " ".join(names)
            learning = arguments.optimizer, rate, seed, plan.notes, arguments.precision
            found.append(Job(arguments.data, mode, *side, *learning))
    return found


def work_through(arguments: argparse.Namespace, plan: Plan, results: Results) -> None:
    """Runs every job that has no row and that no other process has locked."""
    notes = plan.notes, plan.validation_notes, plan.curve_notes
    corpus = Corpus.choose(built(arguments, "prepare"), *notes, arguments.work / "tokens")
    tokenizations: dict[tuple[str, str, str], Tokens] = {}
    for job in jobs_of(arguments, plan):
        identity = identity_of(job, arguments.plan, plan)
        taken = FileLock(arguments.work / f"{digest(identity)}.lock")
        try:
            with taken.acquire(blocking=False):
                if results.has(identity):
                    continue
                key = job.tokens, job.mode, job.options
                if key not in tokenizations:
                    tokenizations[key] = tokens_of(job, arguments)
                row = run_job(job, plan, tokenizations[key], corpus, arguments.device)
                results.add({"job": identity, **row})
        except Timeout:
            continue


def identity_of(job: Job, name: str, plan: Plan) -> dict[str, Any]:
    """The `job` of a row, as JSON reads it back."""
    sizes = {key: value for key, value in asdict(plan).items() if key not in ("learning_rates", "notes")}
    return {"plan": name, "network": NETWORK, **asdict(job), "sizes": sizes}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", choices=PLANS, default="trial")
    parser.add_argument("--data", choices=("asap", "pop909", "demo"), default="asap")
    parser.add_argument(
        "--root", type=Path, help="folder of the data set; default: the variable ASAP or POP909"
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=["velocity"], help="base: without velocities"
    )
    parser.add_argument(
        "--options",
        nargs="*",
        action="append",
        help="of pianolm's tokenizer, such as ties=explicit, and constrained to train pianolm alone so; again for more",
    )
    parser.add_argument("--constrained", action="store_true", help="train all with loss.constrained=true")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--optimizer", choices=WEIGHT_DECAY, default="adamw")
    parser.add_argument(
        "--learning-rates",
        nargs="+",
        type=float,
        help=f"default: those of the plan, of Muon {MUON_OVER_ADAMW} times as high",
    )
    parser.add_argument("--notes", type=int, help="training notes; default: those of the plan")
    parser.add_argument(
        "--precision",
        choices=("32", "bf16"),
        default="32",
        help="precision of training; scoring uses 32 bits",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("outputs/tokenizer-comparison"),
        help="folder of locks and encoded pieces",
    )
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder of results.jsonl, metrics.json and pictures"
    )
    parser.add_argument("--report", action="store_true", help="only write tables and pictures")
    arguments = parser.parse_args()
    if arguments.root is None and arguments.data in ("asap", "pop909") and not arguments.report:
        variable = arguments.data.upper()
        if variable not in os.environ:
            parser.error(f"--data {arguments.data} needs its folder: give --root PATH or set {variable}")
        arguments.root = Path(os.environ[variable])
    return arguments


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    arguments.work, arguments.artifacts = arguments.work.absolute(), arguments.artifacts.absolute()
    for directory in (arguments.work, arguments.out):
        directory.mkdir(parents=True, exist_ok=True)
    plan = PLANS[arguments.plan]
    plan = replace(plan, notes=arguments.notes) if arguments.notes else plan
    results = Results(arguments.out, arguments.work)
    if not arguments.report:
        work_through(arguments, plan, results)
    jobs = [identity_of(job, arguments.plan, plan) for job in jobs_of(arguments, plan)]
    missing = [job for job in jobs if not results.has(job)]
    if missing and not arguments.report:
        print(f"{len(missing)} jobs still run in another process, which will write the tables", flush=True)
        return
    with results.lock:
        report(results.rows(), arguments.out)


def report(rows: list[Row], out: Path) -> None:
    """Prints the tables, writes the headline figures and the pictures, and the tables of README.md if there is one."""
    found = tables(rows)
    for name, lines in found.items():
        print("\n".join(["", *lines]))
        if (out / README).is_file() and f"<!-- {name}: " in (out / README).read_text("utf-8"):
            replace_section(out / README, name, lines)
    write_metrics(out / METRICS, headlines(rows))
    draw(rows, out)


if __name__ == "__main__":
    main()
