"""Training of a beat tracker: the work of stage `beats`.

Reads `beats.*`, `trainer.*`, `seed`, `compute.loader_workers` and upstream `cells`. Publishes network.safetensors and
network.json (`pianolm.music.beat_network.BeatNetwork`).
"""

from __future__ import annotations

import lightning as L

from pianolm.beat_tracking.datamodule import BeatDataModule
from pianolm.beat_tracking.module import BeatModule, BeatSettings
from pianolm.stage import Metrics, StageContext
from pianolm.training.small_network import train_small_network


def train_tracker(ctx: StageContext) -> Metrics:
    """Trains the network and publishes its best weights.

    Returns:
        The metrics. Those under `val/` are of the best weights, on excerpts of validation pieces.

    Raises:
        UserError: No training piece has notes enough.
    """
    beats, seed = ctx.cfg["beats"], int(ctx.cfg["seed"])
    data = BeatDataModule(ctx.upstream["cells"], beats, seed, int(ctx.cfg["compute"]["loader_workers"]))
    L.seed_everything(seed, verbose=False)
    return train_small_network(ctx, BeatModule(BeatSettings.from_config(beats)), data, "beats")
