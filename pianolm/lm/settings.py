"""What of a configuration determines a language model. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pianolm.config.neutral import CALLBACKS, MODEL, TRAINER, without
from pianolm.lm.llama import SHARES
from pianolm.training.hardware import resolve_hardware


def language_model_settings(cfg: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The settings of stage base or finetune for its fingerprint: all but those that cannot change a result."""
    own = cfg[stage]
    unused = frozenset(name for name in SHARES if not own["loader"][name])
    return {
        "model": without(cfg["model"], MODEL),
        "trainer": without(own["trainer"], TRAINER),
        # a share of 0 is left out: it changes nothing, and older artifacts do without
        "loader": without(own["loader"], unused),
        **{group: own[group] for group in ("optimizer", "loss")},
        "callbacks": without(cfg["callbacks"], CALLBACKS),
        "seed": cfg["seed"],
        "precision": resolve_hardware(own["trainer"]).precision,
    }
