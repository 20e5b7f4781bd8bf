"""Options of the dynamics model."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from pianolm.config.option import option


@dataclass
class DynamicsModelConfig:
    """Training of a dynamics model; `trainer.val_check_interval` and `trainer.gradient_clip_val` hold for it, too."""

    width: int = option(MISSING, "Width of the network, a multiple of 32.", at_least=32)
    layers: int = option(MISSING, "Transformer blocks.", at_least=1)
    batch_windows: int = option(MISSING, "Windows of 256 notes in a batch.", at_least=1)
    max_steps: int = option(MISSING, "Number of optimizer steps.", at_least=1)
    lr: float = option(MISSING, "Peak learning rate; half a cosine brings it to 0 at the last step.", above=0)
