"""Stage `plot`: curves of training runs, from the CSV files in their directories, or a page of the prepared data.

Reads `plot.*`. Writes to the run directory `curves_<stage>.png` for each trained stage and `sweep.png` for a sweep, or
with `plot=data` `report.html`, for which it needs the cell store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pianolm.errors import UserError
from pianolm.stage import Metrics, Need, Stage, StageContext

PAGE = "report.html"


def run(ctx: StageContext) -> Metrics:
    """Draws the runs that `plot.run` names, or the prepared data.

    Raises:
        UserError: There is no such directory, or nothing was trained in it.
    """
    return _draw_data(ctx) if ctx.cfg["plot"].get("what") == "data" else _draw_runs(ctx)


def _draw_data(ctx: StageContext) -> Metrics:
    from pianolm.data.prepared_page import save_prepared_page  # matplotlib is slow to import

    ctx.run_dir.mkdir(parents=True, exist_ok=True)
    pieces = save_prepared_page(ctx.upstream["cells"], ctx.run_dir / PAGE)
    print(f"plot: to see and hear the data, open {ctx.run_dir / PAGE}", flush=True)
    return {"pieces": pieces}


def _draw_runs(ctx: StageContext) -> Metrics:
    from pianolm.report.runs import draw_runs, draw_sweeps, selected_runs  # matplotlib is slow to import

    runs = selected_runs(ctx.cfg["plot"])
    pictures = [*draw_sweeps(ctx.cfg["plot"], ctx.run_dir), *draw_runs(runs, ctx.run_dir)]
    if not pictures:
        raise UserError(f"plot.run={ctx.cfg['plot']['run']}: no row in its metrics.csv yet; plot again later")
    for picture in pictures:
        print(f"plot: {picture}", flush=True)
    return {"pictures": len(pictures), "runs": len(runs)}


def _needs(cfg: Mapping[str, Any]) -> dict[str, Need]:
    return {"cells": Need("prepare", given="cells")} if cfg["plot"]["what"] == "data" else {}


STAGE = Stage(
    run, "Draws the curves of training runs, or a page of the prepared data.", needs=_needs, publishes=False
)
