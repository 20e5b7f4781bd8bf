"""The tiny twin of every stage: the whole chain in seconds."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

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
    """The resolved configuration as `pianolm.run` hands it to a stage.

    Hydra takes half a second to compose groups, so what a choice of groups gives is kept, and single values are put
    into a copy of it by Hydra's own function. `test_tiny.py` compares this with Hydra's way.
    """
    words = open_keys(overrides)
    parsed = OverridesParser.create().parse_overrides(words)
    values = [override for override in parsed if _is_value(override)]
    cfg = copy.deepcopy(_of_groups(*(str(o.input_line) for o in parsed if not _is_value(o))))
    ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return plain


def composed_by_hydra(*overrides: str) -> DictConfig:
    """The configuration before its references are resolved."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("config", open_keys(overrides))


_of_groups = functools.cache(composed_by_hydra)
_GROUPS = {path.name for path in CONFIG_DIR.iterdir() if path.is_dir()}


def _is_value(override: Override) -> bool:
    """Whether it sets a value, and chooses no group."""
    key = override.key_or_group
    is_group = key in _GROUPS or "/" in key or key.startswith("hydra.")
    return not is_group and not override.is_sweep_override()


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
