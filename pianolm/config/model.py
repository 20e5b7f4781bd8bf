"""Options of the language model's network."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from pianolm.config.option import option


@dataclass
class ModelConfig:
    """A Llama decoder."""

    width: int = option(MISSING, "Width of the residual stream.", at_least=1)
    layers: int = option(MISSING, "Number of decoder layers.", at_least=1)
    heads: int = option(
        MISSING, "Number of attention heads; width must be a multiple of 2 x heads.", at_least=1
    )
    kv_heads: int = option(
        MISSING, "Number of key and value heads; heads must be a multiple of it.", at_least=1
    )
    ffn: int = option(MISSING, "Width of the feed-forward layers.", at_least=1)
    rope_theta: float = option(10000.0, "Base of the rotary position embedding.", above=0)
    dropout: float = option(0.0, "Dropout of attention weights in training.", at_least=0, below=1)
    embedding: str = option(
        "codebook",
        "codebook: embeddings are computed from the features of a token; table: each row is learned on its own.",
        choices=("codebook", "table"),
    )
    init: str = option(
        "induction",
        "induction: attention starts as copying and induction heads; plain: random weights.",
        choices=("plain", "induction"),
    )
    lr: float = option(MISSING, "Default of optimizer.lr for this model size.", above=0)
    compile: bool = option(
        False,
        "torch.compile the network: slow to start, meant for GPUs; on a CPU steps were not faster "
        "(experiments/benchmarks/training-speed).",
    )
