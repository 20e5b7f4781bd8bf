"""The tiny twin of every stage: the whole chain in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pianolm.config.check import open_keys
from pianolm.run import CONFIG_DIR

TINY = (
    "data.pieces=8",
    "model.width=32",
    "model.layers=1",
    "model.heads=2",
    "model.kv_heads=2",
    "model.ffn=48",
    "loader.context=64",
    "loader.batch_tokens=256",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "loader.val_tokens=512",
    "optimizer.warmup_steps=2",
    "velvq.codebook_size=32",
    "velvq.batch_cells=64",
    "velvq.max_steps=6",
    "velvq.val_every=3",
    "generate.pieces=2",
    "generate.beats=4",
    "callbacks.checkpoint.every_n_steps=2",
    "hardware=cpu",
    "logger=csv",
    "compute.threads=1",
)


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved configuration as `pianolm.run` hands it to a stage."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = OmegaConf.to_container(compose("config", open_keys(overrides)), resolve=True)
    assert isinstance(cfg, dict)
    return cfg


def tiny(root: Path, *overrides: str) -> dict[str, Any]:
    """A tiny configuration whose artifacts and runs lie below `root`."""
    other_data = any(override.startswith("data=") for override in overrides)
    return composed(
        *(setting for setting in TINY if not (other_data and setting.startswith("data.pieces"))),
        f"paths.artifacts={root}/artifacts",
        f"paths.work={root}/work",
        f"paths.outputs={root}/outputs",
        *overrides,
    )
