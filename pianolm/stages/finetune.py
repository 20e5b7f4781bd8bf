"""Stage `finetune`: a language model on tokens with velocities, from the weights of a base model.

See `pianolm.lm.train` for what it reads and writes; `finetune.from_scratch` trains without a base model.
"""

from __future__ import annotations

from pianolm.errors import UserError
from pianolm.lm.train import train_language_model
from pianolm.stage import Metrics, StageContext

VERSION = 4


def run(ctx: StageContext) -> Metrics:
    """Trains from the weights of `ctx.upstream["base"]`.

    Raises:
        UserError: There is no base model and none was declined.
    """
    if "base" not in ctx.upstream and not ctx.cfg["finetune"]["from_scratch"]:
        raise UserError(
            "stage=finetune has no base model; give upstream.base=PATH or set finetune.from_scratch=true"
        )
    return train_language_model(ctx, own_keys=frozenset({"from_scratch"}))
