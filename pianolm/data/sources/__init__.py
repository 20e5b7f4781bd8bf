"""Data sources by name. Each is one small module with `collect(data, cache) -> Collection`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm.data.sources.base import KINDS, Collection, Record, settle_splits
from pianolm.errors import UserError

SOURCES = {
    name: f"pianolm.data.sources.{name}" for name in ("acpas", "asap", "demo", "folder", "mix", "pop909")
}
"""Modules by the value of `data.source`; a new data set is a new file and a name here."""

__all__ = ["KINDS", "SOURCES", "Collection", "Record", "collect", "settle_splits"]


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """The records of the data set that `data.source` names.

    Args:
        data: The `data` group of the configuration.
        cache: Directory a source may write files of its own into (the demo composes there).

    Raises:
        UserError: No such source, or its folder is missing or of another layout.
    """
    name = data.get("source")
    if name not in SOURCES:
        raise UserError(f"data.source={name}: no such data source; there are {', '.join(SOURCES)}")
    collection: Collection = importlib.import_module(SOURCES[name]).collect(data, cache)
    return collection
