"""Several data sets as one: `data.parts.asap=PATH data.parts.pop909=PATH`.

A composition that occurs in several data sets has the same split in all of them. `loader.source_weights` sets how often
an epoch passes over each data set; one of weight 0 takes no part in training nor in its validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pianolm.data.sources.base import Collection, settle_splits
from pianolm.errors import UserError


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """The records of every part whose folder is set."""
    from pianolm.data.sources import collect as collect_one

    known_parts: Mapping[str, Any] = data.get("parts") or {}
    roots = {name: root for name, root in known_parts.items() if root is not None}
    if not roots:
        keys = ", ".join(f"data.parts.{name}=PATH" for name in known_parts) or "data.parts.asap=PATH"
        raise UserError(f"data=mix has no part; give two or more of {keys}")
    parts = []
    for name, root in roots.items():
        try:
            parts.append((name, collect_one({**data, "source": name, "root": root}, cache / name)))
        except UserError as error:  # sources know one folder, data.root
            raise UserError(str(error).replace("data.root", f"data.parts.{name}")) from error
    return Collection(
        root=cache,
        records=tuple(settle_splits(record for _, part in parts for record in part.records)),
        tables=tuple(table for _, part in parts for table in part.tables),
        rejects=tuple((f"{name}/{path}", reason) for name, part in parts for path, reason in part.rejects),
        parts=tuple(parts),
        excluded=tuple(
            replace(piece, path=f"{name}/{piece.path}") for name, part in parts for piece in part.excluded
        ),
    )
