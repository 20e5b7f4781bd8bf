"""Options of the beat tracker."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from pianolm.config.option import option


@dataclass
class BeatsConfig:
    """Training of a beat tracker; `trainer.val_check_interval` and `trainer.gradient_clip_val` hold for it, too."""

    width: int = option(MISSING, "Width of the network.", at_least=1)
    batch_excerpts: int = option(MISSING, "Excerpts of 40 seconds in a batch.", at_least=1)
    max_steps: int = option(MISSING, "Number of optimizer steps.", at_least=1)
    lr: float = option(MISSING, "Peak learning rate; half a cosine brings it to 0 at the last step.", above=0)
