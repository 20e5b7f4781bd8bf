"""Stage `evaluate`: measures an existing model or tokenizer; `evaluate=<name>` chooses the measure.

Reads `evaluate.*`. Writes tables to the run directory. Measures: `pianolm.evaluation.measure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pianolm.evaluation.measure import find_measure
from pianolm.stage import Metrics, Need, Stage, StageContext


def run(ctx: StageContext) -> Metrics:
    """Runs the measure."""
    return find_measure(ctx.cfg).run(ctx)


_STAGE_OF = {"cells": "prepare", "tokenizer": "tokenize"}


def _needs(cfg: Mapping[str, Any]) -> dict[str, Need]:
    measure = find_measure(cfg)
    model = measure.model or ("base" if cfg["tokenizer"]["mode"] == "base" else "finetune")
    return {role: Need(_STAGE_OF.get(role, model), given=role) for role in measure.needs}


def _describe(cfg: Mapping[str, Any]) -> list[str]:
    return ["run     evaluate", *find_measure(cfg).describe(cfg)]


STAGE = Stage(
    run,
    "Measures an existing model or tokenizer.",
    needs=_needs,
    publishes=False,
    check=lambda cfg: find_measure(cfg).check(cfg),
    describe=_describe,
)
