"""Small models, modules, trainers and batches for the tests of the language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from transformers import LlamaForCausalLM

from pianolm.lm.datamodule import LMDataModule
from pianolm.lm.model import build_llama
from pianolm.lm.module import LanguageModule
from pianolm.lm.optimizer import OptimizerSettings
from pianolm.lm.window_index import WindowIndex
from pianolm.lm.window_reader import WindowReader
from tests.toy_tokens import MODEL, VOCABULARY, ToyPiece, sequence, settings, write_store

NOTES_PER_ID = np.random.default_rng(0).integers(0, 3, VOCABULARY.size)


def toy_model(seed: int = 0, tied: bool = True, **changes: object) -> LlamaForCausalLM:
    """A small model; with `tied=False`, as an import may be, its output layer has weights of its own."""
    torch.manual_seed(seed)
    v = VOCABULARY
    model = build_llama({**MODEL, **changes}, v.size, v.pad, v.bos, v.eos, 32)
    if tied:
        return model
    model.config.tie_word_embeddings = False
    return LlamaForCausalLM(model.config)


def toy_optimizer(**changes: Any) -> OptimizerSettings:
    given = settings(**changes)
    return OptimizerSettings.from_config(given, int(str(given["max_steps"])))


def toy_module(model: LlamaForCausalLM, **changes: Any) -> LanguageModule:
    return LanguageModule(
        model, toy_optimizer(**changes), VOCABULARY.kind_of, NOTES_PER_ID, unigram_entropy=5.0
    )


def toy_data(directory: Path, seed: int = 0, processes: int = 1, **changes: Any) -> LMDataModule:
    """A data module that is set up for training."""
    given = settings(**changes)
    data = LMDataModule(directory, given, int(str(given["max_steps"])), seed, processes)
    data.setup("fit")
    return data


def toy_store(directory: Path) -> Path:
    pieces = [ToyPiece(sequence(seed, beats=10), flat=seed == 1) for seed in range(4)]
    pieces += [ToyPiece(sequence(10, beats=9), split="validation")]
    pieces += [ToyPiece(sequence(11, beats=9), split="validation", kind="score", flat=True)]
    pieces += [ToyPiece(sequence(12, beats=9), split="test")]
    return write_store(directory, pieces).directory


def toy_trainer(**options: Any) -> L.Trainer:
    plain = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "use_distributed_sampler": False,
    }
    return L.Trainer(**{**plain, **options})


def whole_batch(directory: Path, context: int = 32) -> dict[str, Any]:
    """All windows of a store, with padding, masked velocities of flat pieces and targets of other windows."""
    store = toy_data(directory, context=context).store
    rows = WindowIndex(store, list(range(len(store.pieces))), context).validation()
    return WindowReader(store, context).batch(rows, len(rows))
