"""The stages of the chain, one file each: `pianolm/stages/<name>.py` defines `STAGE`."""

from __future__ import annotations

import importlib
import pkgutil

from pianolm.stage import Stage


def stage_names() -> list[str]:
    """Names of all stages."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_stage(name: str) -> Stage:
    """The stage of a name."""
    stage: Stage = importlib.import_module(f"{__name__}.{name}").STAGE
    return stage
