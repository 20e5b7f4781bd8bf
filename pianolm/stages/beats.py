"""Stage `beats`: cells become a beat tracker, which finds beats from notes alone; see `pianolm.beat_tracking.train`.

It takes one process on any hardware, in the precision of `hardware`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pianolm.config.neutral import CALLBACKS, TRAINER, without
from pianolm.stage import Metrics, Need, Stage, StageContext
from pianolm.training.hardware import resolve_hardware, trainer_arguments


def run(ctx: StageContext) -> Metrics:
    """Trains the tracker."""
    from pianolm.beat_tracking.train import train_tracker  # torch is slow to import; planning does without

    return train_tracker(ctx)


def _settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "beats": dict(cfg["beats"]),
        "seed": cfg["seed"],
        "trainer": without(cfg["trainer"], TRAINER | {"max_steps"}),
        "callbacks": without(cfg["callbacks"], CALLBACKS),
        "precision": resolve_hardware(trainer_arguments(cfg, "beats")).precision,
    }


STAGE = Stage(
    run,
    "Cells to a beat tracker, which finds beats from notes alone.",
    needs=lambda cfg: {"cells": Need("prepare", given="cells")},
    settings=_settings,
    version=1,
    objective="val/loss",
    trains=True,
)
