"""A training step of the bundled model on a CPU: bf16 or not, compiled or not.

    python variants.py OUT

Four windows of 1,024 tokens of the demo composer's music, the loss in the grammar, Muon, clipped gradients;
each variant in a process of its own, one thread, medians of steps. Processor time, so that other programs on the
machine matter less; the first step, in which a compiled network is compiled, by the clock and without what earlier runs
compiled. Replaces its rows in OUT/results.jsonl.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from statistics import median

import torch
from report import headlines, tables
from spans import CONTEXT, windows

from experiments.config import composed
from experiments.results import RESULTS, Row, publish, read_rows
from pianolm import PianoTokenizer
from pianolm.lm.model import build_llama
from pianolm.lm.module import LanguageModule
from pianolm.lm.optimizer import OptimizerSettings, make_optimizer
from pianolm.models import model_path
from pianolm.training.hardware import bf16_instructions, keep_freed_memory

WARM_UP, STEPS = 3, 10
VARIANTS = tuple(product(("32-true", "bf16-mixed"), (False, True)))
"""Precision, and whether the network is compiled."""
FRESH = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
"""Environment in which torch.compile keeps and finds nothing."""


def measure(precision: str, compiled: bool) -> Row:
    """Seconds of the first step and of a later one, and the largest memory of this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    tokenizer = PianoTokenizer.from_pretrained(model_path("pop") / "tokenizer")
    v = tokenizer.vocabulary
    cfg = composed("stage=finetune", "experiment=box", "model.embedding=table")
    settings = OptimizerSettings.from_config(cfg["finetune"]["optimizer"], WARM_UP + STEPS)
    model = build_llama(cfg["model"], v.size, v.pad, v.bos, v.eos, CONTEXT)
    module = LanguageModule(model, settings, v.kind_of, tokenizer.strikes_per_id, grammar=tokenizer.grammar)
    optimizer = make_optimizer(model, settings)
    if compiled:
        model.model.compile()
    ids_BT = windows(tokenizer)
    batch = {"input_ids": ids_BT[:, :-1], "labels": ids_BT[:, 1:]}
    seconds, begin = [], time.perf_counter()
    for step in range(WARM_UP + STEPS):
        start = time.process_time()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = module.target_losses(batch).nats / batch["labels"].numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.process_time() - start)
        if step == 0:
            first_step_sec = time.perf_counter() - begin
    return {
        "run": f"variant, {precision}, {'compiled' if compiled else 'eager'}",
        "precision": precision,
        "compiled": compiled,
        "first_step_sec": round(first_step_sec, 2),
        "step_sec": round(median(seconds[WARM_UP:]), 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "bf16_instructions": bf16_instructions(),
    }


def main(out: Path) -> None:
    found: list[Row] = []
    for variant in VARIANTS:
        own = [sys.executable, __file__, json.dumps(variant), "--one"]
        done = subprocess.run(own, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | FRESH)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(found[-1], file=sys.stderr, flush=True)
    names = [row["run"] for row in found]
    rows = [row for row in read_rows(out / RESULTS) if row["run"] not in names] + found
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    if sys.argv[2:] == ["--one"]:
        print(json.dumps(measure(*json.loads(sys.argv[1]))))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        sys.exit(__doc__)
