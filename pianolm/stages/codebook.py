"""Stage `codebook`: the pattern codebook from the training cells.

Reads `codebook.*` and `tokenizer.vocabulary`. Publishes `codebook.npz`.
"""

from __future__ import annotations

import numpy as np

from pianolm.data.store import CellStore
from pianolm.errors import UserError
from pianolm.stages.context import Metrics, StageContext
from pianolm.tokens.fit import fit_codebook
from pianolm.tokens.vocabulary import Vocabulary

VERSION = 1


def run(ctx: StageContext) -> Metrics:
    """Learns the codebook and writes it to `ctx.out`."""
    store = CellStore.open(ctx.upstream["cells"])
    settings = ctx.cfg["codebook"]
    cells = store.joined(store.split("train"))
    if not len(cells):
        raise UserError(
            f"{ctx.upstream['cells']}: no training cells; check data.* and the splits of the source"
        )
    fit = fit_codebook(
        np.asarray(cells.sustain),
        np.asarray(cells.onset),
        Vocabulary.from_dict(ctx.cfg["tokenizer"]["vocabulary"]),
        method=settings["method"],
        iterations=int(settings["iterations"]),
    )
    fit.codebook.save(ctx.out / "codebook.npz")
    return {
        "method": fit.method,
        "coverage_l1": fit.coverage[0],
        "coverage_l2": fit.coverage[1],
        "coverage_l3": fit.coverage[2],
        "codes_per_cell": fit.codes_per_cell[fit.method],
        **{f"codes_per_cell_{name}": value for name, value in fit.codes_per_cell.items()},
        "distinct_cells": fit.distinct_cells,
    }
