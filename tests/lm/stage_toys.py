"""Toy token stores and stage contexts for the tests of `pianolm.lm.train`."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from pianolm import PianoTokenizer
from pianolm.config.training import STAGE_GROUPS
from pianolm.data.token_store import TokenStoreWriter
from pianolm.lm.datamodule import LMDataModule
from pianolm.music.cells import FRAMES, frames_to_cells, resolve_collisions
from pianolm.stage import StageContext
from pianolm.tokenizer.codebook import Patterns
from pianolm.tokenizer.codebook_fit import complete
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Vocabulary
from tests.tiny import composed
from tests.toy_tokens import MODEL, settings

VOCABULARY = Vocabulary(l1=16, l2=8, l3=8, velocity=8, reserved=377, tempo=20)
METRICS = {
    "val/loss",
    "val/loss_tempo",
    "val/loss_pitch",
    "val/loss_pattern",
    "val/unigram_entropy",
    "val/bits_per_note",
    "train/tokens_per_second",
    "train/padding_fraction",
    "parameters",
    "tokens_seen",
    "resumed_from_step",
}


def tokenizer(tempo: str = "log50") -> PianoTokenizer:
    """Without velocities: the codec has tests of its own, and these stages treat its ids like any others."""
    nothing = Patterns(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    return PianoTokenizer(complete([nothing] * 3, VOCABULARY), TempoBins(tempo, VOCABULARY.tempo))


class Row:
    """A piece as the cell store describes it."""

    source, composition, flat, kind = "toy", "toy", False, "performance"

    def __init__(self, index: int, split: str, notes: int) -> None:
        self.id, self.split, self.notes = f"piece {index}", split, notes


def random_ids(tok: PianoTokenizer, seed: int, beats: int = 16) -> tuple[np.ndarray, int]:
    rng = np.random.default_rng(seed)
    onset = rng.integers(0, beats * FRAMES - 1, 40)
    pitch, velocity = rng.integers(40, 80, 40).astype(np.uint8), np.full(40, 64, np.uint8)
    frames, _ = resolve_collisions(onset, onset + 12, pitch, velocity, beats * FRAMES)
    cells = frames_to_cells(frames, beats)
    return tok.encode_cells(cells, np.arange(beats + 1) * 0.5), cells.struck_notes


def write_tokens(directory: Path, tok: PianoTokenizer) -> Path:
    tok.save_pretrained(directory / "tokenizer")
    with TokenStoreWriter(directory, tok) as writer:
        for seed in range(6):
            ids, notes = random_ids(tok, seed)
            writer.add(Row(seed, "train" if seed < 5 else "validation", notes), ids)
    return directory


@functools.cache
def plain_config(stage: str) -> dict[str, Any]:
    return composed("logger=csv", "hardware=cpu", "trainer.log_every_n_steps=1", f"stage={stage}")


def context(folder: Path, name: str, upstream: dict[str, Path], **changes: Any) -> StageContext:
    """A stage's context for toy tokens; `training` changes options of trainer, optimizer, loader and loss."""
    cfg = copy.deepcopy(plain_config(name))
    cfg["model"] = {**MODEL, "compile": False}
    del cfg["callbacks"]["progress"]
    cfg["callbacks"]["checkpoint"]["every_n_steps"] = 1
    training = {**settings(max_steps=6, val_check_interval=3), **changes.pop("training", {})}
    for key, value in training.items():
        for group in STAGE_GROUPS:
            if key in cfg[name][group]:
                cfg[name][group][key] = value
    for key, value in changes.items():
        cfg[key] = {**cfg.get(key, {}), **value} if isinstance(value, dict) else value
    directories = [folder / part for part in ("out", "work", "run")]
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
    return StageContext(cfg, upstream, *directories, name=name, fingerprint="0123456789abcdef")


def weights(ctx: StageContext) -> dict[str, torch.Tensor]:
    return LlamaForCausalLM.from_pretrained(ctx.out).state_dict()


def validated(ctx: StageContext, tokens: Path) -> float:
    """Validation loss of what was published, by plain means."""
    model = LlamaForCausalLM.from_pretrained(ctx.out).eval()
    data = LMDataModule(tokens, ctx.cfg["base"]["loader"], max_steps=6, seed=0)
    data.setup("validate")
    nats = targets = 0.0
    with torch.no_grad():
        for batch in data.val_dataloader():
            logits = model(input_ids=batch["input_ids"]).logits.flatten(0, 1)
            labels = batch["labels"].flatten()
            nats += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            targets += int((labels != -100).sum())
    return nats / targets
