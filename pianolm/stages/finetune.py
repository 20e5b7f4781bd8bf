"""Stage `finetune`: a language model on tokens with velocities, warm-started from base; see `pianolm.lm.train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm.lm.batch_plan import stage_batch
from pianolm.lm.sampling_file import sampling_beside
from pianolm.lm.settings import language_model_settings
from pianolm.lm.shares import check_planned_shares
from pianolm.lm.weights_path import check_weights_path
from pianolm.stage import Metrics, Need, Stage, StageContext


def run(ctx: StageContext) -> Metrics:
    """Trains from the weights of `ctx.upstream["base"]`, or from fresh ones with `finetune.from_scratch`."""
    from pianolm.lm.train import train_language_model

    return train_language_model(ctx)


def _needs(cfg: Mapping[str, Any]) -> dict[str, Need]:
    tokens = {"tokens": Need("tokenize", mode="velocity")}
    if cfg["finetune"]["from_scratch"]:
        return tokens
    return {**tokens, "base": Need("base", given="base")}


def _check(cfg: Mapping[str, Any]) -> None:
    """Refuses given weights or sampling settings that are none, and windows that the tokens do not allow."""
    check_planned_shares(cfg, "finetune")
    given = cfg["upstream"]["base"]
    if given and not cfg["finetune"]["from_scratch"]:
        path = Path(str(given)).expanduser()
        check_weights_path(path, f"upstream.base={given}")
        sampling_beside(path)


STAGE = Stage(
    run,
    "Language model with velocities, warm-started from base.",
    needs=_needs,
    settings=lambda cfg: language_model_settings(cfg, "finetune"),
    version=7,
    objective="val/loss",
    headlines=("val/bits_per_note", "parameters"),
    trains=True,
    check=_check,
    check_processes=lambda cfg, processes: stage_batch(cfg, "finetune", processes),
)
