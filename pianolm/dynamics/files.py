"""The files of a dynamics model. Without torch, so that other models are played without it."""

from __future__ import annotations

from pathlib import Path

CONFIG_FILE, WEIGHTS_FILE = "dynamics.json", "dynamics.safetensors"
FORMAT = "pianolm dynamics 1"


def is_dynamics_model(directory: str | Path) -> bool:
    """Whether a directory holds a dynamics model."""
    return (Path(directory) / CONFIG_FILE).is_file()
