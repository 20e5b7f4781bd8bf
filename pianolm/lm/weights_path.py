"""Paths of weights and of models: what can be told of them without reading the weights, and without torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

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


def check_model_directory(directory: Path) -> None:
    """Raises UserError where a directory is not one that a stage published, with a sentence that says why."""
    expected = "expected a directory published by stage=base or stage=finetune"
    if directory.is_file():
        raise UserError(
            f"{directory}: a file found, {expected}; PianoLM.from_weights reads a plain weights file"
        )
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; {expected}")
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory}: no config.json; {expected}")
    weights = directory / WEIGHTS
    if not weights.is_file():
        pickles = sorted(
            path.name for path in directory.glob("*") if path.suffix in (*PYTORCH_ENDINGS, ".pkl")
        )
        hint = ""
        if pickles:
            hint = (
                f"; {', '.join(pickles)} found, but pickled weights are not read here, as they can run code"
            )
        raise UserError(f"{directory}: no {WEIGHTS}{hint}; {expected}")
    try:
        with safe_open(weights, "numpy"):
            pass
    except (SafetensorError, OSError) as error:
        with weights.open("rb") as file:
            is_pickle = file.read(2) in (b"PK", b"\x80\x02")  # torch.save's zip format and its older one
        problem = "a pickle found" if is_pickle else f"not readable ({error})"
        raise UserError(
            f"{weights}: {problem}, expected weights in the safetensors format; {expected}"
        ) from error


def unreadable(source: str, error: Exception) -> UserError:
    """The sentence about a weights file that cannot be read."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{source}: not readable as weights ({reason}); give the file as it was published")
