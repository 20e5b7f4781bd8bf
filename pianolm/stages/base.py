"""Stage `base`: a language model on tokens without velocities.

See `pianolm.lm.train` for what it reads and writes.
"""

from __future__ import annotations

from pianolm.lm.train import train_language_model
from pianolm.stage import Metrics, StageContext

VERSION = 4


def run(ctx: StageContext) -> Metrics:
    """Trains from fresh weights."""
    return train_language_model(ctx)
