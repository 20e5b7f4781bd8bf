"""Stage `base`: a language model on tokens without velocities.

See `pianolm.stages.lm` for what it reads and writes.
"""

from __future__ import annotations

from pianolm.stages.context import Metrics, StageContext
from pianolm.stages.lm import train_language_model

VERSION = 4


def run(ctx: StageContext) -> Metrics:
    """Trains from fresh weights."""
    return train_language_model(ctx)
