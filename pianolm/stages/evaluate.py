"""Stage `evaluate`: measures something that was made before; `evaluate=<name>` says what.

Reads `evaluate.*`. Writes tables to the run directory.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from pianolm.errors import UserError
from pianolm.stage import Metrics, StageContext

VERSION = 1


class Evaluation(NamedTuple):
    """An evaluation: its module in `pianolm.evaluation`, imported when it runs, and the roles of what it needs."""

    module: str
    needs: tuple[str, ...]


EVALUATIONS = {
    "roundtrip": Evaluation("roundtrip", ("tokenizer",)),
    "lm": Evaluation("bits", ("model", "cells")),
    "dynamics": Evaluation("dynamics", ("model", "cells")),
}


def evaluation(cfg: Mapping[str, Any]) -> Evaluation:
    """The evaluation that `evaluate.name` asks for.

    Raises:
        UserError: There is none of that name.
    """
    name = cfg["evaluate"]["name"]
    if name not in EVALUATIONS:
        raise UserError(f"evaluate.name={name!r} found, expected one of {', '.join(EVALUATIONS)}")
    return EVALUATIONS[name]


def run(ctx: StageContext) -> Metrics:
    """Runs the evaluation that is asked for."""
    module = importlib.import_module(f"pianolm.evaluation.{evaluation(ctx.cfg).module}")
    metrics: Metrics = module.run(ctx)
    return metrics
