"""The device that a model is put on, checked before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pianolm.errors import UserError

if TYPE_CHECKING:
    import torch


def checked_device(device: str | torch.device) -> str | torch.device:
    """The device of a name such as `cuda` or `cuda:1`; `cpu` as it is, without importing torch.

    Raises:
        UserError: There is no such device on this machine.
    """
    if device == "cpu":
        return device
    import torch

    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(
            f"device={str(device)!r} found, expected a device of torch, such as cpu or cuda"
        ) from error
    gpus = torch.cuda.device_count()
    if found.type == "cuda" and (found.index or 0) >= gpus:
        raise UserError(
            f"device={str(device)!r} found, but torch sees {gpus or 'no'} CUDA GPU{'s' if gpus > 1 else ''} on this "
            "machine; use device='cpu'"
        )
    return found
