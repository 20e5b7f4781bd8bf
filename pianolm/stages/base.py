"""Stage `base`: a language model on tokens without velocities; see `pianolm.lm.train`."""

from __future__ import annotations

from pianolm.lm.batch_plan import stage_batch
from pianolm.lm.settings import language_model_settings
from pianolm.lm.shares import check_planned_shares
from pianolm.stage import Metrics, Need, Stage, StageContext


def run(ctx: StageContext) -> Metrics:
    """Trains from fresh weights."""
    from pianolm.lm.train import train_language_model

    return train_language_model(ctx)


STAGE = Stage(
    run,
    "Language model without velocities.",
    needs=lambda cfg: {"tokens": Need("tokenize", mode="base")},
    settings=lambda cfg: language_model_settings(cfg, "base"),
    version=7,
    objective="val/loss",
    headlines=("val/bits_per_note", "parameters"),
    trains=True,
    check=lambda cfg: check_planned_shares(cfg, "base"),
    check_processes=lambda cfg, processes: stage_batch(cfg, "base", processes),
)
