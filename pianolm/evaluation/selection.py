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


def pieces_to_continue(pieces: Sequence[_PieceMetadata], cfg: Mapping[str, Any]) -> list[int]:
    """Indices of the performances in `evaluate.split`, or of its scores where it has no performance.

    Raises:
        UserError: No such split, or no piece in it.
    """
    scores = _of_kind(pieces, cfg, "score")
    return scores if scores and not _of_kind(pieces, cfg, "performance") else performances(pieces, cfg)


def performances(pieces: Sequence[_PieceMetadata], cfg: Mapping[str, Any]) -> list[int]:
    """Indices of the performances in `evaluate.split`.

    Raises:
        UserError: No such split, or no performance in it.
    """
    split = cfg["evaluate"]["split"]
    if split not in (*SPLITS, "all"):
        raise UserError(f"evaluate.split={split!r} found, expected one of {', '.join(SPLITS)} or all")
    in_split = _of_kind(pieces, cfg, "performance")
    if not in_split:
        splits = sorted({one.split for one in pieces if one.kind == "performance"}, key=SPLITS.index)
        raise UserError(
            f"evaluate.split={split}: data={cfg['data']['source']} has no performance in it; its performances are in "
            f"{', '.join(splits) or 'no split'}"
        )
    return in_split


def _of_kind(pieces: Sequence[_PieceMetadata], cfg: Mapping[str, Any], kind: str) -> list[int]:
    split = cfg["evaluate"]["split"]
    return [i for i, piece in enumerate(pieces) if piece.kind == kind and split in (piece.split, "all")]


def evenly_spaced(indices: list[int], count: int | None) -> list[int]:
    """At most `count` of the indices, evenly spaced from first to last; all for None."""
    if count is None or count >= len(indices):
        return indices
    return [indices[at] for at in np.linspace(0, len(indices) - 1, count).round().astype(int)]
