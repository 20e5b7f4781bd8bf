"""Tokens per second of pianolm and of `transformers` with the same weights, prompt and sampling.

python bench.py measure --tokenized DIRECTORY --out 1.json    with OMP_NUM_THREADS threads
python bench.py report 1.json 2.json --out DIRECTORY
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from report import SIZES, headlines, sizes_of, tables
from transformers import LlamaForCausalLM

from experiments.config import untrained_llama
from experiments.results import RESULTS, publish, read_rows
from pianolm import PianoLM, PianoTokenizer, Piece
from pianolm.data.token_store import TokenStore
from pianolm.generation.config import GenerationConfig
from pianolm.generation.engine.llama_weights import LlamaWeights, llama_of
from pianolm.generation.engine.numpy_engine import NumpyEngine
from pianolm.generation.engine.products import Products
from pianolm.generation.engine.torch_engine import TorchEngine
from pianolm.generation.generator import Generator
from pianolm.generation.state import GenerationState
from pianolm.tokenizer.vocabulary import Kind

CONTEXT = 512
BOX = "width=192 layers=5 heads=6 kv_heads=6 ffn=512"
"""Sizes of the bundled model; `BOX_CONTEXT` is the context that it was measured with."""
BOX_CONTEXT = 1024
PROMPT_BEATS = 8
SAMPLING = GenerationConfig(temperature=0.95, top_p=0.97, top_k=0, min_p=0, repeat=0, beats=10**6)
OURS = "pianolm, engine in torch", "pianolm, each piece by itself", "pianolm"


def by_transformers(model: LlamaForCausalLM, prompt: np.ndarray, rows: int, tokens: int) -> int:
    """Generates with transformers, without a token mask; returns the number of new tokens."""
    inputs = torch.tensor(np.tile(prompt, (rows, 1)))
    generated = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        do_sample=True,
        temperature=SAMPLING.temperature,
        top_p=SAMPLING.top_p,
        top_k=0,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
    )
    return rows * (generated.shape[1] - prompt.size)


def by_generator(generator: Generator, prompt: np.ndarray, rows: int, tokens: int) -> int:
    """Generates with pianolm; returns the number of new tokens. If all pieces end early, new ones are started."""
    generated, seed = 0, 0
    while generated < rows * tokens:
        states = [
            GenerationState(generator.grammar, prompt, seed + n, generator.context)
            for n in range(rows if rows == 1 else 3 * rows)
        ]
        seed += len(states)
        for _ in generator.generate(states, SAMPLING):
            new = sum(len(state.ids) - state.prompt_tokens for state in states)
            if generated + new >= rows * tokens:
                break
        generated += new
    return generated


def sides(
    model: LlamaForCausalLM, tokenizer: PianoTokenizer, prompt: np.ndarray
) -> dict[str, Callable[[int, int], int]]:
    generators = {name: Generator(model, tokenizer.grammar, tokenizer.tempo) for name in OURS}
    order = generators["pianolm"].order.ids
    by_row = LlamaWeights(llama_of(model), order, Products(tile=1))
    generators["pianolm, engine in torch"].make_engine = lambda rows: TorchEngine(model, order, rows)
    generators["pianolm, each piece by itself"].make_engine = lambda rows: NumpyEngine(by_row, rows)
    ours = {name: partial(by_generator, generator, prompt) for name, generator in generators.items()}
    return {"transformers generate": partial(by_transformers, model, prompt), **ours}


def untrained_model(size: str, tokenizer: PianoTokenizer) -> LlamaForCausalLM:
    if size != "box":
        return untrained_llama(size, tokenizer, CONTEXT)
    return untrained_llama("tiny", tokenizer, BOX_CONTEXT, *(f"model.{change}" for change in BOX.split()))


def measure(arguments: argparse.Namespace) -> None:
    threads = int(os.environ["OMP_NUM_THREADS"])
    load = os.getloadavg()[0]
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    tokenizer = PianoTokenizer.from_pretrained(arguments.tokenized)
    music = tokenizer.decode(TokenStore.open(arguments.tokenized).ids(0))
    ids = tokenizer.encode(music).ids
    beat_positions = np.flatnonzero(tokenizer.vocabulary.kind_of[ids] == Kind.TEMPO)
    prompt = ids[: beat_positions[PROMPT_BEATS]]
    rows = []
    for size in arguments.sizes:
        model = untrained_model(size, tokenizer)
        for batch in (1, 16):
            rows += _turns(size, batch, sides(model, tokenizer, prompt), arguments)
            print(
                f"{threads} threads, {size}, {batch}: {rows[-1]['tokens_per_second']:.0f} tokens per second",
                flush=True,
            )
        rows.append(
            {"size": size, "batch": 1, "side": "first beat", "seconds": _first_beat(model, tokenizer, music)}
        )
    result = {
        "threads": threads,
        "sizes": arguments.sizes,
        "load_at_start": round(load, 2),
        "rows": rows,
        "prompt_tokens": int(prompt.size),
        "new_tokens": arguments.tokens,
        "tokens_per_beat": float(np.diff(beat_positions).mean()),
        "beats_per_second_of_music": music.n_beats / float(music.beats_sec[-1] - music.beats_sec[0]),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
        },
        "processor": platform.processor() or platform.machine(),
    }
    arguments.out.write_text(json.dumps(result), "utf-8")


def _turns(
    size: str, batch: int, sides: dict[str, Callable[[int, int], int]], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Tokens per second of each side: one warm-up each, then in turns."""
    tokens = arguments.tokens if batch == 1 else max(arguments.tokens // 4, 8)
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run(batch, 8)
    for _ in range(arguments.repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            new_tokens = run(batch, tokens)
            speeds[name].append(new_tokens / (time.perf_counter() - start))
    return [
        {
            "size": size,
            "batch": batch,
            "side": name,
            "tokens_per_second": statistics.median(values),
            "least": min(values),
            "most": max(values),
        }
        for name, values in speeds.items()
    ]


def _first_beat(model: LlamaForCausalLM, tokenizer: PianoTokenizer, music: Piece) -> float:
    """Median seconds from the call to the first beat, with the weights already loaded."""
    lm = PianoLM(model, tokenizer)
    next(lm.stream(music, prompt_beats=PROMPT_BEATS, beats=1))
    times = []
    for seed in range(9):
        start = time.perf_counter()
        next(lm.stream(music, prompt_beats=PROMPT_BEATS, beats=8, seed=seed))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def report(arguments: argparse.Namespace) -> None:
    """Joins the runs with one and with two threads: a row of settings and the measurements of each.

    The rows of sizes that these runs did not measure stay as they are.
    """
    measured_sizes = {
        size for path in arguments.runs for size in json.loads(path.read_text("utf-8"))["sizes"]
    }
    rows = [row for row in read_rows(arguments.out / RESULTS) if not measured_sizes & sizes_of(row)]
    for path in arguments.runs:
        run = json.loads(path.read_text("utf-8"))
        measured = run.pop("rows")
        rows += [{"side": "settings", **run}, *({"threads": run["threads"], **row} for row in measured)]
    publish(arguments.out, rows, headlines(rows), tables(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure", help="with OMP_NUM_THREADS threads")
    measuring.add_argument("--tokenized", type=Path, required=True, help="artifact of stage tokenize")
    measuring.add_argument("--tokens", type=int, default=256, help="new tokens a piece")
    measuring.add_argument("--repeats", type=int, default=5)
    measuring.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    measuring.add_argument("--out", type=Path, required=True)
    measuring.set_defaults(run=measure)
    reporting = commands.add_parser("report")
    reporting.add_argument("runs", type=Path, nargs="+", help="what `measure` wrote")
    reporting.add_argument("--out", type=Path, required=True, help="folder of results.jsonl and README.md")
    reporting.set_defaults(run=report)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
