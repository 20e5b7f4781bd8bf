"""Stage `plot`: curves of training runs, from the CSV files in their directories.

Reads `plot.*`. Writes `curves_<stage>.png` for each trained stage to the run directory.
"""

from __future__ import annotations

from pianolm.errors import UserError
from pianolm.stage import Metrics, Stage, StageContext


def run(ctx: StageContext) -> Metrics:
    """Draws the runs that `plot.run` names.

    Raises:
        UserError: There is no such directory, or nothing was trained in it.
    """
    from pianolm.report.runs import draw_runs, selected_runs  # matplotlib is slow to import

    runs = selected_runs(ctx.cfg["plot"])
    pictures = draw_runs(runs, ctx.run_dir)
    if not pictures:
        raise UserError(f"plot.run={ctx.cfg['plot']['run']}: no row in its metrics.csv yet; plot again later")
    for picture in pictures:
        print(f"plot: {picture}", flush=True)
    return {"pictures": len(pictures), "runs": len(runs)}


STAGE = Stage(run, "Draws the curves of training runs.", publishes=False)
