"""Imports modules of `experiments/`, whose folders are no packages."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def load(path: str) -> ModuleType:
    """The module at a path below `experiments/`, such as `exact-resume/killing.py`.

    As in a script, modules beside it are imported by their bare names; those of another folder are forgotten first.
    """
    file = EXPERIMENTS / path
    for name, module in list(sys.modules.items()):
        other = Path(getattr(module, "__file__", None) or "/").parent
        if EXPERIMENTS in other.parents and other != file.parent:
            del sys.modules[name]
    sys.path.insert(0, str(file.parent))
    try:
        return importlib.import_module(file.stem)
    finally:
        sys.path.remove(str(file.parent))
