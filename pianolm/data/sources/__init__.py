"""Data sources. Each is one module of this package with `collect(data, cache) -> Collection`.

To add one, write `pianolm/data/sources/<name>.py` with `collect` and `conf/data/<name>.yaml` with `source: <name>`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pianolm.data.licences import require_licences
from pianolm.data.sources.base import KINDS, Collection, Excluded, Record, settle_splits
from pianolm.data.works import ListedWorks, Work
from pianolm.errors import UserError

SOURCES = tuple(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
"""Values of `data.source`: the modules of this package."""

__all__ = ["KINDS", "SOURCES", "Collection", "Excluded", "Record", "collect", "settle_splits"]


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """The files of the data set that `data.source` names, without the works of `data.exclude`.

    Args:
        data: The `data` group of the configuration.
        cache: Directory that a source may write files to (the demo composes there).

    Raises:
        UserError: No such source, its folder is missing or of another layout, `data.exclude` has an entry that is
            neither table nor work, or a file's licence is not in `data.licences`.
    """
    name = data.get("source")
    if name not in SOURCES:
        raise UserError(f"data.source={name} found, expected one of {', '.join(SOURCES)}")
    collection: Collection = importlib.import_module(f"{__name__}.{name}").collect(data, cache)
    if collection.parts:
        return collection  # each part has been through here
    collection = _without_listed(collection, ListedWorks(data.get("exclude") or ()))
    require_licences(collection.records, data.get("licences"))
    return collection


def _without_listed(collection: Collection, listed: ListedWorks) -> Collection:
    """The collection without the records of listed works, which are added to what is excluded."""
    records, excluded = [], list(collection.excluded)
    for record in collection.records:
        work = Work(record.composer, record.title) if record.composer else None
        found = None if work is None else listed.find(work)
        if found is None:
            records.append(record)
        else:
            other, origin = found
            excluded.append(Excluded(record.path, str(work), f"may be {other} of {origin}"))
    return replace(collection, records=tuple(records), excluded=tuple(excluded))
