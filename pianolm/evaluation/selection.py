"""Selects the pieces of a data source that an evaluation reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pianolm.data.cell_store import SPLITS
from pianolm.errors import UserError


class _PieceMetadata(Protocol):
    @property
    def split(self) -> str: ...
    @property
    def kind(self) -> str: ...


def performances(pieces: Sequence[_PieceMetadata], cfg: Mapping[str, Any]) -> list[int]:
    """Indices of the performances in `evaluate.split`.

    Raises:
        UserError: No such split, or no performance in it.
    """
    split = cfg["evaluate"]["split"]
    if split not in (*SPLITS, "all"):
        raise UserError(f"evaluate.split={split!r} found, expected one of {', '.join(SPLITS)} or all")
    indices = [index for index, piece in enumerate(pieces) if piece.kind == "performance"]
    in_split = [index for index in indices if split in (pieces[index].split, "all")]
    if not in_split:
        splits = sorted({pieces[index].split for index in indices}, key=SPLITS.index)
        raise UserError(
            f"evaluate.split={split}: data={cfg['data']['source']} has no performance in it; its performances are in "
            f"{', '.join(splits) or 'no split'}"
        )
    return in_split


def evenly_spaced(indices: list[int], count: int | None) -> list[int]:
    """At most `count` of the indices, evenly spaced from first to last; all for None."""
    if count is None or count >= len(indices):
        return indices
    return [indices[at] for at in np.linspace(0, len(indices) - 1, count).round().astype(int)]
