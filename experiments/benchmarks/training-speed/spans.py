"""What the loss in the grammar costs, with logits of all ids and of the span of ids that a mask allows.

    python spans.py OUT

Four windows of 1,024 tokens of the demo composer's music, as the bundled model reads them, and random hidden states;
forward and backward, one thread, fp32; medians of turns, beside the time that the network below takes. Processor time,
so that other programs on the machine matter less. Replaces its rows in OUT/results.jsonl.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from report import headlines, tables

from experiments.config import composed
from experiments.results import RESULTS, Row, publish, read_rows
from pianolm import PianoTokenizer, Piece
from pianolm.data.sources.demo.composer import compose
from pianolm.lm import loss
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.lm.model import build_llama
from pianolm.models import model_path
from pianolm.music.beats import BeatAnnotation
from pianolm.music.notes import make_notes

ROWS, CONTEXT, TURNS = 4, 1024, 9
MODELS = {"bundled model": "experiment=box", "tiny": "model=tiny"}


def windows(tokenizer: PianoTokenizer) -> torch.Tensor:
    """[ROWS, CONTEXT + 1] tokens of composed pieces, one after the other."""
    ids: list[np.ndarray] = []
    while sum(map(len, ids)) < ROWS * (CONTEXT + 1):
        music = compose(0, len(ids))
        notes = make_notes(music.onset_sec, music.offset_sec, music.pitch, music.velocity)
        piece = Piece.from_notes(notes, BeatAnnotation(music.beats_sec, music.downbeat))
        ids.append(tokenizer.encode(piece).ids)
    return torch.from_numpy(np.concatenate(ids)[: ROWS * (CONTEXT + 1)].reshape(ROWS, CONTEXT + 1))


def main(out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = PianoTokenizer.from_pretrained(model_path("pop") / "tokenizer")
    targets = MaskedTargets(tokenizer.grammar)
    ids_BT = windows(tokenizer)
    labels_n = ids_BT[:, 1:].reshape(-1)
    mask_n = targets(ids_BT[:, :-1], ids_BT[:, 1:], None).reshape(-1)
    spans = {"loss_sec": loss.CPU_SPAN, "loss_of_all_ids_sec": targets.masks.shape[1]}
    rows = []
    for name, override in MODELS.items():
        cfg = composed("stage=finetune", override, "model.embedding=table")
        model = build_llama(cfg["model"], targets.masks.shape[1], 4788, 4786, 4787, CONTEXT)
        weight_VD = model.lm_head.weight
        seconds: dict[str, list[float]] = {key: [] for key in ("network_sec", *spans)}
        for _ in range(TURNS):
            start = time.process_time()
            hidden_BTD = model.model(input_ids=ids_BT[:, :-1]).last_hidden_state
            hidden_BTD.sum().backward()
            seconds["network_sec"].append(time.process_time() - start)
            for key, loss.CPU_SPAN in spans.items():
                hidden_nD = hidden_BTD.detach().reshape(len(labels_n), -1).requires_grad_()
                start = time.process_time()
                loss.head_nll(hidden_nD, weight_VD, labels_n, targets.masks, mask_n)[0].backward()
                seconds[key].append(time.process_time() - start)
        rows.append({"run": f"loss, {name}", **{key: round(median(of), 3) for key, of in seconds.items()}})
    kept: list[Row] = [row for row in read_rows(out / RESULTS) if row["run"] not in [r["run"] for r in rows]]
    publish(out, kept + rows, headlines(kept + rows), tables(kept + rows))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
