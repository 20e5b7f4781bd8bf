"""What cannot change a result, and so stays out of fingerprints; everything else of the configuration is in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRAINER = frozenset(
    {
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "precision",  # hashed as resolved on this machine: `auto` may be another precision elsewhere
        "profiler",
        "log_every_n_steps",
        "enable_progress_bar",
        "enable_model_summary",
        "enable_checkpointing",
        "enable_autolog_hparams",
        "default_root_dir",
        "model_registry",
        "detect_anomaly",
        "inference_mode",
    }
)
"""Arguments of the Trainer that change no weight."""

CALLBACKS = frozenset({"progress", "checkpoint"})
"""Entries of `callbacks` that only show progress or write checkpoints."""

GROUPS = ("hardware", "compute", "logger", "paths")
"""Groups that say where and how work is done."""

MODEL = frozenset({"lr"})
"""Default of `optimizer.lr`, which is hashed."""

LIMITS = ("fast_dev_run", "overfit_batches", "limit_train_batches", "limit_val_batches", "limit_test_batches")
"""Arguments of the Trainer that cut training or validation short; such a run publishes nothing."""


def without(group: Mapping[str, Any], neutral: frozenset[str]) -> dict[str, Any]:
    """The options of a group that can change a result."""
    return {key: value for key, value in group.items() if key not in neutral}


def is_limited(trainer: Mapping[str, Any]) -> bool:
    """Whether any of `LIMITS` is set."""
    return any(trainer.get(name) not in (None, False, 0, 0.0) for name in LIMITS)


def without_limits(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's arguments with each of `LIMITS` at its default."""
    defaults = {"fast_dev_run": False, "overfit_batches": 0.0}
    return {key: defaults.get(key) if key in LIMITS else value for key, value in trainer.items()}
