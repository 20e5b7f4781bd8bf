"""Data sources. Each is one module of this package with `collect(data, cache) -> Collection`.

To add one, write `pianolm/data/sources/<name>.py` with `collect` and `conf/data/<name>.yaml` with `source: <name>`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm.data.sources.base import KINDS, Collection, Record, settle_splits
from pianolm.errors import UserError

SOURCES = tuple(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
"""Values of `data.source`: the modules of this package."""

__all__ = ["KINDS", "SOURCES", "Collection", "Record", "collect", "settle_splits"]


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """The files of the data set that `data.source` names.

    Args:
        data: The `data` group of the configuration.
        cache: Directory that a source may write files to (the demo composes there).

    Raises:
        UserError: No such source, or its folder is missing or of another layout.
    """
    name = data.get("source")
    if name not in SOURCES:
        raise UserError(f"data.source={name} found, expected one of {', '.join(SOURCES)}")
    collection: Collection = importlib.import_module(f"{__name__}.{name}").collect(data, cache)
    return collection
