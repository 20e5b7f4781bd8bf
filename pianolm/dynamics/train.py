"""Training of a dynamics model: the work of stage `dynamics`.

Reads `dynamics.*`, `trainer.*`, `seed`, `compute.loader_workers` and upstream `cells`. Publishes dynamics.safetensors
and dynamics.json (`pianolm.dynamics.renderer.DynamicsModel`).
"""

from __future__ import annotations

import lightning as L

from pianolm.dynamics.datamodule import DynamicsDataModule
from pianolm.dynamics.module import DynamicsModule, DynamicsSettings
from pianolm.stage import Metrics, StageContext
from pianolm.training.small_network import train_small_network


def train_dynamics(ctx: StageContext) -> Metrics:
    """Trains the network and publishes its best weights.

    Returns:
        The metrics. Those under `val/` are of the best weights, on a window of each validation piece.

    Raises:
        UserError: No training piece has dynamics.
    """
    options, seed = ctx.cfg["dynamics"], int(ctx.cfg["seed"])
    data = DynamicsDataModule(ctx.upstream["cells"], options, seed, int(ctx.cfg["compute"]["loader_workers"]))
    L.seed_everything(seed, verbose=False)
    return train_small_network(ctx, DynamicsModule(DynamicsSettings.from_config(options)), data, "dynamics")
