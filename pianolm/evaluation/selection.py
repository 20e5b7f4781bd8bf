"""Which pieces of a data source an evaluation reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pianolm.data.cell_store import SPLITS
from pianolm.errors import UserError


class _Described(Protocol):
    @property
    def split(self) -> str: ...
    @property
    def kind(self) -> str: ...


def performances(pieces: Sequence[_Described], cfg: Mapping[str, Any]) -> list[int]:
    """Which pieces are performances in `evaluate.split`.

    Raises:
        UserError: No such split, or no performance in it.
    """
    split = cfg["evaluate"]["split"]
    if split not in (*SPLITS, "all"):
        raise UserError(f"evaluate.split={split!r} found, expected one of {', '.join(SPLITS)} or all")
    there = [index for index, piece in enumerate(pieces) if piece.kind == "performance"]
    chosen = [index for index in there if split in (pieces[index].split, "all")]
    if not chosen:
        splits = sorted({pieces[index].split for index in there}, key=SPLITS.index)
        raise UserError(
            f"evaluate.split={split}: data={cfg['data']['source']} has no performance there; its performances are in "
            f"{', '.join(splits) or 'no split'}"
        )
    return chosen
