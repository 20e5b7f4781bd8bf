"""Paths of weights: what can be told of them without reading them, and without torch."""

from __future__ import annotations

from pathlib import Path

from pianolm.errors import UserError

WEIGHTS = "model.safetensors"
PYTORCH_ENDINGS = (".pt", ".pth", ".bin", ".ckpt")
EXPECTED = f"expected a model directory, a .safetensors or a PyTorch file ({', '.join(PYTORCH_ENDINGS)})"


def check_weights_path(path: Path, source: str) -> Path:
    """The file of weights that a path means: itself, or `model.safetensors` in a directory.

    Args:
        path: Directory or file.
        source: How error messages call it, such as `upstream.base=PATH`.

    Raises:
        UserError: There is no such file, or its name is not that of weights.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{source}: no such file ({file}); {EXPECTED}")
    if file.suffix != ".safetensors" and file.suffix not in PYTORCH_ENDINGS:
        raise UserError(f"{source}: {file.suffix or 'no file name ending'} found, {EXPECTED}")
    return file
