"""Stage `plot`: curves of training runs, from the CSV files in their directories.

Reads `plot.*`. Writes a picture a trained stage to the run directory.
"""

from __future__ import annotations

from pianolm.errors import UserError
from pianolm.report.curves import read_curves, save_curves
from pianolm.report.runs import picture_title, run_names, wanted_runs
from pianolm.stage import Metrics, StageContext

VERSION = 1


def run(ctx: StageContext) -> Metrics:
    """Draws `plot.run`.

    Raises:
        UserError: There is no such directory, or nothing was trained in it.
    """
    runs = wanted_runs(ctx.cfg["plot"])
    names = dict(zip(runs, run_names(list(runs)), strict=True))
    stages = list(dict.fromkeys(stage for found in runs.values() for stage in found))
    pictures = 0
    for stage in stages:
        curves = {names[path]: read_curves(found[stage]) for path, found in runs.items() if stage in found}
        curves = {name: found for name, found in curves.items() if found.columns}
        if curves:
            picture = ctx.run_dir / f"{ctx.cfg['plot']['out']}_{stage}.png"
            save_curves(curves, picture, picture_title(stage, list(curves)))
            print(f"plot: {picture}", flush=True)
            pictures += 1
    if not pictures:
        raise UserError(
            f"plot.run={ctx.cfg['plot']['run']}: its metrics.csv hold no row yet; train on, then plot"
        )
    return {"pictures": pictures, "runs": len(runs)}
