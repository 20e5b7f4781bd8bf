"""Which tokens does a small Llama learn most from? The same body, optimizer, schedule and notes; other tokens.

    python compare.py --plan trial --data asap --root PATH

A job trains one model. Its row goes into results.jsonl, and a job that has one is not trained again: a killed run goes
on with the same command. Several processes may run the same command side by side, one thread each: a job belongs to
the first that takes it. `--report` writes the tables and the picture from the rows there are.

Shapes: T tokens of a piece, B rows of a batch, C tokens of a window.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from report import CONSTRAINED, draw, headlines, tables
from representations import (
    GROUPS,
    MIDITOK,
    MODES,
    PianoTokens,
    Tokens,
    digest,
    left_out,
    performance,
    representation,
    worth,
)
from torch import nn
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
from pianolm.artifacts import read_record
from pianolm.data.cell_store import CellStore
from pianolm.evaluation.bits import UNCONSTRAINED, TokenizedPiece, score_pieces
from pianolm.lm.embedding import inputs_and_head
from pianolm.lm.loss import head_nll
from pianolm.lm.model import build_llama, count_parameters
from pianolm.lm.optimizer import OptimizerSettings, parameter_groups
from pianolm.tokenizer.features import token_features
from pianolm.tokenizer.token_mask import LegalIds
from pianolm.training.trainer import keep_freed_memory

HERE = Path(__file__).resolve().parent
SIDES = ("pianolm-table", "pianolm-codebook", *MIDITOK)
SCHEDULE_STEPS = 10_000
"""Parts of the notes budget that the learning rate has a value for."""
EVALUATED_TOKENS = {"cpu": 4096, "cuda": 65536}
DATA_SEED = 0
NETWORK = 4
"""Counts changes of how models begin or learn: VERSION of the stage base."""
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """How large everything is: the body, C = `window`, B = `batch`, notes to train on and to score, and the part of the
    notes over which the learning rate rises."""

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
"""What is built differently of the demo, whose pieces are composed."""


@dataclass(frozen=True)
class Job:
    """One model to train."""

    data: str
    mode: str
    tokens: str
    embedding: str
    options: str
    learning_rate: float
    seed: int
    notes: int
    precision: str


@dataclass(frozen=True)
class Corpus:
    """The music of all jobs: pieces of a store, chosen once, and where their tokens are kept."""

    store: CellStore
    train: list[int]
    validation: list[int]
    curve: list[int]
    cache: Path

    @classmethod
    def choose(cls, directory: Path, plan: Plan, notes: int, cache: Path) -> Corpus:
        store = CellStore.open(directory)
        validation = choose(store, "validation", plan.validation_notes)
        curve = choose(store, "validation", plan.curve_notes)
        return cls(store, choose(store, "train", notes), validation, curve, cache)

    def notes(self, pieces: list[int]) -> int:
        return sum(self.store.pieces[index].notes for index in pieces)

    def encoded(self, tokens: Tokens, pieces: list[int]) -> list[Ids]:
        """Ids of some pieces, made once and kept: MidiTok takes its time."""
        record = read_record(self.store.directory) or {"fingerprint": str(self.store.directory)}
        name = digest([tokens.fingerprint, record["fingerprint"], pieces])
        path = self.cache / f"{name}.npz"
        self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                made = [tokens.encode(performance(self.store, index)) for index in pieces]
                partial = path.with_suffix(".partial.npz")
                ends = np.cumsum([ids.size for ids in made])[:-1]
                np.savez(partial, ids=np.concatenate(made).astype(np.uint16), ends=ends)
                partial.replace(path)
            with np.load(path) as kept:
                return np.split(kept["ids"].astype(np.int64), kept["ends"])


def choose(store: CellStore, split: str, notes: int) -> list[int]:
    """Performances with velocities that say something, in an order drawn once, until they hold so many notes."""
    there = [index for index in store.split(split) if store.pieces[index].kind == "performance"]
    there = [index for index in there if not store.flat(index)]
    if not there:
        sys.exit(f"{store.directory}: no performance to choose in the {split} part; take more data")
    drawn = np.random.default_rng(DATA_SEED).permutation(there)
    held = np.cumsum([store.pieces[index].notes for index in drawn])
    return drawn[: int(np.searchsorted(held, notes)) + 1].tolist()


def batches(pieces: list[Ids], window: int, batch: int, seed: int) -> Iterator[tuple[Ids, Ids]]:
    """Endless inputs and labels [B, C]: each epoch joins the pieces in a new order and cuts them into rows."""
    for epoch in range(sys.maxsize):
        rng = np.random.default_rng([seed, epoch])
        stream = np.concatenate([pieces[index] for index in rng.permutation(len(pieces))])
        rows = (stream.size - 1) // window
        assert rows, "the music fills a window"
        first = int(rng.integers((stream.size - 1) % window + 1))
        starts_B = first + rng.permutation(rows) * window
        for at in range(0, rows, batch):
            place_BC = starts_B[at : at + batch, None] + np.arange(window)
            yield stream[place_BC], stream[place_BC + 1]


def learn(
    model: LlamaForCausalLM,
    pieces: list[Ids],
    tokens: Tokens,
    job: Job,
    plan: Plan,
    at_point: Callable[[int], None],
) -> tuple[float, int, int]:
    """Trains until the targets held `job.notes` notes; calls `at_point` with the notes seen at even distances.

    Returns:
        Seconds without those calls, notes and steps.
    """
    settings = OptimizerSettings(
        job.learning_rate, 0.1, round(plan.warmup * SCHEDULE_STEPS), SCHEDULE_STEPS, 0.1, (0.9, 0.95)
    )
    optimizer = torch.optim.AdamW(parameter_groups(model, settings), settings.learning_rate, settings.betas)
    peaks = [group["lr"] for group in optimizer.param_groups]
    legal = tokens.legal_targets().to(model.device) if CONSTRAINED in job.options.split() else None
    seconds, seen, steps, points = 0.0, 0, 0, 0
    begin = time.perf_counter()
    for inputs_BC, labels_BC in batches(pieces, plan.window, plan.batch, job.seed):
        factor = settings.factor(seen * SCHEDULE_STEPS // job.notes)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        step(model.train(), optimizer, inputs_BC, labels_BC, job.precision, legal)
        seen, steps = seen + int(tokens.notes_V[labels_BC].sum()), steps + 1
        if seen >= min((points + 1) * job.notes // plan.points, job.notes):
            seconds += time.perf_counter() - begin
            points = seen * plan.points // job.notes
            at_point(seen)
            begin = time.perf_counter()
        if seen >= job.notes:
            break
    return seconds, seen, steps


def step(
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    inputs_BC: Ids,
    labels_BC: Ids,
    precision: str,
    legal: nn.Module | None,
) -> None:
    ids, labels = (torch.from_numpy(rows).to(model.device) for rows in (inputs_BC, labels_BC))
    sets = () if legal is None else (legal.sets, legal(ids, labels, None).flatten())
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        inputs, head = inputs_and_head(model, ids)
        hidden_BCD = model.model(**inputs, use_cache=False).last_hidden_state
        nats, _ = head_nll(hidden_BCD.flatten(0, 1), head.weight, labels.flatten(), *sets)
    optimizer.zero_grad()
    (nats / labels.numel()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


class TokenBits(NamedTuple):
    """Bits [T] of the tokens of a piece: among all ids, and among those that may stand there."""

    free: NDArray[np.float64]
    legal: NDArray[np.float64]


def score(model: LlamaForCausalLM, tokens: Tokens, pieces: list[Ids]) -> tuple[list[TokenBits], float]:
    """Bits of every token of some pieces, and how many of all say which tempo it is, given that one comes.

    Every token is scored once; windows start half of the context apart, at any token.
    """
    given = (
        TokenizedPiece(ids, token_masks={"legal": tokens.legal(ids), "tempo": tempo_masks(tokens, ids)})
        for ids in pieces
    )
    scores = list(score_pieces(model.eval(), given, batch_tokens=EVALUATED_TOKENS[model.device.type]))
    tempo = sum(float(score["tempo"].sum()) for score in scores)
    return [TokenBits(score[UNCONSTRAINED], score["legal"]) for score in scores], tempo


def tempo_masks(tokens: Tokens, ids: Ids) -> LegalIds:
    """Any tempo where a tempo stands, else the token itself, which then costs nothing.

    The rest of a tempo's bits say that a beat is over, which other representations say by their positions.
    """
    is_tempo_V = np.isin(tokens.type_V, [i for i, name in enumerate(tokens.types) if name.lower() == "tempo"])
    each_V = np.arange(is_tempo_V.size)
    return LegalIds.from_sets(is_tempo_V if is_tempo_V[token] else each_V == token for token in ids)


def by_type(
    tokens: Tokens, pieces: list[Ids], bits: list[NDArray[np.float64]], tempo: float
) -> dict[str, float]:
    """Bits of pieces [T] by type of token; what of the tempi is not their value, `tempo`, says `beat`."""
    sums = np.zeros(len(tokens.types))
    for ids, bits_T in zip(pieces, bits, strict=True):
        sums += np.bincount(tokens.type_V[ids], bits_T, len(sums))
    found = dict(zip(tokens.types, sums.tolist(), strict=True))
    for kind in tokens.types:
        if kind.lower() == "tempo":
            found |= {"beat": found[kind] - tempo, kind: tempo}
    return found


def run_job(job: Job, plan: Plan, tokens: Tokens, corpus: Corpus, device: str) -> dict[str, Any]:
    """Trains one model and measures it: the row of its results."""
    torch.manual_seed(job.seed)
    settings = {
        **{name: getattr(plan, name) for name in ("width", "layers", "heads", "ffn")},
        **BODY,
        "embedding": job.embedding,
    }
    marks = (tokens.pad, tokens.bos, tokens.eos)
    features = None
    if job.embedding == "codebook":
        assert isinstance(tokens, PianoTokens), "only pianolm's ids have features"
        features = token_features(tokens.tokenizer)
    model = build_llama(settings, tokens.type_V.size, *marks, plan.window, features).to(device)
    on_curve, curve = corpus.encoded(tokens, corpus.curve), []

    def at_point(seen: int) -> None:
        found = score(model, tokens, on_curve)[0]
        free, legal = (sum(float(bits.sum()) for bits in kind) for kind in zip(*found, strict=True))
        notes = corpus.notes(corpus.curve)
        curve.append((seen, round(free / notes, 4), round(legal / notes, 4)))
        print(f"{name_of(job)}: {seen:,} notes, {free / notes:.2f} bits per note", flush=True)

    spent = learn(model, corpus.encoded(tokens, corpus.train), tokens, job, plan, at_point)
    measured = corpus.encoded(tokens, corpus.validation)
    return {
        **figures(*score(model, tokens, measured), tokens, corpus, measured),
        "seconds_per_note": spent[0] / spent[1],
        "train_seconds": round(spent[0], 1),
        "notes_seen": spent[1],
        "steps": spent[2],
        "parameters": count_parameters(model),
        "vocabulary": tokens.type_V.size,
        "tokens_fingerprint": tokens.fingerprint,
        "curve": curve,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def figures(
    found: list[TokenBits], tempo: float, tokens: Tokens, corpus: Corpus, measured: list[Ids]
) -> dict[str, Any]:
    """Bits per note and second of the validation performances, by group and type, and what the tokens leave out.

    `in_grammar` are those with each token chosen among the ids that may stand there.
    """
    pieces = [performance(corpus.store, index) for index in corpus.validation]
    notes, seconds = sum(piece.notes.size for piece in pieces), sum(piece.seconds for piece in pieces)
    assert all(np.isfinite(bits.legal).all() for bits in found), "each token is one that may stand there"
    free, legal = (by_type(tokens, measured, list(bits), tempo) for bits in zip(*found, strict=True))
    with_velocity = free.get("velocity", free.get("Velocity", 0.0)) > 0
    missing = [
        left_out(p, tokens.decode(ids), with_velocity) for p, ids in zip(pieces, measured, strict=True)
    ]
    joined = {key: np.concatenate([one[key] for one in missing]) for key in missing[0]}
    held = 0.0
    if isinstance(tokens, PianoTokens):
        held = sum(
            float(bits.legal[tokens.held(ids)].sum()) for ids, bits in zip(measured, found, strict=True)
        )
    return {
        **per_note(free, tokens, notes),
        "constrained": per_note(legal, tokens, notes),
        "tied": held / notes,
        "tokens_per_note": sum(ids.size for ids in measured) / notes,
        "left_out": {
            "lost_notes": int(joined["lost"].sum()),
            "ends_inexact": float((joined["end"] != 0).mean()),
            "ends_worth": worth(joined["end"], joined["long"]),
            "velocities_inexact": float((joined["velocity"] != 0).mean()),
            "velocities_worth": worth(joined["velocity"], joined["crowd"]),
        },
        "validation": {"pieces": len(pieces), "notes": notes, "seconds": round(seconds, 1)},
    }


def per_note(bits: dict[str, float], tokens: Tokens, notes: int) -> dict[str, Any]:
    """In all, by group, and by type."""
    by_group = dict.fromkeys(GROUPS, 0.0)
    for kind, value in bits.items():
        by_group["time" if kind == "beat" else tokens.group[kind]] += value
    return {
        "bits_per_note": sum(bits.values()) / notes,
        **{group: value / notes for group, value in by_group.items()},
        "by_type": {kind: value / notes for kind, value in bits.items() if value},
    }


def name_of(job: Job) -> str:
    side = f"pianolm-{job.embedding}" if job.tokens == "pianolm" else job.tokens
    return f"{job.data} {job.mode} {f'{side} {job.options}'.strip()} lr {job.learning_rate:g} seed {job.seed}"


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


def built(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Directories of the cells and of the tokenizer with velocities; pianolm builds what is missing."""
    artifacts, work = arguments.artifacts, arguments.work
    settings: dict[str, Any] = {"data": arguments.data, "logger": "csv", "compute.threads": 1}
    settings |= {"paths.artifacts": artifacts, "paths.work": artifacts / ".work"}
    settings |= DEMO if arguments.data == "demo" else {"data.root": arguments.root}
    settings |= {f"tokenizer.{key}": value for key, _, value in (o.partition("=") for o in arguments.options)}
    overrides = [f"{key}={value}" for key, value in settings.items()]
    found = []
    for stage in ("prepare", "tokenize"):
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
            found.append(Path(json.loads(Path(run_dir, "metrics.json").read_text())["artifact"]))
    return found[0], found[1]


