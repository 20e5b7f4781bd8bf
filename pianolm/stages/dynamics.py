"""Stage `dynamics`: cells become a model that gives velocities to notes; see `pianolm.dynamics.train`.

Like the velocity codec it takes one process in full precision on any hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pianolm.config.neutral import CALLBACKS, TRAINER, without
from pianolm.dynamics.features import HEAD_WIDTH
from pianolm.errors import UserError
from pianolm.stage import Metrics, Need, Stage, StageContext


def run(ctx: StageContext) -> Metrics:
    """Trains the model."""
    from pianolm.dynamics.train import train_dynamics  # torch is slow to import; planning does without

    return train_dynamics(ctx)


def _settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dynamics": dict(cfg["dynamics"]),
        "seed": cfg["seed"],
        "trainer": without(cfg["trainer"], TRAINER | {"max_steps"}),
        "callbacks": without(cfg["callbacks"], CALLBACKS),
    }


def _check(cfg: Mapping[str, Any]) -> None:
    if cfg["dynamics"]["width"] % HEAD_WIDTH:
        raise UserError(
            f"dynamics.width={cfg['dynamics']['width']} found, expected a multiple of {HEAD_WIDTH}, a head's width"
        )


STAGE = Stage(
    run,
    "Cells to a dynamics model, which gives velocities to notes.",
    needs=lambda cfg: {"cells": Need("prepare", given="cells")},
    settings=_settings,
    version=2,
    objective="val/loss",
    trains=True,
    check=_check,
)
