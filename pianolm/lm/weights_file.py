"""Files with the weights of a language model, read as tensors of torch."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pianolm.lm.weights_path import check_weights_path, unreadable

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")


def read_tensors(path: Path, source: str) -> dict[str, Tensor]:
    """All tensors of a weights file, or of `model.safetensors` in a directory.

    Args:
        path: Directory or file. PyTorch files are read weights-only, so that they cannot run code; they hold a state
            dict, or one under `state_dict`, `model_state_dict` or `model`.
        source: How error messages call the file, such as `upstream.base=PATH`.

    Raises:
        UserError: The file is missing, of another format, damaged, or holds no tensors.
    """
    file = check_weights_path(path, source)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return _state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError) as error:
        raise unreadable(source, error) from error


def _state_dict(content: object) -> dict[str, Tensor]:
    """The tensors of an unpickled file. Raises TypeError where there are none."""
    if not isinstance(content, Mapping):
        raise TypeError(f"{type(content).__name__} found, expected a state dict")
    inner = next((content[key] for key in _STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), content)
    # parameters, and tensors that were saved with their gradients on: NumPy refuses those
    tensors = {str(name): value.detach() for name, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        raise TypeError("no tensors found, expected a state dict")
    return tensors
