"""Stage `evaluate`: measures something that was made before; `evaluate=<name>` says what.

Reads `evaluate.*`. Writes tables to the run directory.
"""

from __future__ import annotations

from collections.abc import Callable

from pianolm.errors import UserError
from pianolm.stages import roundtrip
from pianolm.stages.context import Metrics, StageContext

VERSION = 1
EVALUATIONS: dict[str, Callable[[StageContext], Metrics]] = {"roundtrip": roundtrip.run}


def run(ctx: StageContext) -> Metrics:
    """Runs the evaluation that `evaluate.name` asks for.

    Raises:
        UserError: There is no such evaluation.
    """
    name = ctx.cfg["evaluate"]["name"]
    if name not in EVALUATIONS:
        raise UserError(f"evaluate.name={name!r} found, expected one of {', '.join(EVALUATIONS)}")
    return EVALUATIONS[name](ctx)
