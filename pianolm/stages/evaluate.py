"""Stage `evaluate`: measures an existing model or tokenizer; `evaluate=<name>` chooses the measure.

Reads `evaluate.*`. Writes tables to the run directory. Measures: `pianolm.evaluation.measure`.
"""

from __future__ import annotations

from pianolm.evaluation.measure import find_measure
from pianolm.stage import Metrics, StageContext

VERSION = 1


def run(ctx: StageContext) -> Metrics:
    """Runs the measure."""
    return find_measure(ctx.cfg).run(ctx)
