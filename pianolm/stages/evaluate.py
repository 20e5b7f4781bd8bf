"""Stage `evaluate`: measures something that was made before; `evaluate=<name>` says what.

Reads `evaluate.*`. Writes tables to the run directory.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pianolm.data.store import SPLITS
from pianolm.errors import UserError
from pianolm.stages.context import Metrics, StageContext

VERSION = 1


class Evaluation(NamedTuple):
    """An evaluation: its module in `pianolm.stages`, imported when it runs, and the roles of what it needs."""

    module: str
    needs: tuple[str, ...]


EVALUATIONS = {
    "roundtrip": Evaluation("roundtrip", ("tokenizer",)),
    "lm": Evaluation("lm_bits", ("model", "cells")),
    "dynamics": Evaluation("dynamics_eval", ("model", "cells")),
}


class _Described(Protocol):
    @property
    def split(self) -> str: ...
    @property
    def kind(self) -> str: ...


def evaluation(cfg: Mapping[str, Any]) -> Evaluation:
    """The evaluation that `evaluate.name` asks for.

    Raises:
        UserError: There is none of that name.
    """
    name = cfg["evaluate"]["name"]
    if name not in EVALUATIONS:
        raise UserError(f"evaluate.name={name!r} found, expected one of {', '.join(EVALUATIONS)}")
    return EVALUATIONS[name]


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


def run(ctx: StageContext) -> Metrics:
    """Runs the evaluation that is asked for."""
    module = importlib.import_module(f"pianolm.stages.{evaluation(ctx.cfg).module}")
    metrics: Metrics = module.run(ctx)
    return metrics