def jobs_of(arguments: argparse.Namespace, plan: Plan) -> list[Job]:
    """Seed after seed, rate after rate, side after side: what is there when a run is cut off can be compared."""
    rates = arguments.learning_rates or plan.learning_rates
    found = []
    for seed, mode, rate, side in product(arguments.seeds, arguments.modes, rates, arguments.sides):
        tokens, _, embedding = side.partition("-")
        options = sorted(arguments.options) if tokens == "pianolm" else []
        options = " ".join([*options, *([CONSTRAINED] if arguments.constrained else [])])
        common = (arguments.data, mode, tokens, embedding or "table", options, rate, seed)
        found.append(Job(*common, plan.notes, arguments.precision))
    return found


def work_through(arguments: argparse.Namespace, plan: Plan, results: Results) -> None:
    """Does every job that has no row and that no other process has taken."""
    cells, tokenizer = built(arguments)
    corpus = Corpus.choose(cells, plan, plan.notes, arguments.work / "tokens")
    made: dict[tuple[str, str], Tokens] = {}
    for job in jobs_of(arguments, plan):
        identity = identity_of(job, arguments.plan, plan)
        taken = FileLock(arguments.work / f"{digest(identity)}.lock")
        try:
            with taken.acquire(blocking=False):
                if results.has(identity):
                    continue
                if (job.tokens, job.mode) not in made:
                    made[job.tokens, job.mode] = representation(job.tokens, job.mode, tokenizer)
                row = run_job(job, plan, made[job.tokens, job.mode], corpus, arguments.device)
                results.add({"job": identity, **row})
        except Timeout:
            continue


