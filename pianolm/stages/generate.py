"""Stage `generate`: sampled tokens become MIDI at its own tempo, with a picture beside each.

Reads `generate.*`, `seed` and `hardware`. Needs a model directory. Writes `piece_00.mid`, `piece_00.png`, … to the run
directory.
"""

from __future__ import annotations

import time

import numpy as np

from pianolm.errors import UserError
from pianolm.nn.decoding import Sampling
from pianolm.nn.piano_lm import PianoLM
from pianolm.plots import save_piano_roll
from pianolm.stages.context import Metrics, StageContext
from pianolm.stages.training import resolve_hardware, set_threads

VERSION = 1


def run(ctx: StageContext) -> Metrics:
    """Samples pieces and writes them to `ctx.run_dir`."""
    settings = ctx.cfg["generate"]
    hardware = resolve_hardware(ctx.cfg)
    set_threads(ctx.cfg, 1)
    lm = PianoLM.from_pretrained(ctx.upstream["model"], "cuda" if hardware.accelerator == "gpu" else "cpu")
    _refuse_other_mode(lm, ctx)
    sampling = Sampling(float(settings["temperature"]), int(settings["top_k"]), float(settings["top_p"]))
    start = time.perf_counter()
    sequences = lm.generate_ids(
        None, int(settings["beats"]), int(settings["pieces"]), sampling, int(ctx.cfg["seed"])
    )
    seconds = time.perf_counter() - start
    valid = beats = tokens = 0
    for number, ids in enumerate(sequences):
        piece = lm.tokenizer.decode(ids)
        name = f"piece_{number:02d}"
        piece.to_midi(ctx.run_dir / f"{name}.mid")
        save_piano_roll(
            piece, ctx.run_dir / f"{name}.png", f"{name}: {piece.notes.size} notes, {piece.n_beats} beats"
        )
        valid += lm.tokenizer.grammar.is_complete(ids) and piece.skipped == 0
        beats, tokens = beats + piece.n_beats, tokens + ids.size - 1  # BOS is given
    velocities = np.concatenate([lm.tokenizer.decode(ids).notes["velocity"] for ids in sequences])
    return {
        "pieces": len(sequences),
        "valid_fraction": valid / len(sequences),
        "tokens_per_second": round(tokens / seconds, 1),
        "beats_per_second": round(beats / seconds, 2),
        "distinct_velocities": int(np.unique(velocities).size),
    }


def _refuse_other_mode(lm: PianoLM, ctx: StageContext) -> None:
    wanted = ctx.cfg["tokenizer"]["mode"]
    if lm.tokenizer.mode != wanted:
        raise UserError(
            f"{ctx.upstream['model']}: a model of mode {lm.tokenizer.mode}, but tokenizer={wanted} is asked for; "
            f"add tokenizer={lm.tokenizer.mode}"
        )
