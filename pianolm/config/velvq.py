"""Options of the velocity codec: the parts that its two forms share, and those of each form."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from pianolm.config.option import option


@dataclass
class VelVQConfig:
    """Training of a velocity codec."""

    form: str = option(
        MISSING,
        "segment: vector quantizer over segments; frame: VQ-VAE over frames.",
        choices=("segment", "frame"),
    )
    codebook_size: int = option(
        512, "Number of codes; one code stands for the velocities of a cell.", at_least=1
    )
    batch_cells: int = option(MISSING, "Cells of a global batch; at least codebook_size.", at_least=1)
    max_steps: int = option(MISSING, "Number of optimizer steps.", at_least=1)
    lr: float = option(MISSING, "Peak learning rate; half a cosine brings it to 0 at the last step.", above=0)
    warmup_steps: int = option(MISSING, "Optimizer steps until the peak learning rate.", at_least=0)
    grad_clip: float | None = option(None, "Largest norm of the gradient; null: no limit.", above=0)
    decay: float = option(MISSING, "Decay of the moving averages of codes per step.", at_least=0, below=1)
    dead_code_threshold: float = option(
        MISSING,
        "A code used by fewer cells of a batch restarts at a cell of the batch; 0: never.",
        at_least=0,
    )
    val_every: int = option(MISSING, "Optimizer steps between validations.", at_least=1)
    val_cells: int | None = option(
        65536,
        "Validation cells while training, evenly spaced; null: all. The final metrics use all.",
        at_least=1,
    )
    seed: int = option(0, "Random seed of weights and of the cells drawn.", at_least=0)


@dataclass
class SegmentConfig(VelVQConfig):
    """A vector quantizer over the velocities of a cell's segments, without an encoder network: the default."""

    max_segments: int = option(
        6,
        "Segments that a code distinguishes; in cells of more, neighbouring segments share a velocity.",
        at_least=1,
        at_most=48,
    )


@dataclass
class FrameConfig(VelVQConfig):
    """The VQ-VAE of the published design: an encoder and a decoder network over the frames of a cell."""

    hidden: int = option(256, "Width of the hidden layers.", at_least=1)
    latent: int = option(8, "Width of a code.", at_least=1)
    depth: int = option(2, "Number of hidden layers of encoder and decoder.", at_least=1)
    commitment: float = option(0.25, "Weight of the distance between latents and their codes.", at_least=0)