def identity_of(job: Job, name: str, plan: Plan) -> dict[str, Any]:
    """What a row is found by, as JSON gives it back."""
    sizes = {key: value for key, value in asdict(plan).items() if key not in ("learning_rates", "notes")}
    return {"plan": name, "network": NETWORK, **asdict(job), "sizes": sizes}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", choices=PLANS, default="trial")
    parser.add_argument("--data", choices=("asap", "pop909", "demo"), default="asap")
    parser.add_argument(
        "--root", type=Path, help="where the data lies; else the variable ASAP or POP909 says it"
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=["velocity"], help="base: without velocities"
    )
    parser.add_argument(
        "--options", nargs="+", default=[], help="of pianolm's tokenizer, such as ties=explicit"
    )
    parser.add_argument("--constrained", action="store_true", help="train with loss.constrained=true")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--learning-rates", nargs="+", type=float, help="else those of the plan")
    parser.add_argument("--notes", type=int, help="budget of a job, else that of the plan")
    parser.add_argument(
        "--precision", choices=("32", "bf16"), default="32", help="of training; scoring is in 32 bits"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/tokenizer-comparison"), help="locks and tokens"
    )
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder of results.jsonl, metrics.json and pictures"
    )
    parser.add_argument("--report", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if arguments.root is None and arguments.data in ("asap", "pop909") and not arguments.report:
        variable = arguments.data.upper()
        if variable not in os.environ:
            parser.error(f"--data {arguments.data} needs its folder: give --root PATH or set {variable}")
        arguments.root = Path(os.environ[variable])
    return arguments


def main() -> None:
    arguments = parsed()
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
    left = [job for job in jobs if not results.has(job)]
    if left and not arguments.report:
        print(f"{len(left)} jobs are still at work in another process, which writes the tables", flush=True)
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
