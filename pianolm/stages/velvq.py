"""Stage `velvq`: cells become a velocity codec, one code for the velocities of a cell; see `pianolm.velvq.train`.

It trains for a minute or two, so it takes one process in full precision on any hardware: equal settings then give equal
codecs, whether the language models train on one CPU or on many GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pianolm.config.neutral import CALLBACKS, TRAINER, without
from pianolm.stage import Metrics, Need, Stage, StageContext

_FROM_VELVQ = frozenset({"max_steps", "val_check_interval", "gradient_clip_val"})
"""Arguments of the Trainer that come from `velvq`, so that those of `trainer` do not count."""


def run(ctx: StageContext) -> Metrics:
    """Trains the codec."""
    from pianolm.velvq.train import train_codec  # torch is slow to import, and planning does without

    return train_codec(ctx)


def _settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "velvq": dict(cfg["velvq"]),
        "trainer": without(cfg["trainer"], TRAINER | _FROM_VELVQ),
        "callbacks": without(cfg["callbacks"], CALLBACKS),
    }


STAGE = Stage(
    run,
    "Cells to a velocity codec: one code for the velocities of a cell.",
    needs=lambda cfg: {"cells": Need("prepare", given="cells")},
    settings=_settings,
    version=3,
    objective="val/velocity_mae",
    headlines=("val/codes_used", "val/code_perplexity"),
    trains=True,
)
